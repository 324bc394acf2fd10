"""Files that are named by the BLAKE3 of their content, with a limit on their total size.

`FOLDER/ab/<64 hex digits>` holds the bytes of that name. A file appears whole or not at all (written aside, then
renamed). What no longer hashes to its name is moved to `FOLDER/damaged/` and never served.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from atoll.errors import Corrupt, MachineError, Refused
from atoll.wire.hashing import blob_id
from atoll.wire.reasons import Reason

_NAME = re.compile("[0-9a-f]{64}")


def is_name(text: str) -> bool:
    """Whether a file's name is that of hashed bytes."""
    return _NAME.fullmatch(text) is not None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise MachineError(
            f"{path} could not be used: {error.strerror or error}. Expected a folder that this user may write to, on a "
            "disk with space left; check both and start again."
        ) from error


class HashedFiles:
    """The files of one folder. One process owns a folder; its threads may share the object.

    `limit_bytes` bounds the sum of the sizes. `restore` is the sentence that tells a person how a damaged file comes
    back, with `{name}` for the name. `sync` waits for the disk at each write, so that a power cut loses nothing.
    """

    def __init__(self, folder: Path, limit_bytes: int, restore: str, *, sync: bool = True) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self._restore, self._sync = restore, sync
        self._lock = threading.RLock()
        self._sizes: dict[bytes, int] = {}  # least recently used first
        self._checked: dict[bytes, tuple[int, int]] = {}  # name -> (size, modified) at the last good check
        self.total_bytes = 0
        with _explained(folder):
            self._open()

    def _open(self) -> None:
        (self.folder / "damaged").mkdir(parents=True, exist_ok=True)
        (self.folder / "partial").mkdir(exist_ok=True)
        for leftover in (self.folder / "partial").iterdir():
            leftover.unlink()  # an unfinished write of a process that was killed
        found = []
        for path in self.folder.glob("[0-9a-f][0-9a-f]/*"):
            if is_name(path.name) and path.parent.name == path.name[:2]:
                facts = path.stat()
                found.append((facts.st_atime_ns, path.name, facts.st_size))
        for _, name, size in sorted(found):
            self._sizes[bytes.fromhex(name)] = size
            self.total_bytes += size

    def path(self, name: bytes) -> Path:
        """Where the bytes of this name lie, or would lie."""
        return self.folder / name.hex()[:2] / name.hex()

    def __contains__(self, name: object) -> bool:
        return name in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def names(self) -> Iterator[bytes]:
        """Names, least recently used first; a copy."""
        with self._lock:
            return iter(list(self._sizes))

    def size(self, name: bytes) -> int:
        """Bytes of a file; raises Refused(NOT_FOUND)."""
        size = self._sizes.get(name)
        if size is None:
            raise Refused(Reason.NOT_FOUND, name.hex())
        return size

    def put(self, data: bytes, expected: bytes | None = None) -> bytes:
        """Keeps the bytes and returns their name.

        Raises Refused: WRONG_HASH when the name is not the `expected` one, BUSY above the limit; MachineError when the
        disk fails.
        """
        name = blob_id(data)
        if expected not in (None, name):
            raise Refused(Reason.WRONG_HASH, f"{len(data)} bytes hash to {name.hex()}")
        with self._lock:
            if name in self._sizes and self.path(name).exists():
                self._touch(name)
                return name
            if name in self._sizes:
                self._forget(name)  # somebody removed the file
            if self.total_bytes + len(data) > self.limit_bytes:
                room = max(0, self.limit_bytes - self.total_bytes)
                raise Refused(Reason.BUSY, f"{len(data)} bytes, room for {room} of {self.limit_bytes}")
            with _explained(self.path(name)):
                self._write(name, data)
            self._sizes[name] = len(data)
            self.total_bytes += len(data)
        return name

    def _write(self, name: bytes, data: bytes) -> None:
        target, partial = self.path(name), self.folder / "partial" / name.hex()
        target.parent.mkdir(exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            if self._sync:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(target)
        if self._sync and os.name == "posix":  # the rename itself lasts only when its folder is on disk
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def get(self, name: bytes) -> bytes:
        """The bytes of this name; raises Refused(NOT_FOUND), or Corrupt after moving a damaged file aside."""
        with self._lock:
            data = self._read(name)
            if blob_id(data) != name:
                self._set_aside(name)
            self._touch(name)
            return data

    def read(self, name: bytes, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; the whole file is checked when first read and after any change to it.

        Raises as `get`.
        """
        with self._lock:
            self.size(name)
            path = self.path(name)
            try:
                facts = path.stat()
            except FileNotFoundError:
                self._forget(name)
                raise Refused(Reason.NOT_FOUND, name.hex()) from None
            if self._checked.get(name) != (facts.st_size, facts.st_mtime_ns):
                self.get(name)
                self._checked[name] = (facts.st_size, facts.st_mtime_ns)
            self._touch(name)
            with _explained(path), path.open("rb") as file:
                file.seek(offset)
                return file.read(length)

    def _read(self, name: bytes) -> bytes:
        self.size(name)
        try:
            with _explained(self.path(name)):
                return self.path(name).read_bytes()
        except FileNotFoundError:
            self._forget(name)
            raise Refused(Reason.NOT_FOUND, name.hex()) from None

    def _touch(self, name: bytes) -> None:
        # The order of use must outlive the process: it is the access time, which we set since many systems do not.
        self._sizes[name] = self._sizes.pop(name)
        os.utime(self.path(name), ns=(time.time_ns(), self.path(name).stat().st_mtime_ns))

    def _set_aside(self, name: bytes) -> NoReturn:
        path, aside = self.path(name), self.folder / "damaged" / name.hex()
        with _explained(path):
            path.replace(aside)
        self._forget(name)
        raise Corrupt(
            f"The file {path} does not hold what was written (expected BLAKE3 {name.hex()}); it is kept as {aside}. "
            + self._restore.format(name=name.hex())
        )

    def delete(self, name: bytes) -> bool:
        """Removes a file; whether there was one."""
        with self._lock:
            if name not in self._sizes:
                return False
            with _explained(self.path(name)):
                self.path(name).unlink(missing_ok=True)
            self._forget(name)
            return True

    def _forget(self, name: bytes) -> None:
        self.total_bytes -= self._sizes.pop(name)
        self._checked.pop(name, None)
