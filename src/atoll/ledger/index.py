"""Our own index of the contracts' events: read once in windows that the endpoint can bear, kept in SQLite, undone when
the chain reorganises.

Filters of endpoints are never relied on; a log is known by (transaction hash, log index). The index keeps the hashes of
recent blocks and compares them at every poll: what no longer matches is rolled back and reported.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from atoll.errors import ChainError, Corrupt, RpcRefused
from atoll.ledger.events import Event
from atoll.ledger.link import Block, Log

LARGEST_WINDOW = 1000  # blocks
SMALLEST_WINDOW = 5
KEPT_BLOCKS = 512  # deeper reorganisations start the index over

SCHEMA = """
create table if not exists blocks(number integer primary key, hash blob not null);
create table if not exists logs(
  tx blob not null, log_index integer not null, number integer not null, block_hash blob not null,
  address blob not null, topics blob not null, data blob not null, kind text not null, primary key(tx, log_index));
create index if not exists logs_by_kind on logs(kind, number, log_index);
"""

E = TypeVar("E", bound=Event)


class Reader(Protocol):
    """What the index asks of a chain (`atoll.ledger.chain.Chain` has it)."""

    def head(self) -> Block:
        """The latest block."""

    def block(self, number: int) -> Block | None:
        """A block by number, None above the head."""

    def logs(self, first: int, last: int) -> list[Log]:
        """Logs of blocks `first` to `last`; may raise RpcRefused when that is too much at once."""

    def decode(self, log: Log) -> Event | None:
        """The event that a log means."""


@dataclass(frozen=True)
class Indexed:
    """An event and where it stands in the chain."""

    event: Event
    block: int
    block_hash: bytes
    transaction: bytes
    index: int


@dataclass(frozen=True)
class Changes:
    """What a poll found: events that are undone (latest first), then events that are new (in order)."""

    new: tuple[Indexed, ...]
    rolled_back: tuple[Indexed, ...]


class EventIndex:
    """The events of a network as one file knows them. For one thread.

    `first` is the block from which to read in a new index (the one in which the contracts were deployed, or earlier).
    Raises Corrupt, after setting the file aside, if it is damaged: it is rebuilt from the chain at the next start.
    What `poll` returns is on disk already: after a crash, fold over `events` rather than wait for it again.
    """

    def __init__(self, reader: Reader, path: Path | str, first: int = 0) -> None:
        self._reader = reader
        self._first = first
        self._window = LARGEST_WINDOW
        self._new: list[Indexed] = []  # changes on disk that no poll has returned yet
        self._undone: list[Indexed] = []
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=normal")
            verdict = self._db.execute("pragma quick_check").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            self._db.executescript(SCHEMA)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise self._set_aside(Path(path), error) from error

    def _set_aside(self, path: Path, error: Exception) -> Corrupt:
        self._db.close()
        kept = path.with_name(f"{path.name}.damaged-{int(time.time())}")
        path.rename(kept)
        return Corrupt(f"the index of events is damaged ({error}); it was kept as {kept}; start again to rebuild it")

    @property
    def next_block(self) -> int:
        """The first block that was not read yet."""
        last = self._db.execute("select max(number) from blocks").fetchone()[0]
        return self._first if last is None else int(last) + 1

    def poll(self) -> Changes:
        """Catch up with the chain. Raises ChainError when the chain cannot be read.

        What was read until then stays, and is in the answer of the next poll.
        """
        self._roll_back()
        head = self._reader.head().number
        while self.next_block <= head:
            self._read_window(self.next_block, head)
        changes = Changes(tuple(self._new), tuple(self._undone))
        self._new, self._undone = [], []
        return changes

    def events(self, kind: type[E], *, last: int | None = None) -> list[E]:
        """All events of a kind in the order of the chain, up to block `last` (where money counts: finalized)."""
        return [one.event for one in self.indexed(kind, last=last) if isinstance(one.event, kind)]

    def indexed(self, kind: type[Event] | None = None, *, first: int = 0, last: int | None = None) -> list[Indexed]:
        """Events with their places, of one kind or of all, from block `first` to block `last`."""
        where, values = "number >= ?", [first]
        if last is not None:
            where, values = where + " and number <= ?", [*values, last]
        if kind is not None and kind is not Event:
            where, values = where + " and kind = ?", [*values, kind.__name__]  # type: ignore[list-item]
        return list(self._select(where, values, "number, log_index"))

    def _select(self, where: str, values: list[int], order: str) -> Iterator[Indexed]:
        query = (
            f"select address, topics, data, number, block_hash, tx, log_index from logs where {where} order by {order}"  # noqa: S608  # both are ours
        )
        for address, topics, data, number, block_hash, transaction, index in self._db.execute(query, values):
            cut = tuple(topics[place : place + 32] for place in range(0, len(topics), 32))
            found = self._indexed(Log(address, cut, data, number, block_hash, transaction, index))
            if found is not None:
                yield found

    def _indexed(self, log: Log) -> Indexed | None:
        event = self._reader.decode(log)
        return None if event is None else Indexed(event, log.block, log.block_hash, log.transaction, log.index)

    def _roll_back(self) -> None:
        """Undo what is not in the chain any more: back to the latest kept block whose hash still matches."""
        keep = self._first - 1
        for number, block_hash in self._db.execute("select number, hash from blocks order by number desc").fetchall():
            block = self._reader.block(number)
            if block is not None and block.hash == block_hash:
                keep = number
                break
        undone = list(self._select("number > ?", [keep], "number desc, log_index desc"))
        with self._transaction():
            self._db.execute("delete from logs where number > ?", (keep,))
            self._db.execute("delete from blocks where number > ?", (keep,))
        fresh = [one for one in self._new if one.block > keep]  # never returned, so nobody has to undo them
        self._new = [one for one in self._new if one.block <= keep]
        self._undone += [one for one in undone if one not in fresh]

    def _read_window(self, first: int, head: int) -> None:
        """Read blocks from `first` on, as many as the endpoint bears."""
        last = min(first + self._window - 1, head)
        before = self._reader.block(last)
        try:
            logs = self._reader.logs(first, last)
        except RpcRefused as error:
            if self._window <= SMALLEST_WINDOW:
                raise ChainError(
                    f"the endpoint does not give the logs of {SMALLEST_WINDOW} blocks ({error}); use another --rpc"
                ) from error
            self._window = max(self._window // 2, SMALLEST_WINDOW)
            return
        after = self._reader.block(last)
        if before is None or after is None or before.hash != after.hash:
            raise ChainError(f"the chain changed while blocks {first} to {last} were read; poll again")
        self._window = min(self._window * 2, LARGEST_WINDOW)
        self._new += self._store(logs, after)

    def _store(self, logs: list[Log], block: Block) -> list[Indexed]:
        new = []
        hashes = {log.block: log.block_hash for log in logs} | {block.number: block.hash}
        with self._transaction():
            for log in sorted(logs, key=lambda one: (one.block, one.index)):
                found = self._indexed(log)
                if found is None:
                    continue
                new.append(found)
                row = log.transaction, log.index, log.block, log.block_hash, log.address, b"".join(log.topics), log.data
                self._db.execute(
                    "insert or replace into logs values(?,?,?,?,?,?,?,?)", (*row, type(found.event).__name__)
                )
            self._db.executemany("insert or replace into blocks values(?,?)", list(hashes.items()))
            self._db.execute("delete from blocks where number <= ?", (block.number - KEPT_BLOCKS,))
        return new

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._db.execute("rollback")
            raise
        self._db.execute("commit")

    def close(self) -> None:
        """Close the file."""
        self._db.close()
