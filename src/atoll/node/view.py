"""What the chain says, as this node sees it: a fold over the contracts' events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from atoll.ledger import events
from atoll.ledger.epoch import JobTotal
from atoll.ledger.statement import ChainEpoch, ChainView
from atoll.training.context import Enlistment, light_accounts
from atoll.wire.eip712 import Verifier


@dataclass(frozen=True)
class JobView:
    """A job on the chain. `roster` are the accounts that had enlisted when it started, `funded` its budget then."""

    job: bytes
    developer: bytes
    manifest: bytes
    budget: int
    rounds: int
    seed: bytes
    enlisted: Mapping[bytes, Enlistment] = field(default_factory=dict)
    committee: tuple[bytes, ...] = ()
    roster: tuple[bytes, ...] = ()
    funded: int = 0
    certified: int = 0
    model: bytes = b""
    drawn: int = 0
    refunded: int = 0
    shortened: int | None = None

    @property
    def end(self) -> int:
        """Rounds after which the job is over; `rounds` are those that were asked for."""
        return self.rounds if self.shortened is None else self.shortened


@dataclass(frozen=True)
class PostedEpoch:
    """An epoch on the chain, with the totals that came with it and where it is published."""

    epoch: events.Posted
    totals: tuple[JobTotal, ...]


class View:
    """The state that all events so far add up to.

    `deposits` are what payers have deposited and not asked back, `redeemed` what (payer, payee) have moved in all,
    `leaving` the payers who have asked for some of their deposit back and did not fetch it yet.
    """

    def __init__(self) -> None:
        self.nodes: dict[bytes, events.Registered] = {}
        self.inactive: set[bytes] = set()
        self.stakes: dict[bytes, int] = {}
        self.validators: set[bytes] = set()
        self.jobs: dict[bytes, JobView] = {}
        self.epochs: list[PostedEpoch] = []
        self.claimed: dict[bytes, int] = {}
        self.balances: dict[bytes, int] = {}
        self.deposits: dict[bytes, int] = {}
        self.redeemed: dict[tuple[bytes, bytes], int] = {}
        self.leaving: set[bytes] = set()
        self._totals: list[JobTotal] = []

    def fold(self, found: Iterable[events.Event]) -> None:
        """Take in events in the order of the chain."""
        for event in found:
            self._apply(event)

    def _apply(self, event: events.Event) -> None:
        match event:
            case events.Transfer(sender=sender, to=to, value=value):
                self.balances[sender] = self.balances.get(sender, 0) - value
                self.balances[to] = self.balances.get(to, 0) + value
            case events.Registered(account=account):
                self.nodes[account] = event
            case events.ActiveSet(account=account, active=active):
                (self.inactive.discard if active else self.inactive.add)(account)
            case events.Staked(account=account, stake=stake) | events.UnstakeRequested(account=account, stake=stake):
                self.stakes[account] = stake
            case events.ValidatorSet(account=account, validator=validator):
                (self.validators.add if validator else self.validators.discard)(account)
            case events.Claimed(account=account, cumulative=cumulative):
                self.claimed[account] = cumulative
            case events.Posted():
                self.epochs.append(PostedEpoch(event, tuple(self._totals)))
                self._totals = []
            case events.TotalPosted():  # a post's totals come before the post itself
                self._totals.append(JobTotal(event.job, event.total, event.settled))
            case events.Deposited() | events.WithdrawalRequested() | events.Redeemed() | events.DepositWithdrawn():
                self._apply_to_deposit(event)
            case _:
                self._apply_to_job(event)

    def _apply_to_deposit(
        self, event: events.Deposited | events.WithdrawalRequested | events.Redeemed | events.DepositWithdrawn
    ) -> None:
        match event:
            case events.Deposited(account=account, deposit=deposit):
                self.deposits[account] = deposit
            case events.WithdrawalRequested(account=account, deposit=deposit):
                self.deposits[account] = deposit
                self.leaving.add(account)
            case events.DepositWithdrawn(account=account):
                self.leaving.discard(account)
            case events.Redeemed(payer=payer, payee=payee, cumulative=cumulative, deposit=deposit):
                self.deposits[payer] = deposit
                self.redeemed[payer, payee] = cumulative

    def _apply_to_job(self, event: events.Event) -> None:
        match event:
            case events.Opened(job=job):
                self.jobs[job] = JobView(job, event.developer, event.manifest, event.budget, event.rounds, event.seed)
            case events.ToppedUp(job=job, budget=budget):
                self.jobs[job] = replace(self.jobs[job], budget=budget)
            case events.Shortened(job=job, rounds=rounds):
                self.jobs[job] = replace(self.jobs[job], shortened=rounds)
            case events.Enlisted(job=job, account=account):
                known = self.jobs[job]
                entry = Enlistment(event.tip, event.roles, self.stakes.get(account, 0))
                self.jobs[job] = replace(known, enlisted={**known.enlisted, account: entry})
            case events.Started(job=job, committee=committee):
                known = self.jobs[job]
                roster = tuple(sorted(known.enlisted))
                self.jobs[job] = replace(known, committee=committee, roster=roster, funded=known.budget)
            case events.Certified(job=job, round=number, model_root=model):
                self.jobs[job] = replace(self.jobs[job], certified=number + 1, model=model)
            case events.Drawn(job=job, drawn=drawn):
                self.jobs[job] = replace(self.jobs[job], drawn=drawn)
            case events.Refunded(job=job, amount=amount):
                self.jobs[job] = replace(self.jobs[job], refunded=self.jobs[job].refunded + amount)

    def certified(self) -> dict[bytes, int]:
        """Rounds of each job that the chain has accepted."""
        return {job: known.certified for job, known in self.jobs.items()}

    def chain_view(self, verifier: Verifier) -> ChainView:
        """What `explain` compares the published receipts with."""
        posted = tuple(
            ChainEpoch(e.epoch.epoch, e.epoch.root, e.epoch.receipts_root, e.epoch.accounts, e.epoch.receipts, e.totals)
            for e in self.epochs
        )
        budgets = {job: known.budget for job, known in self.jobs.items()}
        light = {job: light_accounts(known.enlisted) for job, known in self.jobs.items()}
        return ChainView(verifier, posted, dict(self.claimed), budgets, light)
