"""From outcomes to receipts, and from budgets to rounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import BadSetting, EmptyBudget, Refused
from atoll.ledger.receipts import Kind, in_order
from atoll.ledger.rewards import (
    Outcome,
    Prices,
    budget_per_round,
    check_affordable,
    check_budget,
    receipts_of_round,
    rounds_affordable,
)
from atoll.wire.reasons import Reason

JOB = b"\x0a" * 32
PRICES = Prices(unit_price=100, audit_price=30, validator_price=7)


def unit(number: int) -> bytes:
    return number.to_bytes(32, "big")


def account(number: int) -> bytes:
    return number.to_bytes(20, "big")


def test_a_round_by_hand() -> None:
    outcome = Outcome(
        units=[(unit(1), account(1), Reason.OK), (unit(2), account(2), Reason.SEGMENT_MISMATCH)],
        audits=[(unit(2), account(3), Reason.OK), (unit(1), account(4), Reason.NOT_REVEALED)],
        replicas=[(unit(2), account(n), Reason.OK) for n in (5, 6, 7)],
        validators=[account(9), account(8)],
    )
    found = receipts_of_round(JOB, 12, PRICES, outcome)
    assert [(r.kind, r.unit, r.account, r.reason, r.amount) for r in found] == [
        (Kind.VALIDATION, bytes(32), account(8), 0, 7),
        (Kind.VALIDATION, bytes(32), account(9), 0, 7),
        (Kind.TRAINING, unit(1), account(1), 0, 100),
        (Kind.AUDIT, unit(1), account(4), 35, 0),
        (Kind.TRAINING, unit(2), account(2), 33, 0),
        (Kind.AUDIT, unit(2), account(3), 0, 30),
        (Kind.REPLICA, unit(2), account(5), 0, 30),
        (Kind.REPLICA, unit(2), account(6), 0, 30),
        (Kind.REPLICA, unit(2), account(7), 0, 30),
    ]
    assert {(r.job, r.round) for r in found} == {(JOB, 12)}
    assert check_budget(found, 234) == 234
    with pytest.raises(Refused) as caught:
        check_budget(found, 233)
    assert caught.value.reason == Reason.OVER_BUDGET


def test_light_units_pay_their_part_rounded_down() -> None:
    """Unit 1 is a light worker's, unit 2 is not: what counts is whose unit it is, not who checks it."""
    outcome = Outcome(
        units=[(unit(1), account(1), Reason.OK), (unit(2), account(2), Reason.OK)],
        audits=[(unit(1), account(2), Reason.OK), (unit(2), account(1), Reason.OK)],
        replicas=[(unit(1), account(3), Reason.OK), (unit(1), account(4), Reason.AUDIT_MISMATCH)],
        validators=[account(1)],
        light=frozenset({account(1), account(77)}),
    )
    four = Prices(unit_price=103, audit_price=30, validator_price=7, segments=4)
    found = receipts_of_round(JOB, 0, four, outcome)
    assert [(r.kind, r.unit, r.account, r.amount) for r in found] == [
        (Kind.VALIDATION, bytes(32), account(1), 7),
        (Kind.TRAINING, unit(1), account(1), 25),  # 103 / 4
        (Kind.AUDIT, unit(1), account(2), 7),  # 30 / 4
        (Kind.REPLICA, unit(1), account(3), 7),
        (Kind.REPLICA, unit(1), account(4), 0),
        (Kind.TRAINING, unit(2), account(2), 103),
        (Kind.AUDIT, unit(2), account(1), 30),
    ]
    assert check_budget(found, budget_per_round(four, 2, 2, 2, 1)) == 179
    whole = receipts_of_round(JOB, 0, Prices(103, 30, 7, segments=1), outcome)
    assert sum(r.amount for r in whole) == 103 * 2 + 30 * 3 + 7  # a unit of one segment is never a light one
    with pytest.raises(BadSetting, match="at least one"):
        Prices(1, 1, 1, segments=0)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(units=[(unit(1), account(1), 0), (unit(1), account(2), 0)]),  # one unit, two workers
        Outcome(units=[(unit(1), account(1), 0), (unit(1), account(1), 33)]),
        Outcome(audits=[(unit(1), account(1), 0), (unit(1), account(1), 0)]),
        Outcome(validators=[account(1), account(1)]),
        Outcome(units=[(unit(1), account(1), 0)], audits=[(unit(1), account(1), 0)]),  # audits itself
        Outcome(units=[(unit(1), account(1), 33)], replicas=[(unit(1), account(1), 0)]),
    ],
)
def test_no_work_is_paid_twice(outcome: Outcome) -> None:
    with pytest.raises(Refused) as caught:
        receipts_of_round(JOB, 0, PRICES, outcome)
    assert caught.value.reason == Reason.DUPLICATE


