"""Rounds without work: so many nodes in one room, messages passed by hand, results looked up in a table.

Nothing here takes time: `settle` delivers what is under way until nobody has anything to say; `wait` lets time pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from atoll.training.beacon import tip
from atoll.training.committee import Place
from atoll.training.context import VALIDATOR, WORKER, Enlistment, Member, RoundContext, Timing
from atoll.training.events import (
    Aggregate,
    Aggregated,
    Effect,
    Event,
    Examine,
    Examined,
    Finished,
    Judge,
    Judged,
    Note,
    Received,
    Replayed,
    Rerun,
    Send,
    Tick,
    Train,
    Trained,
)
from atoll.training.round import Round
from atoll.training.verdict import ALL_AGREE
from atoll.wire.hashing import ZERO_HASH, Domain, keccak
from atoll.wire.identity import AccountKey
from atoll.wire.messages import Body, HistoryAsk, Signed, seal

DOMAIN = Domain(31337, b"\x11" * 20)
CONTRACT = b"\x22" * 20
JOB = keccak(b"a job")
MODEL = keccak(b"the model")
ROUNDS = 4
SEGMENTS = 2
KEYS = sorted((AccountKey(keccak(b"key %d" % i)) for i in range(16)), key=lambda key: key.address)
ACCOUNTS = [key.address for key in KEYS]
TICK = 0.25

Answer = Callable[[bytes, Effect], Event | None]


def seed_of(account: bytes) -> bytes:
    return keccak(b"seed" + account)


def enlistment(account: bytes, roles: int = WORKER | VALIDATOR) -> Enlistment:
    return Enlistment(tip(seed_of(account), ROUNDS), roles, 0)


def context(nodes: int = 6, committee: int = 6, *, newcomers: int = 0, **changes: object) -> RoundContext:
    """Round 1 with so many nodes; the first accounts are its committee, newcomers enlisted but not on its roster."""
    base = RoundContext(
        place=Place(DOMAIN, CONTRACT, JOB, 1, tuple(ACCOUNTS[:committee])),
        model=MODEL,
        beacon=keccak(b"beacon"),
        roster=tuple(ACCOUNTS[:nodes]),
        enlisted={account: enlistment(account) for account in ACCOUNTS[: nodes + newcomers]},
        rates=dict.fromkeys(ACCOUNTS[:nodes], 10_000),
        shards=nodes,
        segments=SEGMENTS,
        committee_size=7,
        last=False,
        timing=Timing(),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def member(index: int) -> Member:
    account = ACCOUNTS[index]
    return Member(account, KEYS[index].sign_digest, seed_of(account), keccak(b"secret" + account), ROUNDS)


def sealed(index: int, body: Body) -> Signed:
    return seal(DOMAIN, body, ACCOUNTS[index], KEYS[index].sign_digest)


def states_of(unit: bytes, segments: int = SEGMENTS) -> tuple[bytes, ...]:
    """What honest work on a unit leads to: the same for the worker and its auditor."""
    return (MODEL, *(keccak(unit + bytes([segment])) for segment in range(1, segments + 1)))


def honest(account: bytes, effect: Effect) -> Event | None:
    """The results of honest work by everybody."""
    match effect:
        case Train(unit=unit):
            return Trained(unit.id, states_of(unit.id, unit.segments), keccak(b"update" + unit.id))
        case Examine(key=key):
            return Examined(key, 0)
        case Rerun(unit=unit):
            return Replayed(unit.id, ALL_AGREE, ZERO_HASH)
        case Judge(key=key):
            return Judged(key, False)
        case Aggregate(key=key, updates=updates):
            return Aggregated(key, keccak(b"".join(account + update for account, update in updates)))
    return None


@dataclass
class Lab:
    """`answer` gives the results of work, `passes` says whether a message gets through (sender, receiver, message)."""

    shared: RoundContext
    count: int
    answer: Answer = honest
    passes: Callable[[int, int, Signed], bool] = lambda sender, receiver, signed: True
    now: float = 0.0
    rounds: dict[int, Round] = field(default_factory=dict)
    journals: dict[int, list[Event]] = field(default_factory=dict)
    finished: dict[int, Finished] = field(default_factory=dict)
    notes: dict[int, list[str]] = field(default_factory=dict)
    work: list[tuple[int, Effect]] = field(default_factory=list)
    said: list[tuple[int, Signed]] = field(default_factory=list)
    down: set[int] = field(default_factory=set)
    _under_way: list[tuple[int, int, Signed]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for index in range(self.count):
            self.rounds[index] = Round(self.shared, member(index), self.now)
            self.journals[index], self.notes[index] = [], []

    def begin(self) -> Lab:
        """A first tick for everybody, and all that follows from it."""
        self.tick()
        self.settle()
        return self

    def tick(self) -> None:
        for index in self.rounds:
            self.feed(index, Tick())

    def feed(self, index: int, event: Event) -> None:
        """One event at one node."""
        if index in self.down:
            return
        if not isinstance(event, Tick):
            self.journals[index].append(event)
        self.carry_out(index, self.rounds[index].handle(event, self.now))

    def carry_out(self, index: int, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(to=to, message=message, promise=promise):
                    if promise:
                        self.journals[index].append(Received(message))
                    self.said.append((index, message))
                    self._under_way += [(index, ACCOUNTS.index(account), message) for account in to]
                case Note(text=text):
                    self.notes[index].append(text)
                case Finished():
                    self.finished[index] = effect
                case _:
                    self.work.append((index, effect))
                    event = self.answer(ACCOUNTS[index], effect)
                    if event is not None:
                        self.feed(index, event)

    def settle(self) -> None:
        """Deliver all that is under way, in order, until there is silence."""
        while self._under_way:
            sender, receiver, signed = self._under_way.pop(0)
            if receiver not in self.rounds or not self.passes(sender, receiver, signed) or receiver in self.down:
                continue
            if isinstance(signed.body, HistoryAsk):  # what a job answers
                known = self.rounds[receiver].quorums_from(signed.body.phase)
                self._under_way += [(receiver, sender, sealed(receiver, quorum)) for quorum in known]
            else:
                self.feed(receiver, Received(signed))

    def wait(self, seconds: float) -> None:
        """Let time pass, tick by tick."""
        end = self.now + seconds
        while self.now < end:
            self.now += TICK
            self.tick()
            self.settle()

    def crash(self, index: int) -> None:
        """A node dies; what it had not read is lost."""
        self.down.add(index)

    def restart(self, index: int) -> None:
        """A node comes back with nothing but its journal."""
        self.down.discard(index)
        fresh = Round(self.shared, member(index), self.now)
        for event in self.journals[index]:
            fresh.handle(event, self.now, act=False)
        self.rounds[index] = fresh
        self.carry_out(index, fresh.resume(self.now))
        self.feed(index, Tick())

    @property
    def certificates(self) -> set[bytes]:
        """Different certificates that nodes ended with: more than one is a disaster."""
        return {finished.payload for finished in self.finished.values()}


def unit_of(lab: Lab, index: int) -> bytes:
    """The unit of a node."""
    return next(unit.id for unit in lab.rounds[0].units.values() if unit.account == ACCOUNTS[index])
