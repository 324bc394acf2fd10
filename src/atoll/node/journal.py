"""What a node has seen and promised, on disk before anything of it leaves: SQLite, one writer.

Events are appended and read back in order; snapshots are the latest state under a key. Every row carries a BLAKE3
checksum of all its fields, and the whole file is checked when it is opened: a damaged journal is never used and never
deleted. What was appended survives a killed process; with `durable` it also survives a power cut.

The lock on a home lives here too: one home belongs to one process.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from blake3 import blake3

from atoll.errors import AtollError, BadInput, Corrupt, InternalError, MachineError, UserError

FILE_NAME = "journal.sqlite"
LOCK_NAME = "lock"
MAX_PAYLOAD_BYTES = 64 << 20
_SCHEMA_VERSION = 1
_APPLICATION_ID = 0x41544F4C  # "ATOL"
_LOCK_OFFSET = 1 << 20  # beyond the text of the lock file: on Windows a locked byte cannot be read
_SCHEMA = """
CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    job BLOB NOT NULL, round INTEGER NOT NULL, kind TEXT NOT NULL, payload BLOB NOT NULL, checksum BLOB NOT NULL
) STRICT;
CREATE INDEX event_of_job ON event (job, round);
CREATE TABLE snapshot (key TEXT PRIMARY KEY, data BLOB NOT NULL, checksum BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Entry:
    """One event as it was appended."""

    seq: int
    job: bytes
    round: int
    kind: str
    payload: bytes


class HomeLock:
    """Holds a home directory for this process until `release` or the end of the process, however it ends."""

    def __init__(self, home: Path) -> None:
        """Raises UserError that names the process which has the home."""
        path = home / LOCK_NAME
        try:
            home.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="ascii")  # noqa: SIM115
        except OSError as error:
            raise MachineError(f"{path} cannot be opened ({error.strerror}): expected a folder of yours.") from error
        try:
            _lock(self._file.fileno())
        except OSError as error:
            holder = self._file.read(20).strip() or "unknown"
            self._file.close()
            raise UserError(
                f"The home {home} is in use by process {holder}: stop it with `atoll stop --home {home}`, "
                "or choose another home."
            ) from error
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """Let another process have the home. Safe to call twice."""
        self._file.close()


