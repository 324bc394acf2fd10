"""The audit rate against the formula in exact fractions, and against what it promises."""

from __future__ import annotations

import json
from fractions import Fraction
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import BadSetting, InternalError
from atoll.training.deterrence import STAKE_UNITS, audit_rate

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ledger.json").read_text())
AMOUNTS = st.integers(0, 10**24)
PARTS = st.integers(0, 10_000)
RECORD = {"consecutive_valid": 50, "stake": 20, "held_back": 0, "unit_price": 1}
POLICY = {"floor_per_10k": 1000, "detection_per_10k": 10_000}


def test_golden_vectors() -> None:
    for row in VECTORS["audit_rates"]:
        assert audit_rate(**{name: int(value) for name, value in row.items() if name != "rate"}) == row["rate"]


@given(st.integers(1, 10**6), AMOUNTS, AMOUNTS, st.integers(1, 10**24), PARTS, st.integers(1, 10_000))
def test_equals_the_formula_rounded_up(valid: int, stake: int, held: int, pay: int, floor: int, detect: int) -> None:
    delta = Fraction(detect, 10_000)
    by_stake = Fraction(3, 2) * pay / (delta * (pay + stake + held))
    exact = min(Fraction(1), max(Fraction(floor, 10_000), Fraction(1, valid), by_stake))
    rate = audit_rate(
        consecutive_valid=valid,
        stake=stake,
        held_back=held,
        unit_price=pay,
        floor_per_10k=floor,
        detection_per_10k=detect,
    )
    assert rate == ceil(exact * 10_000)


@given(st.integers(1, 10**6), AMOUNTS, AMOUNTS, st.integers(1, 10**24), PARTS, st.integers(1, 10_000))
def test_cheating_loses_at_least_half_a_unit(
    valid: int, stake: int, held: int, pay: int, floor: int, detect: int
) -> None:
    """Below certainty, a cheat's expected gain (1 - q) R - q S with q = p delta is at most -R/2."""
    policy = {"floor_per_10k": floor, "detection_per_10k": detect}
    rate = audit_rate(consecutive_valid=valid, stake=stake, held_back=held, unit_price=pay, **policy)
    caught = Fraction(rate, 10_000) * Fraction(detect, 10_000)
    if rate < 10_000:
        assert (1 - caught) * pay - caught * (stake + held) <= -Fraction(pay, 2)


def test_new_accounts_are_always_audited_whatever_their_stake() -> None:
    assert audit_rate(**{**RECORD, "consecutive_valid": 0, "stake": 10**30}, **POLICY) == 10_000
    assert audit_rate(**{**RECORD, "consecutive_valid": 1, "stake": 10**30}, **POLICY) == 10_000


def test_a_full_stake_and_a_record_reach_the_floor() -> None:
    # 1.5 / 21 = 7.15 %, and 1 / 50 = 2 %: both below the floor of 10 %
    assert audit_rate(**{**RECORD, "stake": STAKE_UNITS}, **POLICY) == 1000
    assert audit_rate(**{**RECORD, "stake": 0, "held_back": STAKE_UNITS}, **POLICY) == 1000
    assert audit_rate(**{**RECORD, "consecutive_valid": 5}, **POLICY) == 2000


def test_free_units_and_blind_audits() -> None:
    assert audit_rate(**{**RECORD, "unit_price": 0, "stake": 0}, floor_per_10k=0, detection_per_10k=0) == 200
    assert audit_rate(**RECORD, floor_per_10k=0, detection_per_10k=0) == 10_000


@pytest.mark.parametrize("policy", [{"floor_per_10k": -1}, {"floor_per_10k": 10_001}, {"detection_per_10k": 10_001}])
def test_settings_outside_their_range(policy: dict[str, int]) -> None:
    with pytest.raises(BadSetting, match="between 0 and 10000 parts"):
        audit_rate(**RECORD, **{**POLICY, **policy})


@pytest.mark.parametrize("name", list(RECORD))
def test_negative_records_are_our_own_mistake(name: str) -> None:
    with pytest.raises(InternalError):
        audit_rate(**{**RECORD, name: -1}, **POLICY)
