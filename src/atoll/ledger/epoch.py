"""An epoch: receipts of the rounds since the last one, and what every account and job adds up to with them.

Totals are cumulative and only grow: an account claims the difference to what it has claimed before, so a missed epoch
loses nothing. An epoch's blob lists *all* accounts with their cumulative amounts, so that the latest blob alone is
enough to make anybody's claim. A `Post` is the epoch's summary that validators sign and the Settlement contract keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from atoll.errors import BadInput, Refused
from atoll.ledger.receipts import (
    TOKEN,
    Receipt,
    WireReceipt,
    amount_bytes,
    amount_text,
    from_wire,
    in_order,
    receipts_tree,
    to_wire,
)
from atoll.wire.eip712 import ADDRESS_BYTES, POST, Value, Verifier, encode_array, encode_values
from atoll.wire.hashing import HASH_BYTES, keccak
from atoll.wire.merkle import MerkleTree
from atoll.wire.reasons import Reason

SCHEMA = "atoll/epoch/1"
"""First element of a published epoch: its form and version."""
MAX_EPOCH_BYTES = 64 << 20
MAX_RECEIPTS = 200_000
MAX_ACCOUNTS = 1_000_000
MAX_JOBS = 10_000
_MAX_EPOCH = (1 << 64) - 1

JOB_TOTAL_TYPES = ("bytes32", "uint256", "bool")
"""Fields of the contract's JobTotal(bytes32 job,uint256 total,bool settled)."""
LEAF_TYPES = ("address", "uint256")
"""An account's leaf: (account, cumulative)."""


@dataclass(frozen=True, slots=True)
class JobTotal:
    """What a job owes over all epochs, in base units; `settled`: this is its last epoch, the rest is refunded."""

    job: bytes
    total: int
    settled: bool = False


@dataclass(frozen=True)
class PublishedEpoch:
    """What validators publish for an epoch.

    `receipts` in canonical order; `accounts` sorted, every account that was ever owed something, with its cumulative
    base units; `jobs` sorted, with their cumulative totals, those whose total or settled flag is new. A decoded one
    has only been checked for its form: `atoll.ledger.statement.explain` checks that it adds up.
    """

    number: int
    receipts: tuple[Receipt, ...]
    accounts: tuple[tuple[bytes, int], ...]
    jobs: tuple[JobTotal, ...]


@dataclass(frozen=True)
class Totals:
    """All cumulative totals after some epoch: account -> base units, job -> JobTotal."""

    accounts: Mapping[bytes, int] = field(default_factory=dict)
    jobs: Mapping[bytes, JobTotal] = field(default_factory=dict)

    def after(self, epoch: PublishedEpoch) -> Totals:
        """The totals once this epoch has been added."""
        return Totals(dict(epoch.accounts), {**self.jobs, **{total.job: total for total in epoch.jobs}})


def build_epoch(
    number: int,
    previous: Totals,
    receipts: Iterable[Receipt],
    settled: AbstractSet[bytes] = frozenset(),
    budgets: Mapping[bytes, int] | None = None,
) -> PublishedEpoch:
    """The epoch that adds these receipts; the order in which they come does not matter.

    `settled` are jobs that end with this epoch. With `budgets` (job -> base units ever put into escrow), a job's total
    above its budget is Refused(OVER_BUDGET); so is a receipt of a job that was settled earlier. Two receipts for the
    same piece of work are Refused(DUPLICATE), more than MAX_RECEIPTS, MAX_ACCOUNTS or MAX_JOBS Refused(TOO_LARGE).
    """
    ordered = in_order(receipts)
    accounts = dict(previous.accounts)
    for receipt in ordered:
        accounts[receipt.account] = accounts.get(receipt.account, 0) + receipt.amount
    jobs = _job_totals(previous.jobs, ordered, settled)
    for total in jobs if budgets is not None else ():
        budget = (budgets or {}).get(total.job, 0)
        if total.total > budget:
            owed = f"owes {amount_text(total.total)} {TOKEN} of a budget of {amount_text(budget)} {TOKEN}"
            raise Refused(Reason.OVER_BUDGET, f"job 0x{total.job.hex()} {owed}")
    row = tuple(sorted((account, amount) for account, amount in accounts.items() if amount > 0))
    epoch = PublishedEpoch(number, ordered, row, jobs)
    _check_limits(epoch)
    return epoch


def _job_totals(
    previous: Mapping[bytes, JobTotal], receipts: Sequence[Receipt], settled: AbstractSet[bytes]
) -> tuple[JobTotal, ...]:
    sums: dict[bytes, int] = {}
    for job in settled | {receipt.job for receipt in receipts}:
        before = previous.get(job, JobTotal(job, 0))
        if before.settled:
            raise Refused(Reason.OVER_BUDGET, f"job 0x{job.hex()} was settled in an earlier epoch and pays no more")
        sums[job] = before.total
    for receipt in receipts:
        sums[receipt.job] += receipt.amount
    rows = (JobTotal(job, total, job in settled) for job, total in sorted(sums.items()))
    return tuple(row for row in rows if row.settled or row != previous.get(row.job, JobTotal(row.job, 0)))


def _check_limits(epoch: PublishedEpoch) -> None:
    counts = (("receipts", len(epoch.receipts), MAX_RECEIPTS), ("accounts", len(epoch.accounts), MAX_ACCOUNTS))
    for name, count, limit in (*counts, ("jobs", len(epoch.jobs), MAX_JOBS)):
        if count > limit:
            raise Refused(Reason.TOO_LARGE, f"epoch {epoch.number} has {count} {name}; at most {limit} fit")
    if not 0 <= epoch.number <= _MAX_EPOCH:
        raise Refused(Reason.MALFORMED, f"epoch {epoch.number} is not a uint64")


