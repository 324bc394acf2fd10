"""What a holder keeps: pieces under their ids, and the layouts that say to which blobs they belong."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from atoll.errors import Corrupt, Refused
from atoll.storage.layout import Layout, encode, parse
from atoll.wire.files import HashedFiles
from atoll.wire.reasons import Reason

MAX_LAYOUTS_PER_BLOB = 4  # by different content: one is right, the others can only be mistakes or attacks
_RESTORE = "The other holders can rebuild it: run `atoll get` for the blob and store it again."


class PieceStore:
    """The pieces and layouts of one node, in `folder`, together at most `limit_bytes`.

    `damaged` lists what was found damaged when the folder was opened; each of it is kept in a folder `damaged`.
    """

    def __init__(self, folder: Path, limit_bytes: int, *, sync: bool = True) -> None:
        self.limit_bytes = limit_bytes
        self.damaged: list[Corrupt] = []
        self._pieces = HashedFiles(folder, limit_bytes, _RESTORE, sync=sync)
        self._layouts = HashedFiles(folder / "layouts", limit_bytes, _RESTORE, sync=sync)
        self._by_blob: dict[bytes, dict[bytes, bytes]] = {}  # blob id -> layout id -> name of the layout's file
        self._by_id: dict[bytes, Layout] = {}
        self._lock = threading.RLock()
        for name in self._layouts.names():
            try:
                self._index(parse(self._layouts.get(name)), name)
            except Corrupt as damage:
                self.damaged.append(damage)
            except Refused:
                continue  # whole, but of a later version of Atoll: left for it

    def _index(self, layout: Layout, name: bytes) -> None:
        self._by_blob.setdefault(layout.blob, {})[layout.id] = name
        self._by_id[layout.id] = layout

    @property
    def total_bytes(self) -> int:
        """Bytes of all pieces and layouts."""
        return self._pieces.total_bytes + self._layouts.total_bytes

    def path(self, piece: bytes) -> Path:
        """The file of a piece."""
        return self._pieces.path(piece)

    def put(self, piece: bytes, data: bytes) -> None:
        """Keeps a piece; raises Refused: WRONG_HASH when it is not the piece of that id, BUSY above the limit."""
        with self._lock:
            if piece not in self._pieces:
                self._make_sure_of_room(len(data))
            self._pieces.put(data, piece)

    def get(self, piece: bytes) -> bytes:
        """A piece; raises Refused(NOT_FOUND), or Corrupt after moving a damaged file aside."""
        return self._pieces.get(piece)

    def has(self, pieces: Iterable[bytes]) -> list[bool]:
        """For each id, whether the piece is here."""
        return [piece in self._pieces for piece in pieces]

    def delete(self, piece: bytes) -> bool:
        """Removes a piece; whether it was here."""
        return self._pieces.delete(piece)

    def put_layout(self, layout: Layout) -> None:
        """Keeps a layout; one of the same content is replaced, for its holders change with repair.

        Raises Refused(BUSY) above the limit of bytes, or of layouts that contradict one another about one blob.
        """
        data, layout_id = encode(layout), layout.id
        with self._lock:
            known = self._by_blob.get(layout.blob, {})
            old = known.get(layout_id)
            if old is None and len(known) >= MAX_LAYOUTS_PER_BLOB:
                raise Refused(Reason.BUSY, f"{len(known)} other layouts are kept for this blob")
            if self._by_id.get(layout_id) == layout:
                return
            self._make_sure_of_room(len(data))
            self._index(layout, self._layouts.put(data))
            if old is not None:
                self._layouts.delete(old)

    def layout(self, layout_id: bytes) -> Layout:
        """The layout of this id; raises Refused(NOT_FOUND)."""
        layout = self._by_id.get(layout_id)
        if layout is None:
            raise Refused(Reason.NOT_FOUND, f"layout {layout_id.hex()}")
        return layout

    def get_layouts(self, blob: bytes) -> list[Layout]:
        """Every layout kept for a blob, oldest content first; raises Refused(NOT_FOUND) when there is none."""
        known = self._by_blob.get(blob)
        if not known:
            raise Refused(Reason.NOT_FOUND, f"a layout of blob {blob.hex()}")
        return [self._by_id[layout_id] for layout_id in known]

    def blobs(self) -> list[bytes]:
        """Ids of the blobs of which a layout is kept."""
        return list(self._by_blob)

    def _make_sure_of_room(self, size: int) -> None:
        if self.total_bytes + size > self.limit_bytes:
            room = max(0, self.limit_bytes - self.total_bytes)
            raise Refused(Reason.BUSY, f"{size} bytes, room for {room} of {self.limit_bytes}")
