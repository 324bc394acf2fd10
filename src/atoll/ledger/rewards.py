"""From the outcome of a round to its receipts, and from a budget to the rounds that it can pay for.

Pay is linear in verified work, so an account gains nothing by splitting itself: a light unit has one segment of the S
of a full one and pays, like every check of it, the price // S. A round starts only when the job's
escrow can pay for it in the worst case; hence a certified round is always paid in full, and no rule for sharing a
shortage is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from atoll.errors import BadSetting, EmptyBudget, Refused
from atoll.ledger.receipts import MAX_AMOUNT, TOKEN, Kind, Receipt, amount_text, in_order
from atoll.wire.hashing import ZERO_HASH
from atoll.wire.reasons import Reason

Work = tuple[bytes, bytes, int]
"""A piece of work and how it ended: (unit, account, reason); reason OK (0) is paid."""


@dataclass(frozen=True)
class Prices:
    """What a job pays, in base units: per trained unit, per audit or replica, per validator and round.

    `segments` is how many a full unit has: what is done on a light unit pays that part of the price, rounded down.
    """

    unit_price: int
    audit_price: int
    validator_price: int
    segments: int = 1

    def __post_init__(self) -> None:
        for name in ("unit_price", "audit_price", "validator_price"):
            value = getattr(self, name)
            if not 0 <= value <= MAX_AMOUNT:
                raise BadSetting(f"{name} is {value}; it must lie between 0 and {MAX_AMOUNT} base units.")
        if self.segments < 1:
            raise BadSetting(f"A unit of {self.segments} segments cannot be priced; it has at least one.")

    def of(self, kind: int, light: bool = False) -> int:
        """Price of one accepted piece of work of this kind; `light`: it was done on a light unit."""
        if kind == Kind.VALIDATION:
            return self.validator_price
        price = self.unit_price if kind == Kind.TRAINING else self.audit_price
        return price // self.segments if light else price


@dataclass(frozen=True)
class Outcome:
    """How a round ended: every unit, audit and replica that was assigned, and the validators that signed.

    `light` are the accounts whose own units are light; it does not matter what else it names.
    """

    units: Sequence[Work] = ()
    audits: Sequence[Work] = ()
    replicas: Sequence[Work] = ()
    validators: Sequence[bytes] = ()
    light: AbstractSet[bytes] = frozenset()


def receipts_of_round(job: bytes, round_number: int, prices: Prices, outcome: Outcome) -> list[Receipt]:
    """Receipts of a certified round in canonical order; a refused piece of work is a receipt of 0 with its reason.

    Refused(DUPLICATE): a unit, or anything else, appears twice, or an account checks its own unit.
    """
    owners = _owners(outcome)
    committee = [(ZERO_HASH, account, int(Reason.OK)) for account in outcome.validators]
    groups: tuple[tuple[Kind, Sequence[Work]], ...] = (
        (Kind.TRAINING, outcome.units),
        (Kind.AUDIT, outcome.audits),
        (Kind.REPLICA, outcome.replicas),
        (Kind.VALIDATION, committee),
    )
    receipts = []
    for kind, works in groups:
        for unit, account, reason in works:
            price = prices.of(kind, owners.get(unit) in outcome.light)
            amount = price if reason == Reason.OK else 0
            receipts.append(Receipt(kind, job, round_number, unit, account, int(reason), amount))
    return list(in_order(receipts))


def _owners(outcome: Outcome) -> dict[bytes, bytes]:
    """Whose each unit is; refuses what nobody may be paid for."""
    owner: dict[bytes, bytes] = {}
    for unit, account, _ in outcome.units:
        if unit in owner:
            raise Refused(Reason.DUPLICATE, f"unit 0x{unit.hex()} was settled twice")
        owner[unit] = account
    for unit, account, _ in (*outcome.audits, *outcome.replicas):
        if owner.get(unit) == account:
            raise Refused(Reason.DUPLICATE, f"0x{account.hex()} cannot be paid to check its own unit 0x{unit.hex()}")
    return owner


def check_budget(receipts: Iterable[Receipt], remaining: int) -> int:
    """Sum of the receipts; Refused(OVER_BUDGET) when what remains in the job's escrow is less."""
    total = sum(receipt.amount for receipt in receipts)
    if total > remaining:
        owed, held = amount_text(total), amount_text(remaining)
        raise Refused(Reason.OVER_BUDGET, f"the receipts add up to {owed} {TOKEN}, the escrow holds {held} {TOKEN}")
    return total


def budget_per_round(prices: Prices, workers: int, audits: int, replicas: int, validators: int) -> int:
    """The most that a round can cost, in base units: everything assigned is also accepted.

    `replicas` counts single re-runs (three for each unit in dispute), not disputes.
    """
    counts = (workers, audits, replicas, validators)
    if min(counts) < 0:
        raise BadSetting(f"A round cannot have {min(counts)} participants; expected 0 or more of each role.")
    checks = (audits + replicas) * prices.audit_price
    return workers * prices.unit_price + checks + validators * prices.validator_price


def rounds_affordable(remaining: int, per_round: int, wanted: int) -> int:
    """How many of the wanted rounds `remaining` base units pay for in the worst case (all, if rounds are free)."""
    return wanted if per_round == 0 else max(0, min(wanted, remaining // per_round))


def check_affordable(budget: int, per_round: int, rounds: int) -> int:
    """Rounds that the budget pays for in the worst case, at most `rounds`; EmptyBudget when not even one."""
    affordable = rounds_affordable(budget, per_round, rounds)
    if rounds > 0 and affordable == 0:
        raise EmptyBudget(
            f"The budget of {amount_text(budget)} {TOKEN} cannot pay for one round, which may cost up to "
            f"{amount_text(per_round)} {TOKEN}. For {rounds} rounds, put {amount_text(per_round * rounds)} {TOKEN} "
            "into escrow, or lower the job's prices."
        )
    return affordable