# Trees and the post
def account_tree(accounts: Sequence[tuple[bytes, int]]) -> MerkleTree:
    """Tree over abi.encode(account, cumulative); `accounts` sorted by account."""
    return MerkleTree([encode_values(LEAF_TYPES, row) for row in accounts])


def totals_hash(jobs: Sequence[JobTotal]) -> bytes:
    """keccak256(abi.encode(JobTotal[])), 32 bytes."""
    return keccak(encode_array(JOB_TOTAL_TYPES, ((total.job, total.total, total.settled) for total in jobs)))


@dataclass(frozen=True)
class Post:
    """The summary of an epoch on the chain: both roots, their leaf counts, and the hash of the job totals."""

    epoch: int
    root: bytes
    receipts_root: bytes
    accounts: int
    receipts: int
    totals: bytes

    def digest(self, verifier: Verifier) -> bytes:
        """EIP-712 digest (32 bytes) that a quorum of validators signs for the Settlement contract at `verifier`."""
        roots: dict[str, Value] = {"root": self.root, "receiptsRoot": self.receipts_root, "totals": self.totals}
        return POST.digest(
            verifier, {**roots, "epoch": self.epoch, "accounts": self.accounts, "receipts": self.receipts}
        )


def post_of(epoch: PublishedEpoch, verifier: Verifier) -> Post:
    """The post for an epoch; `verifier` is the Settlement contract (receipt digests depend on it)."""
    root = account_tree(epoch.accounts).root
    receipts_root = receipts_tree(epoch.receipts, verifier).root
    return Post(epoch.number, root, receipts_root, len(epoch.accounts), len(epoch.receipts), totals_hash(epoch.jobs))


@dataclass(frozen=True)
class Claim:
    """Proof that the epoch's root grants `account` this cumulative amount; anyone may hand it in."""

    epoch: int
    account: bytes
    cumulative: int
    index: int
    proof: tuple[bytes, ...]


def claims_of(epoch: PublishedEpoch, accounts: Iterable[bytes]) -> list[Claim]:
    """Claims of these accounts, in the order given; BadInput names an account that the epoch does not list."""
    tree = account_tree(epoch.accounts)
    places = {account: index for index, (account, _) in enumerate(epoch.accounts)}
    claims = []
    for account in accounts:
        index = places.get(account)
        if index is None:
            raise BadInput(
                f"Account 0x{account.hex()} has earned nothing up to epoch {epoch.number}, so there is nothing to "
                "claim. Check the address, or wait until one of its units has been accepted and posted."
            )
        claims.append(Claim(epoch.number, account, epoch.accounts[index][1], index, tuple(tree.prove(index))))
    return claims


# The blob: canonical msgpack of [schema, number, receipts, accounts, jobs]
_Amount = Annotated[bytes, msgspec.Meta(max_length=32)]
_Hash = Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
_Account = Annotated[bytes, msgspec.Meta(min_length=ADDRESS_BYTES, max_length=ADDRESS_BYTES)]


class _WireEpoch(msgspec.Struct, array_like=True, frozen=True):
    schema: str
    number: int
    receipts: Annotated[list[WireReceipt], msgspec.Meta(max_length=MAX_RECEIPTS)]
    accounts: Annotated[list[tuple[_Account, _Amount]], msgspec.Meta(max_length=MAX_ACCOUNTS)]
    jobs: Annotated[list[tuple[_Hash, _Amount, bool]], msgspec.Meta(max_length=MAX_JOBS)]


def encode_epoch(epoch: PublishedEpoch) -> bytes:
    """Canonical bytes of the blob; Refused(TOO_LARGE) above a limit."""
    _check_limits(epoch)
    form = _WireEpoch(
        SCHEMA,
        epoch.number,
        [to_wire(receipt) for receipt in epoch.receipts],
        [(account, amount_bytes(amount)) for account, amount in epoch.accounts],
        [(total.job, amount_bytes(total.total), total.settled) for total in epoch.jobs],
    )
    data = msgspec.msgpack.encode(form)
    if len(data) > MAX_EPOCH_BYTES:
        raise Refused(Reason.TOO_LARGE, f"epoch {epoch.number} takes {len(data)} bytes; at most {MAX_EPOCH_BYTES} fit")
    return data


def decode_epoch(data: bytes) -> PublishedEpoch:
    """Inverse of `encode_epoch`.

    Refused(TOO_LARGE) above MAX_EPOCH_BYTES, BAD_VERSION for another schema, MALFORMED for anything else that is not
    exactly what `encode_epoch` yields. Checks the form only, not that the numbers add up.
    """
    if len(data) > MAX_EPOCH_BYTES:
        raise Refused(Reason.TOO_LARGE, f"an epoch of {len(data)} bytes; at most {MAX_EPOCH_BYTES} are accepted")
    try:
        form = msgspec.msgpack.decode(data, type=_WireEpoch)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(Reason.MALFORMED, f"epoch: {error}") from None
    if form.schema != SCHEMA:
        raise Refused(Reason.BAD_VERSION, f"an epoch of the form {form.schema[:40]!r}; expected {SCHEMA!r}")
    epoch = PublishedEpoch(
        form.number,
        tuple(from_wire(receipt) for receipt in form.receipts),
        tuple((account, int.from_bytes(amount, "big")) for account, amount in form.accounts),
        tuple(JobTotal(job, int.from_bytes(total, "big"), settled) for job, total, settled in form.jobs),
    )
    if encode_epoch(epoch) != data:
        raise Refused(Reason.MALFORMED, "epoch: the bytes are not in canonical form")
    return epoch
