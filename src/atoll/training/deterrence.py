"""How often an account's units are audited, so that cheating loses money on average.

Decision D6: p = min(1, max(p_min, 1/CV, 1.5 R / (delta (R + S)))), where R is the pay of a unit, S what the account
would lose (its stake and the pay that is held back), delta the chance that an audit sees a cheat, and CV the number of
its consecutive valid units. At the third term a cheat's expected gain is R - p delta (R + S) = -R/2.
All in integers, rounded up: every node computes the same rate, and never one that deters less.
"""

from __future__ import annotations

from atoll.errors import BadSetting, InternalError

ALWAYS = 10_000
"""A rate of one: parts per 10,000."""

STAKE_UNITS = 20
"""Stake that brings an account with a record down to the floor: this many times the pay of a unit."""


def audit_rate(
    *, consecutive_valid: int, stake: int, held_back: int, unit_price: int, floor_per_10k: int, detection_per_10k: int
) -> int:
    """Chance that a unit of this account is audited, in parts per 10,000 (0..10,000).

    `stake`, `held_back` and `unit_price` are base units. Raises BadSetting when the floor or the detection lies
    outside 0..10,000, InternalError on negative counts. A new account (no valid units in a row) is always audited.
    """
    for name, parts in (("floor", floor_per_10k), ("detection", detection_per_10k)):
        if not 0 <= parts <= ALWAYS:
            raise BadSetting(f"The {name} of audits is {parts}; it must lie between 0 and {ALWAYS} parts per {ALWAYS}.")
    if min(consecutive_valid, stake, held_back, unit_price) < 0:
        raise InternalError(f"negative record: {consecutive_valid=} {stake=} {held_back=} {unit_price=}")
    if consecutive_valid == 0:
        return ALWAYS
    by_record = _ceil(ALWAYS, consecutive_valid)
    return min(ALWAYS, max(floor_per_10k, by_record, _by_stake(unit_price, stake + held_back, detection_per_10k)))


def _by_stake(pay: int, at_risk: int, detection_per_10k: int) -> int:
    """1.5 R / (delta (R + S)) in parts per 10,000, where delta is given in the same parts: hence ALWAYS twice."""
    if pay == 0:
        return 0
    if detection_per_10k == 0:
        return ALWAYS
    return _ceil(3 * ALWAYS * ALWAYS * pay, 2 * detection_per_10k * (pay + at_risk))


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
