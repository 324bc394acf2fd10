"""A node's own blobs: content-addressed files, a limit, and room made by forgetting what was used longest ago."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from atoll.errors import Refused
from atoll.wire.files import HashedFiles, is_name
from atoll.wire.hashing import blob_id
from atoll.wire.reasons import Reason

_RESTORE = "Run `atoll get {name}` to bring it back from the network."


class BlobStore:
    """Blobs in `FOLDER/ab/<hex>`, together at most `limit_bytes`.

    When a new blob finds no room, unpinned ones go, least recently used first. Pins outlive the process (an empty file
    `FOLDER/pinned/<hex>` each). A damaged file is kept in `FOLDER/damaged/`.
    """

    def __init__(self, folder: Path, limit_bytes: int, *, sync: bool = True) -> None:
        self._files = HashedFiles(folder, limit_bytes, _RESTORE, sync=sync)
        self._pins_folder = folder / "pinned"
        self._pins_folder.mkdir(exist_ok=True)
        self._pins = {bytes.fromhex(path.name) for path in self._pins_folder.iterdir() if is_name(path.name)}
        self._lock = threading.RLock()

    @property
    def total_bytes(self) -> int:
        """Bytes of all blobs."""
        return self._files.total_bytes

    @property
    def limit_bytes(self) -> int:
        """The most that all blobs together may take."""
        return self._files.limit_bytes

    def __len__(self) -> int:
        return len(self._files)

    def ids(self) -> Iterator[bytes]:
        """Ids of all blobs, least recently used first."""
        return self._files.names()

    def path(self, blob: bytes) -> Path:
        """The file of a blob."""
        return self._files.path(blob)

    def put(self, data: bytes, *, pin: bool = False) -> bytes:
        """Keeps a blob and returns its id.

        Raises Refused(BUSY) when it does not fit beside the pinned ones, MachineError when the disk fails.
        """
        with self._lock:
            blob = blob_id(data)
            if blob not in self._files:
                self._make_room(len(data))
            self._files.put(data)
            if pin:
                self.pin(blob)
            return blob

    def get(self, blob: bytes) -> bytes:
        """A blob, checked; raises Refused(NOT_FOUND), or Corrupt after moving a damaged file aside."""
        return self._files.get(blob)

    def read(self, blob: bytes, offset: int, length: int) -> bytes:
        """Up to `length` bytes of a blob from `offset`; raises as `get`. The file is checked at the first read."""
        return self._files.read(blob, offset, length)

    def has(self, blob: bytes) -> bool:
        """Whether the blob is here."""
        return blob in self._files

    def size(self, blob: bytes) -> int:
        """Bytes of a blob; raises Refused(NOT_FOUND)."""
        return self._files.size(blob)

    def delete(self, blob: bytes) -> bool:
        """Removes a blob, pinned or not; whether it was here."""
        with self._lock:
            self.unpin(blob)
            return self._files.delete(blob)

    def pin(self, blob: bytes) -> None:
        """Keeps a blob from being forgotten, now or once it arrives."""
        (self._pins_folder / blob.hex()).touch()
        self._pins.add(blob)

    def unpin(self, blob: bytes) -> None:
        """Lets a blob be forgotten again."""
        (self._pins_folder / blob.hex()).unlink(missing_ok=True)
        self._pins.discard(blob)

    def pinned(self, blob: bytes) -> bool:
        """Whether the blob is pinned."""
        return blob in self._pins

    def _make_room(self, size: int) -> None:
        spare = [blob for blob in self._files.names() if blob not in self._pins]
        kept = self.total_bytes - sum(self._files.size(blob) for blob in spare)
        if kept + size > self.limit_bytes:
            detail = f"a blob of {size} bytes beside {kept} pinned ones exceeds the limit of {self.limit_bytes}"
            raise Refused(Reason.BUSY, detail + "; raise the node's disk limit, or unpin something")
        for blob in spare:
            if self.total_bytes + size <= self.limit_bytes:
                return
            self._files.delete(blob)
