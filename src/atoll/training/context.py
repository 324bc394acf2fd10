"""What a round is given when it starts: everything that all nodes know alike, and what only this node knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from atoll.training.beacon import Draw, link
from atoll.training.committee import Place
from atoll.training.unit import UnitSpec, assign_units
from atoll.wire.hashing import keccak

WORKER, VALIDATOR, HOLDER, SERVER, GATEWAY, LIGHT = 1, 2, 4, 8, 16, 32
"""Role flags as the registry stores them. LIGHT goes with WORKER: units of one segment, for phones and browser tabs."""

MAX_ROSTER = 256
"""Accounts that can take part in a round: what fits into the messages."""


@dataclass(frozen=True)
class Enlistment:
    """An account's part in a job, as the chain records it: hash-chain tip, roles, and stake at that time."""

    tip: bytes
    roles: int
    stake: int


def unit_segments(roles: int, segments: int) -> int:
    """Segments in a unit of somebody who enlisted with these roles, where a full unit of the job has `segments`."""
    return 1 if roles & LIGHT else segments


def light_accounts(enlisted: Mapping[bytes, Enlistment]) -> frozenset[bytes]:
    """Those whose units have one segment, and are paid accordingly."""
    return frozenset(account for account, entry in enlisted.items() if entry.roles & LIGHT)


@dataclass(frozen=True)
class Timing:
    """How long a round waits, in seconds. Phases close as soon as everybody has answered; these are the limits.

    A crash between commit and reveal costs one round the whole of `reveal`: nobody who committed is given up sooner.
    """

    train: float = 30.0  # for commits, audit commits and replays
    reveal: float = 10.0  # for links and openings
    grace: float = 4.0  # for the rest, phones among them, once two thirds have answered
    leader: float = 4.0  # for a leader to propose once it could have
    nudge: float = 0.5  # until a message is said again; the pauses grow to four times as long


@dataclass(frozen=True)
class RoundContext:
    """The public start of a round.

    `model` is the id of the certified model, which also names state 0. `roster` lists who takes part, `enlisted` every
    account that may (newcomers included; it grows as the chain reports them), `rates` the audit rate of each in parts
    per 10,000. `segments` is the number of segments in a full unit, `shards` into how many parts the data is cut,
    `room` the largest roster that the budget can pay.
    """

    place: Place
    model: bytes
    beacon: bytes
    roster: tuple[bytes, ...]
    enlisted: Mapping[bytes, Enlistment]
    rates: Mapping[bytes, int]
    shards: int
    segments: int
    committee_size: int
    last: bool
    room: int = MAX_ROSTER
    timing: Timing = field(default_factory=Timing)

    @property
    def workers(self) -> tuple[bytes, ...]:
        """Members of the roster that take units, in roster order."""
        return tuple(a for a in self.roster if self.has_role(a, WORKER))

    @property
    def units(self) -> list[UnitSpec]:
        """The units of the round, one for each worker."""
        place, workers = self.place, self.workers
        segments = [unit_segments(self.enlisted[account].roles, self.segments) for account in workers]
        where = (place.domain, place.job, place.round, self.beacon)
        return assign_units(*where, workers, self.shards, segments)

    def has_role(self, account: bytes, role: int) -> bool:
        """Whether an account enlisted with a role."""
        return account in self.enlisted and bool(self.enlisted[account].roles & role)

    @property
    def everybody(self) -> tuple[bytes, ...]:
        """The roster and the committee."""
        return tuple(dict.fromkeys((*self.roster, *self.place.committee)))


@dataclass(frozen=True)
class Member:
    """What only this node knows.

    `seed` starts its hash chain for the job, `secret` its salts; `sign` is deterministic.
    """

    account: bytes
    sign: Callable[[bytes], bytes]
    seed: bytes
    secret: bytes
    rounds: int

    def link(self, round_number: int, draw: Draw) -> bytes:
        """This node's hash-chain link for a round."""
        return link(self.seed, self.rounds, round_number, draw)

    def salt(self, unit: bytes) -> bytes:
        """The salt of this node's commit to a unit: unknown to others, the same after a restart."""
        return keccak(self.secret + unit)
