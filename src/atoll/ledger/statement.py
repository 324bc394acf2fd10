"""What an account was paid for and why, and an offline proof that the chain's numbers follow from the receipts.

Everything here is computed from published epochs (`atoll.ledger.epoch`) and from a plain record of what the chain
says; nothing is fetched. Tables are drawn elsewhere: this file yields rows and their JSON twins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest

from atoll.ledger.epoch import JobTotal, PublishedEpoch, Totals, post_of
from atoll.ledger.receipts import TOKEN, Key, Kind, Receipt, amount_text
from atoll.ledger.rewards import Prices
from atoll.wire.eip712 import Verifier
from atoll.wire.reasons import Reason


# The statement of one account
@dataclass(frozen=True)
class Line:
    """One receipt on a statement; `amount` in base units; `sentence` says why it was paid or refused."""

    epoch: int
    job: bytes
    round: int
    unit: bytes
    kind: Kind
    amount: int
    reason: int
    sentence: str


@dataclass(frozen=True)
class Statement:
    """All lines of an account in the order of epochs and receipts, and their sums in base units.

    `by_epoch` is (epoch, earned in it); `refused` counts the lines with a reason.
    """

    account: bytes
    lines: tuple[Line, ...]
    by_epoch: tuple[tuple[int, int], ...]
    earned: int
    refused: int


def sentence_of(receipt: Receipt) -> str:
    """Why this receipt pays what it pays, for a person."""
    label = Kind(receipt.kind).label
    if receipt.reason not in Reason.__members__.values():
        return f"Refused ({label}) with reason {receipt.reason}, which this version does not know: update Atoll."
    reason = Reason(receipt.reason)
    if reason == Reason.OK:
        return f"{label[0].upper()}{label[1:]}: accepted and paid."
    return f"Refused ({label}, {reason.name}): {reason.sentence}"


def statement(account: bytes, epochs: Sequence[PublishedEpoch]) -> Statement:
    """The statement of an account (20 bytes) over these epochs; empty when it took no part."""
    lines = []
    by_epoch = []
    for epoch in sorted(epochs, key=lambda each: each.number):
        mine = [receipt for receipt in epoch.receipts if receipt.account == account]
        lines += [_line(epoch.number, receipt) for receipt in mine]
        if mine:
            by_epoch.append((epoch.number, sum(receipt.amount for receipt in mine)))
    refused = sum(1 for line in lines if line.reason != Reason.OK)
    return Statement(account, tuple(lines), tuple(by_epoch), sum(amount for _, amount in by_epoch), refused)


def _line(epoch: int, receipt: Receipt) -> Line:
    work = (receipt.job, receipt.round, receipt.unit, Kind(receipt.kind))
    return Line(epoch, *work, receipt.amount, receipt.reason, sentence_of(receipt))


STATEMENT_HEADER = ("epoch", "job", "round", "unit", "work", TOKEN, "why")


def statement_rows(found: Statement) -> list[tuple[str, ...]]:
    """Rows under STATEMENT_HEADER, with ids shortened for a terminal."""
    return [
        (
            str(line.epoch),
            _short(line.job),
            str(line.round),
            _short(line.unit) if any(line.unit) else "-",
            line.kind.label,
            amount_text(line.amount),
            line.sentence,
        )
        for line in found.lines
    ]


def statement_json(found: Statement) -> dict[str, object]:
    """The statement with full ids; amounts as strings of base units."""
    return {
        "account": "0x" + found.account.hex(),
        "earned": str(found.earned),
        "refused": found.refused,
        "epochs": [{"epoch": number, "earned": str(amount)} for number, amount in found.by_epoch],
        "lines": [
            {
                "epoch": line.epoch,
                "job": "0x" + line.job.hex(),
                "round": line.round,
                "unit": "0x" + line.unit.hex(),
                "kind": int(line.kind),
                "amount": str(line.amount),
                "reason": int(line.reason),
                "sentence": line.sentence,
            }
            for line in found.lines
        ],
    }


def _short(value: bytes) -> str:
    return f"0x{value[:4].hex()}…"


# The offline check
@dataclass(frozen=True)
class ChainEpoch:
    """What the chain holds of an epoch: the events Posted and TotalPosted of Settlement (`jobs` in their order)."""

    number: int
    root: bytes
    receipts_root: bytes
    accounts: int
    receipts: int
    jobs: tuple[JobTotal, ...]


@dataclass(frozen=True)
class ChainView:
    """What the chain says: every epoch in force, and what each account has claimed in all (base units).

    `verifier` is the Settlement contract. `budgets` (job -> base units ever put into escrow) limits the totals of the
    jobs that it names. `light` (job -> accounts) are those that enlisted as light workers.
    """

    verifier: Verifier
    epochs: tuple[ChainEpoch, ...]
    claimed: Mapping[bytes, int]
    budgets: Mapping[bytes, int] = field(default_factory=dict)
    light: Mapping[bytes, AbstractSet[bytes]] = field(default_factory=dict)


@dataclass(frozen=True)
class Explanation:
    """Whether the published receipts lead to exactly what the chain says; if not, the first difference as a sentence.

    `checked` counts what was found right before that: epochs, receipts, accounts, jobs, claims.
    """

    match: bool
    first_difference: str | None
    checked: Mapping[str, int]


def explain(
    published: Sequence[PublishedEpoch], chain: ChainView, prices: Mapping[bytes, Prices] | None = None
) -> Explanation:
    """Recompute every total and root from the receipts alone and compare with the chain.

    With `prices` (job -> its prices), each receipt of a job named there must also pay exactly its price: the part of a
    light unit for whatever was done on the unit of a light worker.
    """
    walk = _Walk(chain, prices or {})
    difference = next(walk.differences(published), None)
    counted = {name: walk.checked[name] for name in ("epochs", "receipts", "accounts", "jobs", "claims")}
    return Explanation(difference is None, difference, counted)


def explanation_text(found: Explanation) -> str:
    """One sentence or two: "matches the chain", or the first difference."""
    words = {"accounts": "totals of accounts", "jobs": "totals of jobs"}
    counts = ", ".join(f"{count} {words.get(name, name)}" for name, count in found.checked.items())
    if found.match:
        return f"matches the chain ({counts} recomputed)"
    return f"does not match the chain. First difference: {found.first_difference} (right before that: {counts})"


def explanation_json(found: Explanation) -> dict[str, object]:
    """JSON twin of an explanation; `explain` is "match" or "differs"."""
    return {
        "explain": "match" if found.match else "differs",
        "first_difference": found.first_difference,
        "checked": dict(found.checked),
    }


class _Walk:
    """One pass over the epochs, oldest first, carrying the totals that the receipts have led to so far."""

    def __init__(self, chain: ChainView, prices: Mapping[bytes, Prices]) -> None:
        self.chain = chain
        self.prices = prices
        self.totals = Totals()
        self.seen: dict[Key, int] = {}  # receipt -> its reason
        self.owners: dict[tuple[bytes, int, bytes], bytes] = {}  # (job, round, unit) -> who trained it
        self.granted: dict[bytes, set[int]] = {}  # account -> every cumulative amount that a root ever granted
        self.checked: Counter[str] = Counter()

    def differences(self, published: Sequence[PublishedEpoch]) -> Iterator[str]:
        posted = {epoch.number: epoch for epoch in self.chain.epochs}
        epochs = {epoch.number: epoch for epoch in published}
        if len(posted) < len(self.chain.epochs) or len(epochs) < len(published):
            yield "an epoch was given twice; expected each epoch once, on the chain and among the published ones"
        for number in sorted(posted.keys() | epochs.keys()):
            if number not in epochs:
                yield f"epoch {number}: the chain has a post, but no receipts were published for it"
            elif number not in posted:
                yield f"epoch {number}: receipts were published, but the chain has no post for it"
            else:
                yield from self._epoch(epochs[number], posted[number])
                self.checked["epochs"] += 1
        yield from self._claims()

    def _epoch(self, epoch: PublishedEpoch, posted: ChainEpoch) -> Iterator[str]:
        where = f"epoch {epoch.number}"
        yield from self._receipts(where, epoch)
        yield from self._account_totals(where, epoch)
        yield from self._job_totals(where, epoch)
        yield from _posted_jobs(where, epoch.jobs, posted.jobs)
        found = post_of(epoch, self.chain.verifier)
        for name, expected, there in (
            ("number of receipts", found.receipts, posted.receipts),
            ("receipts root", found.receipts_root, posted.receipts_root),
            ("number of accounts", found.accounts, posted.accounts),
            ("account root", found.root, posted.root),
        ):
            if expected != there:
                yield f"{where}: the {name} is {_show(expected)} by the receipts, but the chain has {_show(there)}"
        self.totals = self.totals.after(epoch)

    def _receipts(self, where: str, epoch: PublishedEpoch) -> Iterator[str]:
        last: Key | None = None
        for receipt in epoch.receipts:
            if last is not None and receipt.key <= last:
                yield f"{where}: {receipt} is out of order, or appears twice"
            last = receipt.key
            before = self.seen.get(receipt.key)
            # A unit that could not be settled in its round may be paid or refused later; nothing else comes twice.
            if before is not None and before != Reason.UNSETTLED:
                yield f"{where}: {receipt} was already settled in an earlier epoch"
            self.seen[receipt.key] = receipt.reason
            if receipt.job in self.totals.jobs and self.totals.jobs[receipt.job].settled:
                yield f"{where}: {receipt} belongs to a job that was settled in an earlier epoch"
            yield from self._price(where, receipt)
            self.checked["receipts"] += 1

    def _price(self, where: str, receipt: Receipt) -> Iterator[str]:
        work = (receipt.job, receipt.round, receipt.unit)
        if receipt.kind == Kind.TRAINING:  # comes before the checks of the unit
            self.owners[work] = receipt.account
        prices, light = self.prices.get(receipt.job), self.chain.light.get(receipt.job, frozenset())
        price = prices.of(receipt.kind, self.owners.get(work) in light) if prices else 0
        expected = price if receipt.reason == Reason.OK else 0
        if prices and receipt.amount != expected:
            yield f"{where}: {receipt} pays {receipt.amount}; expected {expected} by the job's prices"

    def _account_totals(self, where: str, epoch: PublishedEpoch) -> Iterator[str]:
        sums = Counter(self.totals.accounts)
        for receipt in epoch.receipts:
            sums[receipt.account] += receipt.amount
        expected = {account: amount for account, amount in sums.items() if amount}
        names = [account for account, _ in epoch.accounts]
        if any(before >= after for before, after in pairwise(names)):
            yield f"{where}: the published accounts are not in rising order without repetition"
        found = dict(epoch.accounts)
        for account in sorted(expected.keys() | found.keys()):
            if found.get(account) != expected.get(account):
                listed = f"is {found[account]}" if account in found else "is missing"
                yield (
                    f"{where}, account 0x{account.hex()}: the receipts add up to {expected.get(account, 0)}, "
                    f"but the published cumulative amount {listed}"
                )
            if account in found:
                self.granted.setdefault(account, set()).add(found[account])
                self.checked["accounts"] += 1

    def _job_totals(self, where: str, epoch: PublishedEpoch) -> Iterator[str]:
        sums = Counter({job: total.total for job, total in self.totals.jobs.items()})
        for receipt in epoch.receipts:
            sums[receipt.job] += receipt.amount
        new = {receipt.job for receipt in epoch.receipts if receipt.amount}
        names = [total.job for total in epoch.jobs]
        if any(before >= after for before, after in pairwise(names)):
            yield f"{where}: the published job totals are not in rising order without repetition"
        found = {total.job: total for total in epoch.jobs}
        for job in sorted(new | found.keys()):
            name = f"{where}, job 0x{job.hex()}"
            before = self.totals.jobs.get(job)
            if job not in found:
                yield f"{name}: its receipts add up to {sums[job]}, but no total is published for it"
            elif found[job].total != sums[job]:
                yield f"{name}: the receipts add up to {sums[job]}, but the published total is {found[job].total}"
            elif before is not None and before.settled:
                yield f"{name}: it was settled in an earlier epoch, yet it appears again"
            elif job not in new and not found[job].settled:
                yield f"{name}: it is listed, but neither its total nor its end is new"
            elif sums[job] > self.chain.budgets.get(job, sums[job]):
                yield f"{name}: its total is {sums[job]}, but its escrow was only {self.chain.budgets[job]}"
            self.checked["jobs"] += 1

    def _claims(self) -> Iterator[str]:
        for account, claimed in sorted(self.chain.claimed.items()):
            # A claim always pays up to the cumulative amount of some root.
            if claimed and claimed not in self.granted.get(account, ()):
                owed = self.totals.accounts.get(account, 0)
                yield (
                    f"account 0x{account.hex()}: it has claimed {claimed} on the chain, which no epoch granted "
                    f"(the latest cumulative amount is {owed})"
                )
            self.checked["claims"] += 1


def _posted_jobs(where: str, expected: Sequence[JobTotal], posted: Sequence[JobTotal]) -> Iterator[str]:
    for ours, theirs in zip_longest(expected, posted):
        if ours != theirs:
            yield f"{where}: expected {_job(ours)} by the receipts, but the chain has {_job(theirs)}"


def _job(total: JobTotal | None) -> str:
    if total is None:
        return "no further job"
    return f"job 0x{total.job.hex()} with a total of {total.total}{', settled' if total.settled else ''}"


def _show(value: int | bytes) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)
