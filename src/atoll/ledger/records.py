"""What the contracts keep and what is sent to them, as plain values. Accounts are 20 bytes, amounts base units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atoll.ledger.events import Event
from atoll.wire.eip712 import CERTIFICATE, Verifier, committee_hash

VALIDATOR = 2
"""The role flag that the registry counts validators by."""


@dataclass(frozen=True)
class Addresses:
    """Where the contracts of a network are; all are found through the registry."""

    chain_id: int
    registry: bytes
    token: bytes
    jobs: bytes
    settlement: bytes
    deposits: bytes


@dataclass(frozen=True)
class Terms:
    """What a network was set up with; times in seconds."""

    min_stake: int
    unstake_delay: int
    bond: int
    window: int
    grace: int
    deposit_delay: int


@dataclass(frozen=True)
class NodeRecord:
    """A node in the registry; `registered_at` (Unix seconds) is 0 for accounts that never registered."""

    account: bytes
    endpoint_id: bytes
    roles: int
    active: bool
    registered_at: int
    withdrawable_at: int
    stake: int
    unstaking: int
    hints: str
    binding: bytes


@dataclass(frozen=True)
class JobRecord:
    """A job in escrow: budget = drawn + refunded + remaining, always. `certified` is the number of the next round."""

    job: bytes
    developer: bytes
    rounds: int
    deadline: int
    seed: bytes
    certified: int
    started_at: int
    closed: bool
    manifest: bytes
    committee: bytes
    model: bytes
    budget: int
    drawn: int
    refunded: int

    @property
    def remaining(self) -> int:
        """What can still be drawn or refunded."""
        return self.budget - self.drawn - self.refunded

    @property
    def finished(self) -> bool:
        """Whether the last round is certified."""
        return self.certified == self.rounds


@dataclass(frozen=True)
class Enlistment:
    """A node's offer to a job: the tip of its hash chain and its place in the list, from 1; 0 if it did not enlist."""

    account: bytes
    tip: bytes
    place: int


@dataclass(frozen=True)
class DepositRecord:
    """What a payer has deposited: `amount`, and what is on its way out, `leaving`, from `withdrawable_at` on its own.

    Vouchers are paid out of both.
    """

    amount: int
    leaving: int
    withdrawable_at: int


@dataclass(frozen=True)
class EpochRecord:
    """A posted epoch; `posted_at` in Unix seconds."""

    epoch: int
    root: bytes
    receipts_root: bytes
    accounts: int
    receipts: int
    posted_at: int
    poster: bytes
    bond_held: bool
    voided: bool


@dataclass(frozen=True)
class Certificate:
    """What a committee's quorum signs under a round, with both committees as lists in leader order."""

    job: bytes
    round: int
    attempt: int
    lock_root: bytes
    verdict_root: bytes
    model_root: bytes
    committee: tuple[bytes, ...]
    next_committee: tuple[bytes, ...]
    last: bool

    def values(self) -> tuple[bytes, int, int, bytes, bytes, bytes, bytes, bytes, bool]:
        """The fields as the contract's struct has them: committees by their hashes."""
        committees = committee_hash(self.committee), committee_hash(self.next_committee)
        roots = self.lock_root, self.verdict_root, self.model_root
        return (self.job, self.round, self.attempt, *roots, *committees, self.last)

    def digest(self, verifier: Verifier) -> bytes:
        """EIP-712 digest (32 bytes) for the Jobs contract at `verifier`."""
        names = [name for _, name in CERTIFICATE.fields]
        return CERTIFICATE.digest(verifier, dict(zip(names, self.values(), strict=True)))


@dataclass(frozen=True)
class Tx:
    """A transaction that was mined and succeeded: the call's name, gas used, its block, and the events it caused."""

    name: str
    hash: bytes
    gas: int
    block: int
    block_hash: bytes
    events: tuple[Event, ...]


@dataclass(frozen=True)
class GasUse:
    """Gas that one kind of transaction took so far."""

    calls: int
    total: int
    most: int

    def plus(self, gas: int) -> GasUse:
        """With one more transaction."""
        return GasUse(self.calls + 1, self.total + gas, max(self.most, gas))


def quorum(members: int) -> int:
    """How many of a group must sign: floor(2 * members / 3) + 1 (`contracts/Quorum.sol`)."""
    return 2 * members // 3 + 1


def in_committee_order(committee: Sequence[bytes], signatures: Mapping[bytes, bytes]) -> list[bytes]:
    """The signatures of the committee's members as the contract wants them; those of others are left out."""
    return [signatures[account] for account in committee if account in signatures]
