"""The router's choice: the formula with values worked out by hand, fair first tries, liars left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.inference.messages import ModelOffer, amount_bytes
from atoll.inference.router import Candidate, Outcome, Record, Wanted, chance, expected_cost, ranked
from atoll.inference.vouchers import Price
from atoll.wire.hashing import ZERO_HASH

NOW = 1_000_000.0
A, B, C = (bytes([number]) * 20 for number in (1, 2, 3))
WANTED = Wanted(inputs=1, question_tokens=400, new_tokens=100)


def candidate(server: bytes, per_1000: int = 2_000, per_input: int = 0, load: int = 0) -> Candidate:
    amounts = amount_bytes(per_input), amount_bytes(per_1000)
    return Candidate(server, ModelOffer("m", "language", ZERO_HASH, 2048, *amounts), load)


def dice(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_a_price_is_rounded_up_once() -> None:
    assert Price(7, 3).of(2, 334) == 14 + 2  # 1.002 base units for the tokens
    assert WANTED.ceiling(Price(5, 2_000)) == 5 + 1_000


def test_expected_cost_by_hand() -> None:
    record = Record(good=3, bad=1, at=NOW, first=0.5, per_token=0.02, answers=3)
    # (1000 + 0.1 * 1000 * (0.5 + 2.0) * 1.5) / (4 / 5) = 1375 / 0.8
    found = expected_cost(candidate(A, load=500), record, WANTED, NOW, scale=1_000, speed=(9.0, 9.0))
    assert found == pytest.approx(1718.75)
    # Nothing measured: the speed that is handed in, chance 1.
    assert expected_cost(candidate(A), Record(), WANTED, NOW, 1_000, (1.0, 0.01)) == pytest.approx(1_200.0)


def test_what_went_wrong_fades_by_half_in_an_hour() -> None:
    record = Record().after(Outcome.TIMEOUT, NOW)
    assert (record.bad, record.timeouts) == (2.0, 1)
    assert chance(record, NOW) == pytest.approx(1 / 3)
    assert chance(record, NOW + 3600) == pytest.approx(1 / 2)
    assert record.after(Outcome.GOOD, NOW + 3600).bad == pytest.approx(1.0)


def test_speed_is_a_moving_average() -> None:
    once = Record().timed(1.0, 3.0, 20)
    assert (once.first, once.per_token) == (1.0, pytest.approx(0.1))
    twice = once.timed(2.0, 12.0, 50)
    assert (twice.first, twice.per_token) == (pytest.approx(1.25), pytest.approx(0.125))


def test_price_speed_and_record_each_decide() -> None:
    good = Record(good=9, at=NOW, first=1.0, per_token=0.01, answers=9)
    slow = Record(good=9, at=NOW, first=9.0, per_token=0.01, answers=9)
    shaky = Record(good=9, bad=9, at=NOW, first=1.0, per_token=0.01, answers=9, timeouts=5)

    def first(records: dict[bytes, Record], *candidates: Candidate) -> bytes:
        return ranked(candidates, records, WANTED, NOW, dice(1))[0].server

    assert first({A: good, B: good}, candidate(A, 3_000), candidate(B, 2_000)) == B
    assert first({A: slow, B: good}, candidate(A), candidate(B)) == B
    assert first({A: shaky, B: good}, candidate(A), candidate(B)) == B
    assert first({A: good, B: good}, candidate(A), candidate(B, load=900)) == A


def test_newcomers_get_one_first_try_in_five_and_only_at_a_fair_price() -> None:
    known = Record(good=9, at=NOW, first=1.0, per_token=0.01, answers=9)
    cheap, dear = candidate(B), candidate(C, 2_001)
    firsts = [
        ranked([candidate(A), cheap, dear], {A: known}, WANTED, NOW, dice(number))[0].server for number in range(500)
    ]
    assert C not in firsts
    assert 60 <= firsts.count(B) <= 140  # 100 expected, standard deviation 9
    # Among newcomers alone the cheapest comes first, and the dice decide between equals.
    firsts = [ranked([candidate(A), cheap, dear], {}, WANTED, NOW, dice(number))[0].server for number in range(200)]
    assert {A, B} == set(firsts)
    assert 70 <= firsts.count(A) <= 130


def test_a_liar_is_never_asked_again() -> None:
    lied = Record().after(Outcome.GOOD, NOW).after(Outcome.LIE, NOW, "another answer")
    assert lied.lied == "another answer"
    for later in (NOW, NOW + 1e9):
        order = ranked([candidate(A), candidate(B)], {A: lied}, WANTED, later, dice(3))
        assert [one.server for one in order] == [B]


@given(st.permutations(range(6)), st.binary(min_size=32, max_size=32))
def test_the_order_depends_on_nothing_but_its_inputs(places: list[int], throw: bytes) -> None:
    all_of_them = [candidate(bytes([number + 1]) * 20, 1_000 + 100 * (number % 3)) for number in range(6)]
    records = {
        one.server: Record(good=index, at=NOW, first=1.0, answers=1) for index, one in enumerate(all_of_them[:3])
    }
    expected = ranked(all_of_them, records, WANTED, NOW, throw)
    assert ranked([all_of_them[place] for place in places], records, WANTED, NOW, throw) == expected
    assert sorted(one.server for one in expected) == [one.server for one in all_of_them]
