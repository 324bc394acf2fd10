"""The devnet's disk: one SQLite file that holds py-evm's key-value data and our own tables, written block by block.

A block is one SQLite transaction (state, receipts, logs, index), so that after `kill -9` it is there in full or not at
all, and nothing has to be rebuilt.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eth.db.atomic import AtomicDBWriteBatch
from eth.db.backends.base import BaseAtomicDB

from atoll.errors import Corrupt, UserError

SCHEMA = """
create table if not exists kv(k blob primary key, v blob not null) without rowid;
create table if not exists meta(name text primary key, value text not null) without rowid;
create table if not exists blocks(number integer primary key, hash blob not null unique, body text not null);
create table if not exists transactions(
  hash blob primary key, number integer not null, body text not null, receipt text not null) without rowid;
create table if not exists logs(
  number integer not null, log_index integer not null, address blob not null, topics blob not null,
  body text not null, primary key(number, log_index)) without rowid;
create table if not exists funded(account blob primary key, transactions text not null) without rowid;
"""


class KeyValues(BaseAtomicDB):  # type: ignore[misc]  # py-evm carries no types
    """py-evm's database interface over the table `kv`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __getitem__(self, key: bytes) -> bytes:
        row = self._connection.execute("select v from kv where k=?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return bytes(row[0])

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._connection.execute("insert or replace into kv values(?,?)", (key, value))

    def __delitem__(self, key: bytes) -> None:
        if self._connection.execute("delete from kv where k=?", (key,)).rowcount == 0:
            raise KeyError(key)

    def _exists(self, key: bytes) -> bool:
        return self._connection.execute("select 1 from kv where k=?", (key,)).fetchone() is not None

    @contextmanager
    def atomic_batch(self) -> Iterator[Any]:
        """A batch of py-evm's; it ends in the SQLite transaction of the block around it."""
        with AtomicDBWriteBatch._commit_unless_raises(self) as batch:
            yield batch


class Store:
    """The open database. One process at a time holds it; one thread at a time may use it.

    Raises Corrupt, after setting the file aside, when SQLite finds damage, and UserError when another process has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=1.0)
            self._prepare()
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise UserError(
                    f"another chain process has {path} open; stop it first, or choose another home directory"
                ) from error
            raise
        except sqlite3.DatabaseError as error:
            raise self._set_aside(str(error)) from error
        self.kv = KeyValues(self.connection)

    def _prepare(self) -> None:
        run = self.connection.execute
        run("pragma locking_mode=exclusive")
        run("pragma journal_mode=wal")
        run("pragma synchronous=full")
        verdict = run("pragma quick_check").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        self.connection.executescript(SCHEMA)

    def _set_aside(self, finding: str) -> Corrupt:
        self.connection.close()
        kept = self.path.with_name(f"{self.path.name}.damaged-{int(time.time())}")
        self.path.rename(kept)
        for suffix in ("-wal", "-shm"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(kept.with_name(kept.name + suffix))
        backup = backup_path(self.path)
        restore = (
            f"restore the copy made at the last start with: cp {backup} {self.path}"
            if backup.exists()
            else f"put a backup of the file back at {self.path}"
        )
        return Corrupt(
            f"the chain's database is damaged ({finding}); it was kept as {kept}; {restore}, "
            f"or start a new chain in an empty home directory"
        )

    def backup(self) -> None:
        """Copy the file beside itself; what is at `backup_path` is always a whole copy."""
        final = backup_path(self.path)
        partial = final.with_name(final.name + ".partial")
        partial.unlink(missing_ok=True)
        copy = sqlite3.connect(partial)
        try:
            self.connection.backup(copy)
        finally:
            copy.close()
        partial.replace(final)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything or nothing."""
        self.connection.execute("begin immediate")
        try:
            yield self.connection
        except BaseException:
            self.connection.execute("rollback")
            raise
        self.connection.execute("commit")

    def get(self, name: str) -> str | None:
        """A value of the table `meta`."""
        row = self.connection.execute("select value from meta where name=?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, name: str, value: str) -> None:
        """Set a value of the table `meta`."""
        self.connection.execute("insert or replace into meta values(?,?)", (name, value))

    def close(self) -> None:
        """Close the file; every block is on disk already."""
        self.connection.close()


def backup_path(path: Path) -> Path:
    """Where the copy of a chain's database lies."""
    return path.with_name(path.name + ".backup")
