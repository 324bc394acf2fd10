"""The contracts' events as plain values, one class an event, and the pure function that makes them from decoded logs.

Field names are those of the contracts' events in snake case. Accounts are 20 bytes, amounts base units.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from atoll.ledger.abi import RawEvent


@dataclass(frozen=True)
class Event:
    """Any event of the network's contracts."""


# Token
@dataclass(frozen=True)
class Transfer(Event):
    """Tokens moved."""

    sender: bytes
    to: bytes
    value: int


# Registry
@dataclass(frozen=True)
class Registered(Event):
    """A node joined or changed its entry."""

    account: bytes
    endpoint_id: bytes
    roles: int
    hints: str
    binding: bytes


@dataclass(frozen=True)
class ActiveSet(Event):
    """A node left or came back."""

    account: bytes
    active: bool


@dataclass(frozen=True)
class Staked(Event):
    """Tokens were put at stake; `stake` is the new sum."""

    account: bytes
    amount: int
    stake: int


@dataclass(frozen=True)
class UnstakeRequested(Event):
    """Stake is on its way out."""

    account: bytes
    amount: int
    stake: int
    withdrawable_at: int


@dataclass(frozen=True)
class Withdrawn(Event):
    """Stake went back to its owner."""

    account: bytes
    amount: int


@dataclass(frozen=True)
class ValidatorSet(Event):
    """An account became a validator or ceased to be one; `validators` is the new number."""

    account: bytes
    validator: bool
    validators: int


@dataclass(frozen=True)
class Wired(Event):
    """The registry was told where the other contracts are."""

    jobs: bytes
    settlement: bytes
    deposits: bytes


# Jobs
@dataclass(frozen=True)
class Opened(Event):
    """A job was opened and its budget paid in."""

    job: bytes
    developer: bytes
    manifest: bytes
    budget: int
    rounds: int
    deadline: int
    seed: bytes


@dataclass(frozen=True)
class ToppedUp(Event):
    """A job's budget grew; `budget` is the new sum."""

    job: bytes
    payer: bytes
    amount: int
    budget: int


@dataclass(frozen=True)
class Shortened(Event):
    """A job ends earlier than was planned: after `rounds` rounds."""

    job: bytes
    rounds: int


@dataclass(frozen=True)
class Enlisted(Event):
    """A node offered itself to a job."""

    job: bytes
    account: bytes
    tip: bytes
    roles: int


@dataclass(frozen=True)
class Started(Event):
    """A job began with this committee."""

    job: bytes
    committee: tuple[bytes, ...]
    timestamp: int


@dataclass(frozen=True)
class Certified(Event):
    """A round was certified."""

    job: bytes
    round: int
    attempt: int
    lock_root: bytes
    verdict_root: bytes
    model_root: bytes
    next_committee: tuple[bytes, ...]
    poster: bytes


@dataclass(frozen=True)
class Drawn(Event):
    """The settlement took tokens out of escrow; `drawn` is the new sum."""

    job: bytes
    amount: int
    drawn: int


@dataclass(frozen=True)
class Refunded(Event):
    """The rest of a budget went back to the developer."""

    job: bytes
    developer: bytes
    amount: int


# Settlement
@dataclass(frozen=True)
class BondDeposited(Event):
    """A validator deposited bond; `bond` is the new free sum."""

    account: bytes
    amount: int
    bond: int


@dataclass(frozen=True)
class BondWithdrawn(Event):
    """A validator took bond back; `bond` is the new free sum."""

    account: bytes
    amount: int
    bond: int


@dataclass(frozen=True)
class BondReleased(Event):
    """An epoch's bond went back to its poster."""

    epoch: int
    poster: bytes
    amount: int


@dataclass(frozen=True)
class Posted(Event):
    """An epoch was posted; `drawn` is what it took out of escrow."""

    epoch: int
    poster: bytes
    root: bytes
    receipts_root: bytes
    accounts: int
    receipts: int
    drawn: int
    uri: str


@dataclass(frozen=True)
class TotalPosted(Event):
    """A job's cumulative total as posted."""

    epoch: int
    job: bytes
    total: int
    settled: bool


@dataclass(frozen=True)
class Claimed(Event):
    """An account was paid."""

    epoch: int
    account: bytes
    amount: int
    cumulative: int


# Deposits
@dataclass(frozen=True)
class Deposited(Event):
    """A payer deposited tokens; `deposit` is the new sum that is not on its way out."""

    account: bytes
    amount: int
    deposit: int


@dataclass(frozen=True)
class WithdrawalRequested(Event):
    """A part of a deposit is on its way out; `deposit` is what is not."""

    account: bytes
    amount: int
    deposit: int
    withdrawable_at: int


@dataclass(frozen=True)
class DepositWithdrawn(Event):
    """A part of a deposit went back to its owner."""

    account: bytes
    amount: int


@dataclass(frozen=True)
class Redeemed(Event):
    """A payee was paid out of a payer's deposit; `cumulative` is what it has received, `deposit` what is left."""

    payer: bytes
    payee: bytes
    amount: int
    cumulative: int
    deposit: int


KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in Event.__subclasses__()}
"""Every event by its name; no two contracts share one."""
_RENAMED = {"from": "sender"}  # a keyword in Python


def event_of(raw: RawEvent | None) -> Event | None:
    """The typed event of a decoded log; None for those that nobody here reads (approvals of the token)."""
    if raw is None or raw.name not in KINDS:
        return None
    kind = KINDS[raw.name]
    given = {field_name(name): value for name, value in raw.arguments.items()}
    return kind(**{field.name: given[field.name] for field in fields(kind)})


def field_name(name: str) -> str:
    """A Solidity name in snake case: `endpointId` is `endpoint_id`."""
    return _RENAMED.get(name) or re.sub(r"(?<!^)([A-Z])", lambda match: "_" + match[1].lower(), name)
