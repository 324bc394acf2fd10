"""The index of events: windows, reorganisations, crashes, against a hand-made chain."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest
from eth_abi.abi import encode

from atoll.errors import ChainError, Corrupt, RpcRefused
from atoll.ledger import abi
from atoll.ledger.events import KINDS, Claimed, Drawn, Event, Staked, Transfer, event_of, field_name
from atoll.ledger.index import KEPT_BLOCKS, SMALLEST_WINDOW, EventIndex
from atoll.ledger.link import Block, Log
from atoll.wire.hashing import keccak

STAKED = keccak(b"Staked(address,uint256,uint256)")
DRAWN = keccak(b"Drawn(bytes32,uint256,uint256)")
REGISTRY, JOBS = b"\x01" * 20, b"\x02" * 20


def staked(amount: int) -> tuple[bytes, list[bytes], bytes]:
    return REGISTRY, [STAKED, b"\xaa" * 20], encode(["uint256", "uint256"], [amount, 2 * amount])


def drawn(amount: int) -> tuple[bytes, list[bytes], bytes]:
    return JOBS, [DRAWN, b"\xbb" * 32], encode(["uint256", "uint256"], [amount, amount])


@dataclass
class FakeChain:
    """Blocks with logs, which can be replaced; refuses windows wider than `limit`."""

    blocks: list[tuple[bytes, list[tuple[bytes, list[bytes], bytes]]]] = field(default_factory=list)
    limit: int = 10_000
    asked: list[tuple[int, int]] = field(default_factory=list)

    def grow(self, *contents: list[tuple[bytes, list[bytes], bytes]], branch: str = "a") -> None:
        for logs in contents:
            self.blocks.append((keccak(b"%s %d" % (branch.encode(), len(self.blocks))), logs))

    def head(self) -> Block:
        found = self.block(len(self.blocks) - 1)
        assert found is not None
        return found

    def block(self, number: int) -> Block | None:
        if number >= len(self.blocks):
            return None
        return Block(number, self.blocks[number][0], b"", number)

    def logs(self, first: int, last: int) -> list[Log]:
        self.asked.append((first, last))
        if last - first + 1 > self.limit:
            raise RpcRefused("query returned more than 10000 results", -32005)
        found = []
        for number in range(first, last + 1):
            block_hash, logs = self.blocks[number]
            for index, (address, topics, data) in enumerate(logs):
                padded = tuple(topic.rjust(32, b"\x00") for topic in topics)
                tx = keccak(block_hash + bytes([index]))
                found.append(Log(address, padded, data, number, block_hash, tx, index))
        return found

    def logs_of_all(self) -> list[Log]:
        return FakeChain(self.blocks).logs(0, len(self.blocks) - 1)

    def decode(self, log: Log) -> Event | None:
        contract = {REGISTRY: "Registry", JOBS: "Jobs"}[log.address]
        return event_of(abi.raw_event(contract, log.topics, log.data))


@pytest.fixture
def chain() -> FakeChain:
    made = FakeChain()
    made.grow([], [staked(1)], [], [drawn(2), staked(3)])
    return made


@pytest.fixture
def index(chain: FakeChain, tmp_path: Path) -> Iterator[EventIndex]:
    made = EventIndex(chain, tmp_path / "index.sqlite")
    yield made
    made.close()


def amounts(index: EventIndex) -> list[int]:
    return [event.amount for event in index.events(Staked)]


def test_events_come_once_and_in_order(chain: FakeChain, index: EventIndex) -> None:
    changes = index.poll()
    assert [one.event for one in changes.new] == [
        Staked(b"\xaa" * 20, 1, 2),
        Drawn(b"\xbb" * 32, 2, 2),
        Staked(b"\xaa" * 20, 3, 6),
    ]
    assert [(one.block, one.index) for one in changes.new] == [(1, 0), (3, 0), (3, 1)]
    assert changes.rolled_back == ()
    assert index.poll().new == ()
    chain.grow([staked(4)])
    assert [one.event for one in index.poll().new] == [Staked(b"\xaa" * 20, 4, 8)]
    assert amounts(index) == [1, 3, 4]
    assert index.events(Drawn) == [Drawn(b"\xbb" * 32, 2, 2)]
    assert [event.amount for event in index.events(Staked, last=3)] == [1, 3]
    assert len(index.indexed()) == 4


def test_a_reorganisation_rolls_back_what_is_gone(chain: FakeChain, index: EventIndex) -> None:
    index.poll()
    del chain.blocks[2:]
    chain.grow([staked(7)], [], [staked(3)], branch="b")
    changes = index.poll()
    # Block 1 was read in the same window and its hash is known from its log: it stays.
    assert [(one.block, type(one.event)) for one in changes.rolled_back] == [(3, Staked), (3, Drawn)]
    assert [(one.block, one.event) for one in changes.new] == [
        (2, Staked(b"\xaa" * 20, 7, 14)),
        (4, Staked(b"\xaa" * 20, 3, 6)),
    ]
    assert amounts(index) == [1, 7, 3]
    assert index.events(Drawn) == []


def test_a_shorter_chain_rolls_back_too(chain: FakeChain, index: EventIndex) -> None:
    index.poll()
    del chain.blocks[3:]
    changes = index.poll()
    assert [type(one.event) for one in changes.rolled_back] == [Staked, Drawn]
    assert amounts(index) == [1]


def test_a_reorganisation_of_everything_starts_over(chain: FakeChain, index: EventIndex) -> None:
    index.poll()
    chain.blocks.clear()
    chain.grow([staked(9)], [], [], [], [], branch="c")
    changes = index.poll()
    assert len(changes.rolled_back) == 3
    assert amounts(index) == [9]


def test_windows_shrink_when_the_endpoint_refuses_and_grow_again(tmp_path: Path) -> None:
    chain = FakeChain(limit=40)
    chain.grow(*([staked(number)] for number in range(300)))
    index = EventIndex(chain, tmp_path / "index.sqlite")
    index.poll()
    assert amounts(index) == list(range(300))
    widths = [last - first + 1 for first, last in chain.asked]
    assert widths[0] == 300
    assert min(widths) >= SMALLEST_WINDOW
    chain.limit = 10_000
    chain.asked.clear()
    chain.grow(*([] for _ in range(2000)))
    index.poll()
    assert max(last - first + 1 for first, last in chain.asked) >= 500
    index.close()


def test_an_endpoint_that_refuses_the_smallest_window_is_reported(tmp_path: Path) -> None:
    chain = FakeChain(limit=4)
    chain.grow(*([] for _ in range(50)))
    index = EventIndex(chain, tmp_path / "index.sqlite")
    with pytest.raises(ChainError, match="use another --rpc"):
        index.poll()
    chain.limit = 5
    index.poll()
    assert index.next_block == 50
    index.close()


def test_what_a_failed_poll_read_is_returned_by_the_next(tmp_path: Path) -> None:
    chain = FakeChain(limit=40)
    chain.grow(*([staked(number)] for number in range(100)))
    index = EventIndex(chain, tmp_path / "index.sqlite")
    original = chain.logs
    outage = {"after": 60}

    def failing(first: int, last: int) -> list[Log]:
        if last > outage["after"]:
            raise ChainError("down")
        return original(first, last)

    chain.logs = failing  # type: ignore[method-assign]  # the fake itself goes down
    index._window = 20
    with pytest.raises(ChainError):
        index.poll()
    outage["after"] = 1000
    found = [one.event.amount for one in index.poll().new if isinstance(one.event, Staked)]
    assert found == list(range(100))
    index.close()


def test_the_index_goes_on_where_it_stopped(chain: FakeChain, tmp_path: Path) -> None:
    first = EventIndex(chain, tmp_path / "index.sqlite")
    first.poll()
    first.close()
    chain.asked.clear()
    chain.grow([staked(5)])
    second = EventIndex(chain, tmp_path / "index.sqlite")
    assert [one.event for one in second.poll().new] == [Staked(b"\xaa" * 20, 5, 10)]
    assert chain.asked == [(4, 4)]
    assert amounts(second) == [1, 3, 5]
    second.close()


def test_only_recent_blocks_are_kept(tmp_path: Path) -> None:
    chain = FakeChain()
    chain.grow(*([staked(number)] for number in range(KEPT_BLOCKS + 100)))
    index = EventIndex(chain, tmp_path / "index.sqlite")
    index.poll()
    assert index._db.execute("select count(*) from blocks").fetchone()[0] == KEPT_BLOCKS
    index.close()


def test_a_damaged_file_is_set_aside_and_rebuilt(chain: FakeChain, tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(Corrupt, match="start again to rebuild"):
        EventIndex(chain, path)
    kept = list(tmp_path.glob("index.sqlite.damaged-*"))
    assert len(kept) == 1 and kept[0].read_bytes().startswith(b"this is no database")
    index = EventIndex(chain, path)
    index.poll()
    assert amounts(index) == [1, 3]
    index.close()


@pytest.mark.parametrize("seed", range(20))
def test_random_reorganisations_leave_what_the_chain_has(tmp_path: Path, seed: int) -> None:
    """Somebody who applies every change in order always holds exactly the events of the present chain."""
    dice = random.Random(seed)
    chain = FakeChain(limit=dice.choice([6, 20, 1000]))
    chain.grow([])
    index = EventIndex(chain, tmp_path / "index.sqlite")
    held: list[object] = []
    for step in range(25):
        if dice.random() < 0.4:
            del chain.blocks[dice.randrange(1, len(chain.blocks) + 1) :]
        for _ in range(dice.randrange(0, 12)):
            chain.grow([staked(dice.randrange(100)) for _ in range(dice.randrange(3))], branch=f"{step}")
        changes = index.poll()
        for undone in changes.rolled_back:
            assert held.pop() == undone
        held += changes.new
        expected = [(log.block, log.index, chain.decode(log)) for log in chain.logs_of_all()]
        assert [(one.block, one.index, one.event) for one in index.indexed()] == expected
        assert held == index.indexed()
    index.close()


# The pure part


def test_every_event_of_the_contracts_has_a_class_with_its_fields() -> None:
    found = set()
    for contract in ("Registry", "Jobs", "Settlement", "Deposits"):
        for entry in abi.artifact(contract)["abi"]:
            # EIP712DomainChanged is OpenZeppelin's, and is never emitted by contracts whose domain is fixed.
            if entry["type"] != "event" or entry["name"] == "EIP712DomainChanged":
                continue
            kind = KINDS[entry["name"]]
            found.add(entry["name"])
            assert [one.name for one in fields(kind)] == [field_name(one["name"]) for one in entry["inputs"]]
    assert found | {"Transfer"} == set(KINDS)


def test_indexed_and_plain_arguments_are_decoded() -> None:
    who = b"\x0c" * 20
    topics = [keccak(b"Claimed(uint64,address,uint256,uint256)"), (7).to_bytes(32, "big"), who.rjust(32, b"\x00")]
    raw = abi.raw_event("Settlement", topics, encode(["uint256", "uint256"], [2**200, 2**201]))
    assert event_of(raw) == Claimed(7, who, 2**200, 2**201)
    moved = [keccak(b"Transfer(address,address,uint256)"), who.rjust(32, b"\x00"), bytes(32)]
    assert event_of(abi.raw_event("Token", moved, encode(["uint256"], [5]))) == Transfer(who, bytes(20), 5)


def test_unknown_logs_are_passed_over() -> None:
    assert event_of(abi.raw_event("Jobs", [keccak(b"Approval()")], b"")) is None
    assert event_of(abi.raw_event("Jobs", [], b"")) is None
    allowed = [keccak(b"Approval(address,address,uint256)"), bytes(32), bytes(32)]
    assert event_of(abi.raw_event("Token", allowed, bytes(32))) is None
