"""Who checks whom: rates are kept, work is spread evenly, nobody checks itself, and all nodes draw the same."""

from __future__ import annotations

from collections import Counter
from math import sqrt

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.training.audit import draw_audits, draw_committee, draw_replicas
from atoll.wire.hashing import keccak

ACCOUNTS = [keccak(b"account %d" % i)[:20] for i in range(12)]
UNITS = {keccak(b"unit %d" % i): account for i, account in enumerate(ACCOUNTS)}


def beacon(number: int) -> bytes:
    return keccak(b"beacon %d" % number)


def audits(number: int, rate: int) -> dict[bytes, bytes]:
    return draw_audits(beacon(number), UNITS, dict.fromkeys(ACCOUNTS, rate), ACCOUNTS)


def test_at_full_rate_everybody_audits_one_other() -> None:
    for number in range(50):
        drawn = audits(number, 10_000)
        assert set(drawn) == set(UNITS)
        assert all(auditor != UNITS[unit] for unit, auditor in drawn.items())
        assert len(set(drawn.values())) == 12  # one each
        pairs = {(UNITS[unit], auditor) for unit, auditor in drawn.items()}
        assert not pairs & {(second, first) for first, second in pairs}  # no two audit each other


def test_rates_are_kept() -> None:
    assert audits(1, 0) == {}
    rounds = 600
    count = sum(len(audits(number, 1_000)) for number in range(rounds))
    expected, deviation = rounds * 12 * 0.1, sqrt(rounds * 12 * 0.1 * 0.9)
    assert abs(count - expected) < 4 * deviation


def test_rates_are_those_of_the_worker() -> None:
    rates = dict.fromkeys(ACCOUNTS, 0) | {ACCOUNTS[3]: 10_000}
    drawn = draw_audits(beacon(0), UNITS, rates, ACCOUNTS)
    assert [UNITS[unit] for unit in drawn] == [ACCOUNTS[3]]


def test_every_auditor_is_drawn_as_often() -> None:
    unit = next(iter(UNITS))
    count = Counter(audits(number, 10_000)[unit] for number in range(2_200))
    assert set(count) == set(ACCOUNTS) - {UNITS[unit]}
    assert all(abs(times - 200) < 4 * sqrt(200 * 10 / 11) for times in count.values())


def test_the_order_of_what_is_given_does_not_matter() -> None:
    turned = dict(reversed(UNITS.items()))
    assert draw_audits(beacon(7), turned, dict.fromkeys(ACCOUNTS, 5_000), ACCOUNTS[::-1]) == audits(7, 5_000)
    assert draw_replicas(beacon(7), b"u", ACCOUNTS[::-1]) == draw_replicas(beacon(7), b"u", ACCOUNTS)
    assert draw_committee(beacon(7), ACCOUNTS[::-1], 7) == draw_committee(beacon(7), ACCOUNTS, 7)


def test_one_node_cannot_be_audited() -> None:
    assert draw_audits(beacon(0), {b"u": ACCOUNTS[0]}, {ACCOUNTS[0]: 10_000}, ACCOUNTS[:1]) == {}


@settings(deadline=None)
@given(st.integers(0, 1_000), st.integers(0, 12))
def test_replicas_and_committees(number: int, count: int) -> None:
    candidates = ACCOUNTS[:count]
    replicas = draw_replicas(beacon(number), b"unit", candidates)
    assert len(replicas) == len(set(replicas)) == min(3, count)
    assert set(replicas) <= set(candidates)
    committee = draw_committee(beacon(number), candidates, 7)
    assert len(committee) == len(set(committee)) == min(7, count)


def test_replicas_differ_from_unit_to_unit() -> None:
    assert len({draw_replicas(beacon(0), unit, ACCOUNTS) for unit in UNITS}) > 6
