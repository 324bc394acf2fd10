"""A validator's book: receipts of certified rounds, the epochs posted so far, and the next one to post. Pure.

Receipts follow from certificates alone (the verdicts and the job's prices), so every validator drafts the same epoch
from the same rounds, and signs only what it drafted itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from atoll.errors import Refused
from atoll.ledger.epoch import PublishedEpoch, Totals, build_epoch
from atoll.ledger.receipts import Receipt
from atoll.ledger.rewards import Outcome, Prices, receipts_of_round
from atoll.training.committee import AUDIT, REPLICA, UNIT, VALIDATION, CertifyPayload
from atoll.wire.reasons import Reason


def outcome_of(certificate: CertifyPayload, light: AbstractSet[bytes] = frozenset()) -> Outcome:
    """A round's verdicts as the ledger takes them; `light` are the accounts that enlisted as light workers."""

    def works(kind: int) -> list[tuple[bytes, bytes, int]]:
        return [(row.unit, row.account, row.reason) for row in certificate.verdicts if row.kind == kind]

    validators = [row.account for row in certificate.verdicts if row.kind == VALIDATION]
    return Outcome(works(UNIT), works(AUDIT), works(REPLICA), validators, light)


@dataclass(frozen=True)
class JobAccount:
    """What the book knows about a job's money: its prices, its rounds, how many make an epoch, and its escrow."""

    prices: Prices
    rounds: int
    epoch_rounds: int
    budget: int


Span = tuple[bytes, int]
"""(job, first round that is not included)."""


class Book:
    """The fold over certificates and posted epochs."""

    def __init__(self) -> None:
        self.jobs: dict[bytes, JobAccount] = {}
        self.epochs: list[PublishedEpoch] = []
        self.totals = Totals()
        self._receipts: dict[tuple[bytes, int], list[Receipt]] = {}
        self._settled: dict[bytes, int] = {}  # job -> rounds that posted epochs cover

    def open_job(self, job: bytes, account: JobAccount) -> None:
        """A job whose rounds will be certified."""
        self.jobs[job] = account

    def certified(
        self, job: bytes, round_number: int, certificate: CertifyPayload, light: AbstractSet[bytes] = frozenset()
    ) -> None:
        """Take in a certified round; `light` are the accounts that enlisted as light workers."""
        receipts = receipts_of_round(job, round_number, self.jobs[job].prices, outcome_of(certificate, light))
        self._receipts[job, round_number] = receipts

    def posted(self, epoch: PublishedEpoch) -> None:
        """Take in the next posted epoch; earlier ones are ignored."""
        if epoch.number != len(self.epochs):
            return
        self.epochs.append(epoch)
        self.totals = self.totals.after(epoch)
        for receipt in epoch.receipts:
            self._settled[receipt.job] = max(self._settled.get(receipt.job, 0), receipt.round + 1)

    def receipts(self, job: bytes, round_number: int) -> Sequence[Receipt]:
        """The receipts of a certified round in canonical order, posted or not; none for a round that is not known."""
        return self._receipts.get((job, round_number), ())

    def settled_rounds(self, job: bytes) -> int:
        """How many of a job's rounds are in posted epochs."""
        return self._settled.get(job, 0)

    def certified_rounds(self, job: bytes) -> int:
        """How many rounds in a row are known from the first that is not settled on."""
        count = self.settled_rounds(job)
        while (job, count) in self._receipts:
            count += 1
        return count

    def due(self, on_chain: Mapping[bytes, int]) -> tuple[Span, ...]:
        """What the next epoch should include; `on_chain` counts the certified rounds of each job."""
        spans = []
        for job, account in sorted(self.jobs.items()):
            ready = min(self.certified_rounds(job), on_chain.get(job, 0))
            waiting = ready - self.settled_rounds(job)
            if waiting >= account.epoch_rounds or (waiting and ready == account.rounds):
                spans.append((job, ready))
        return tuple(spans)

    def draft(self, number: int, spans: Sequence[Span]) -> PublishedEpoch:
        """The epoch that includes these rounds; raises Refused when this book does not (yet) know them."""
        if number != len(self.epochs):
            raise Refused(Reason.STALE, f"epoch {number} was asked for; the next one is {len(self.epochs)}")
        receipts: list[Receipt] = []
        settled = set()
        for job, end in spans:
            account = self.jobs.get(job)
            if account is None or not self.settled_rounds(job) < end <= self.certified_rounds(job):
                raise Refused(Reason.NOT_FOUND, f"round {end - 1} of job 0x{job.hex()[:8]} is not certified here")
            for number_of_round in range(self.settled_rounds(job), end):
                receipts += self._receipts[job, number_of_round]
            if end == account.rounds:
                settled.add(job)
        budgets = {job: account.budget for job, account in self.jobs.items()}
        return build_epoch(number, self.totals, receipts, settled, budgets)