def _lock(descriptor: int) -> None:
    """Take the lock or raise OSError at once. The operating system frees it when the process ends."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, _LOCK_OFFSET, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl

        # flock, not lockf: it also excludes a second opener in this process, and closing another descriptor of the
        # file does not free it. Children started by exec do not inherit it.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Journal:
    """The journal of one home. Use it from the thread that opened it; close it, or use it as a context manager."""

    def __init__(self, path: Path, lock: HomeLock, connection: sqlite3.Connection) -> None:
        self.path = path
        self._lock = lock
        self._connection = connection

    @classmethod
    def open(cls, home: Path, *, fresh: bool = False) -> Journal:
        """Open or create `HOME/journal.sqlite`, and hold the home.

        fresh: move an existing journal aside first, as journal.sqlite.damaged-N. Raises UserError if another process
        holds the home or the file is of a newer Atoll, and Corrupt if it is damaged (it is then left as it is).
        """
        lock = HomeLock(home)
        path = home / FILE_NAME
        connection = None
        try:
            if fresh:
                _move_aside(path)
            connection = sqlite3.connect(path, isolation_level=None, timeout=5)
            connection.text_factory = _text
            _prepare(connection, path)
        except BaseException as error:
            if connection is not None:
                connection.close()
            lock.release()
            if isinstance(error, sqlite3.Error):
                raise _explained(path, error) from error
            raise
        return cls(path, lock, connection)

    def append(self, job: bytes, round: int, kind: str, payload: bytes, *, durable: bool = False) -> int:
        """Store one event and return its number; numbers rise and are never reused.

        durable: wait until the disk has it (some milliseconds), for promises that must not be forgotten.
        """
        return self.append_all([(job, round, kind, payload)], durable=durable)[0]

    def append_all(self, events: Iterable[tuple[bytes, int, str, bytes]], *, durable: bool = False) -> list[int]:
        """Store several events (job, round, kind, payload) or none, in this order."""
        numbers = []
        with self._transaction(durable) as connection:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
            last = int(row[0]) if row else 0
            for number, (job, round_, kind, payload) in enumerate(events, last + 1):
                _check_size(payload)
                connection.execute(
                    "INSERT INTO event (seq, job, round, kind, payload, checksum) VALUES (?, ?, ?, ?, ?, ?)",
                    (number, job, round_, kind, payload, _event_sum(number, job, round_, kind, payload)),
                )
                numbers.append(number)
        return numbers

    def read(self, job: bytes, round_from: int = 0) -> Iterator[Entry]:
        """Events of a job from a round on, in the order of their numbers; raises Corrupt at a damaged row."""
        query = "SELECT seq, job, round, kind, payload, checksum FROM event WHERE job = ? AND round >= ? ORDER BY seq"
        with self._explaining():
            for *fields, checksum in self._connection.execute(query, (job, round_from)):
                entry = Entry(*fields)
                if _event_sum(*fields) != checksum:
                    raise _damaged(self.path, f"event {entry.seq} does not match its checksum")
                yield entry

    def jobs(self) -> list[bytes]:
        """Jobs that have events."""
        with self._explaining():
            return [row[0] for row in self._connection.execute("SELECT DISTINCT job FROM event ORDER BY job")]

    def prune(self, job: bytes, before_round: int) -> int:
        """Forget the events of a job's rounds before `before_round`; how many there were."""
        with self._transaction() as connection:
            return connection.execute("DELETE FROM event WHERE job = ? AND round < ?", (job, before_round)).rowcount

    def put_snapshot(self, key: str, data: bytes, *, durable: bool = False) -> None:
        """Keep `data` under `key`, in place of what was there."""
        _check_size(data)
        with self._transaction(durable) as connection:
            connection.execute(
                "INSERT INTO snapshot (key, data, checksum) VALUES (?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET data = excluded.data, checksum = excluded.checksum",
                (key, data, _snapshot_sum(key, data)),
            )

    def get_snapshot(self, key: str) -> bytes | None:
        """What was last kept under `key`, or None; raises Corrupt if it is damaged."""
        with self._explaining():
            row = self._connection.execute("SELECT data, checksum FROM snapshot WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        if _snapshot_sum(key, row[0]) != row[1]:
            raise _damaged(self.path, f"snapshot {key!r} does not match its checksum")
        return bytes(row[0])

    def snapshots(self, prefix: str) -> dict[str, bytes]:
        """Everything that is kept under keys with this beginning, by key; raises Corrupt if any of it is damaged."""
        query = "SELECT key, data, checksum FROM snapshot WHERE key >= ? AND key < ? ORDER BY key"
        with self._explaining():
            rows = self._connection.execute(query, (prefix, prefix + "\U0010ffff")).fetchall()
        for key, data, checksum in rows:
            if _snapshot_sum(key, data) != checksum:
                raise _damaged(self.path, f"snapshot {key!r} does not match its checksum")
        return {key: bytes(data) for key, data, _ in rows}

    def drop_snapshot(self, key: str) -> None:
        """Forget what is kept under `key`, if anything."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM snapshot WHERE key = ?", (key,))

    def close(self) -> None:
        """Close the file and let another process have the home. Safe to call twice."""
        self._connection.close()
        self._lock.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @contextlib.contextmanager
    def _transaction(self, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """All or nothing; in WAL mode FULL waits for the disk at the end of a transaction, NORMAL does not."""
        connection = self._connection
        with self._explaining():
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:  # SQLite ends it itself when the disk is full
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _explained(self.path, error) from error


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables in a new file, or check every page and every row of an old one."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if tables and application != _APPLICATION_ID:
        raise _damaged(path, "it is not a journal of Atoll")
    if version > _SCHEMA_VERSION:
        raise UserError(f"{path} was written by a newer Atoll (format {version}): update Atoll to use it.")
    if tables:
        _check(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    if not tables:
        head = f"PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {_SCHEMA_VERSION};"
        connection.executescript(f"BEGIN; {head} {_SCHEMA} COMMIT;")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _damaged(path, verdict)
    for *fields, checksum in connection.execute("SELECT seq, job, round, kind, payload, checksum FROM event"):
        if _event_sum(*fields) != checksum:
            raise _damaged(path, f"event {fields[0]} does not match its checksum")
    for key, data, checksum in connection.execute("SELECT key, data, checksum FROM snapshot"):
        if _snapshot_sum(key, data) != checksum:
            raise _damaged(path, f"snapshot {key!r} does not match its checksum")


def _event_sum(seq: int, job: bytes, round_: int, kind: str, payload: bytes) -> bytes:
    head = seq.to_bytes(8, "big", signed=True) + round_.to_bytes(8, "big", signed=True)
    name = kind.encode()
    return blake3(head + len(job).to_bytes(4, "big") + job + len(name).to_bytes(4, "big") + name + payload).digest()


def _snapshot_sum(key: str, data: bytes) -> bytes:
    name = key.encode()
    return blake3(len(name).to_bytes(4, "big") + name + data).digest()


def _text(stored: bytes) -> str:
    return stored.decode(errors="replace")  # damaged text then fails at its checksum, not here


def _check_size(payload: bytes) -> None:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise BadInput(f"A journal entry has at most {MAX_PAYLOAD_BYTES} bytes, not {len(payload)}: keep it as a blob.")


def _explained(path: Path, error: sqlite3.Error) -> AtollError:
    """Damage is told from a full or failing disk, and both from a mistake of ours."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return InternalError(f"the journal {path} was used wrongly: {error}")
    # Our statements are fixed, so a plain SQLITE_ERROR means that a table is not what we made.
    if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
        return _damaged(path, str(error))
    return MachineError(
        f"{path} cannot be used ({error}): expected a disk with space left that this user may write to."
    )


def _damaged(path: Path, how: str) -> Corrupt:
    return Corrupt(
        f"The journal {path} is damaged ({how}) and was left as it is. `atoll node --home {path.parent} "
        f"--fresh-journal` keeps it as {path.name}.damaged-N and learns the state again from the chain and the peers; "
        "your keys are not touched."
    )


def _move_aside(path: Path) -> None:
    """Rename the journal and its companions to the first free number."""
    number = 1
    while path.with_name(f"{path.name}.damaged-{number}").exists():
        number += 1
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(path.with_name(f"{path.name}.damaged-{number}{suffix}"))