reasons = st.sampled_from([0, 0, 31, 33, 37])


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    workers = draw(st.integers(0, 6))
    units = [(unit(n + 1), account(n), draw(reasons)) for n in range(workers)]
    audits = [(unit(n + 1), account(n + 100), draw(reasons)) for n in range(workers) if draw(st.booleans())]
    replicas = [(unit(1), account(200 + n), draw(reasons)) for n in range(draw(st.integers(0, 3)))]
    light = draw(st.sets(st.sampled_from([account(n) for n in range(6)])))
    return Outcome(units, audits, replicas, [account(300 + n) for n in range(draw(st.integers(0, 4)))], light)


prices = st.builds(Prices, *[st.integers(0, 10**20)] * 3, st.integers(1, 20))


@given(outcomes(), prices, st.randoms(use_true_random=False))
def test_receipts_are_canonical_and_within_the_worst_case(outcome: Outcome, price: Prices, random: object) -> None:
    found = receipts_of_round(JOB, 3, price, outcome)
    assert tuple(found) == in_order(found)
    shuffled = [list(group) for group in (outcome.units, outcome.audits, outcome.replicas, outcome.validators)]
    for group in shuffled:
        random.shuffle(group)  # type: ignore[attr-defined]
    assert receipts_of_round(JOB, 3, price, Outcome(*shuffled, outcome.light)) == found  # type: ignore[arg-type]
    counts = [len(group) for group in shuffled]
    most = budget_per_round(price, *counts)
    total = check_budget(found, most)
    everything_accepted = not any(reason for _, _, reason in (*outcome.units, *outcome.audits, *outcome.replicas))
    if everything_accepted and (price.segments == 1 or not outcome.light):
        assert total == most


@given(st.integers(1, 12), st.integers(1, 10**20))
def test_pay_is_linear_so_splitting_gains_nothing(count: int, price: int) -> None:
    """One account with n units earns exactly what n accounts with one unit each earn together."""
    one = Outcome(units=[(unit(n), account(1), 0) for n in range(count)])
    many = Outcome(units=[(unit(n), account(n + 2), 0) for n in range(count)])
    sums = [sum(r.amount for r in receipts_of_round(JOB, 0, Prices(price, 0, 0), each)) for each in (one, many)]
    assert sums == [count * price, count * price]


def test_budget_by_hand() -> None:
    # 6 x 100 + (2 + 3) x 30 + 4 x 7
    per_round = budget_per_round(PRICES, workers=6, audits=2, replicas=3, validators=4)
    assert per_round == 778
    assert rounds_affordable(777, per_round, 12) == 0
    assert rounds_affordable(778 * 5 + 1, per_round, 12) == 5
    assert rounds_affordable(778 * 50, per_round, 12) == 12
    assert rounds_affordable(0, 0, 12) == 12
    assert rounds_affordable(-1, per_round, 12) == 0
    assert check_affordable(1556, per_round, 12) == 2


def test_an_empty_budget_says_what_to_do() -> None:
    with pytest.raises(EmptyBudget) as caught:
        check_affordable(10**18, 25 * 10**17, 12)
    assert caught.value.exit_code == 11
    assert str(caught.value) == (
        "The budget of 1 ATL cannot pay for one round, which may cost up to 2.5 ATL. "
        "For 12 rounds, put 30 ATL into escrow, or lower the job's prices."
    )


def test_prices_and_counts_outside_their_range() -> None:
    with pytest.raises(BadSetting, match="audit_price"):
        Prices(1, -1, 1)
    with pytest.raises(BadSetting, match="validator_price"):
        Prices(1, 1, 1 << 128)
    with pytest.raises(BadSetting):
        budget_per_round(PRICES, 1, -1, 0, 0)
