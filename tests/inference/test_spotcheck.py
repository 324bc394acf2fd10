"""Spot checks: rates worked out by hand, what is compared, and that honest drift convicts nobody."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import BadSetting, InternalError
from atoll.inference.messages import Chunk, Likely, Position
from atoll.inference.spotcheck import (
    DOUBTS_FADE,
    Case,
    Judgement,
    Spot,
    Verdict,
    compare_numbers,
    compare_text,
    distance,
    drift,
    is_drawn,
    judge,
    plausible,
    prefix,
    rate,
    shared,
    spots,
)

AGREES, DOUBT, FALSE = Verdict


# -- how often ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("checked", "kind", "expected"),
    [
        (0, "classifier", 10_000),
        (1, "classifier", 7_895),  # 1.5 / (0.95 * 2) = 0.78947...
        (1, "language", 10_000),  # 1.5 / (0.75 * 2) = 1
        (9, "embedding", 1_579),  # 1.5 / (0.95 * 10) = 0.157894...
        (99, "language", 200),  # 1.5 / 75 = 0.02
        (10_000, "classifier", 200),
    ],
)
def test_rates_by_hand(checked: int, kind: str, expected: int) -> None:
    assert rate(checked, kind) == expected


def test_a_rate_needs_a_record_and_a_kind() -> None:
    with pytest.raises(InternalError):
        rate(-1, "classifier")
    with pytest.raises(BadSetting):
        rate(1, "oracle")


@given(st.integers(1, 73))
def test_a_lie_loses_money_above_the_floor(checked: int) -> None:
    """R - p delta (R + v R) <= -R/2 with R = 1, delta = 0.75, as long as the floor is not reached."""
    assert 1 - rate(checked, "language") / 10_000 * 0.75 * (1 + checked) <= -0.5 + 1e-9


def test_draws_follow_the_rate() -> None:
    drawn = [is_drawn(9, "embedding", number.to_bytes(32, "big")) for number in range(3_000)]
    assert 400 <= sum(drawn) <= 550  # 474 expected, standard deviation 20
    assert all(is_drawn(0, "language", number.to_bytes(32, "big")) for number in range(100))


# -- numbers -----------------------------------------------------------------------------------------------------------
def test_distance_is_the_worst_row() -> None:
    mine = np.array([[3, 4], [6, 8]], np.float32)
    other = np.array([[3, 4], [6, 9]], np.float32)
    assert distance(other, mine) == pytest.approx(0.1)
    assert distance(mine, mine) == 0.0
    assert distance(mine[:1], mine) == math.inf
    assert distance(np.array([[math.nan, 4], [6, 8]], np.float32), mine) == math.inf
    assert distance(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)) == 0.0


@given(st.integers(0, 2**32 - 1))
def test_honest_drift_of_numbers_agrees(seed: int) -> None:
    generator = np.random.default_rng(seed)
    mine = generator.normal(size=(4, 10)).astype(np.float32)
    drifted = (mine * (1 + 3e-5 * generator.uniform(-1, 1, mine.shape))).astype(np.float32)
    assert compare_numbers(drifted, mine)[0] == AGREES


def test_verdicts_on_numbers() -> None:
    mine = np.ones((1, 4), np.float32)
    assert compare_numbers(mine * np.float32(1.0009), mine)[0] == AGREES
    assert compare_numbers(mine * np.float32(1.0011), mine)[0] == DOUBT
    assert compare_numbers(mine * np.float32(1.051), mine)[0] == FALSE
    assert compare_numbers(-mine, mine)[0] == FALSE


# -- text --------------------------------------------------------------------------------------------------------------
def position(taken: int, *rivals: tuple[int, float]) -> Position:
    known = dict(rivals)
    return Position(
        Likely(taken, "", known.get(taken, -9.0)), tuple(Likely(token, "", value) for token, value in rivals)
    )


MINE = position(1, (1, math.log(0.5)), (2, math.log(0.3)), (3, math.log(0.1)), (4, math.log(0.05)))


def test_drift_by_hand() -> None:
    assert drift(position(1, (1, math.log(0.5)), (2, math.log(0.3))), MINE) == pytest.approx(0.0)
    # |ln 0.5 - ln 0.4| = 0.2231, token 9 unknown: 1 nat; mean of the two
    assert drift(position(1, (1, math.log(0.4)), (9, math.log(0.3))), MINE) == pytest.approx(
        (0.22314 + 1) / 2, abs=1e-4
    )
    # the checker's likeliest is missing: one more nat
    assert drift(position(2, (2, math.log(0.3))), MINE) == pytest.approx(0.5)
    assert drift(position(1), MINE) == math.inf
    assert drift(position(1, (1, -math.inf)), MINE) == math.inf


def test_plausible_tokens() -> None:
    def told(token: int) -> Position:
        return position(token, (1, -0.7))

    assert plausible(told(1), MINE, 0.0, 1.0)
    assert not plausible(told(2), MINE, 0.0, 1.0)
    tie = position(1, (1, -0.70), (2, -0.75))
    assert plausible(told(2), tie, 0.0, 1.0)  # 0.05 nats: a near tie
    assert plausible(told(3), MINE, 0.8, 0.9)  # 0.8 lies above it
    assert not plausible(told(4), MINE, 0.8, 0.85)  # 0.9 lies above it
    assert not plausible(told(77), MINE, 1.0, 0.9)  # at least 0.95 lies above it
    assert plausible(told(77), MINE, 1.0, 0.95)
    assert plausible(told(77), MINE, 1.5, 0.5)  # nothing can be said


def test_spots_are_the_first_and_drawn_ones() -> None:
    chunks = [Chunk(f"{number} ", (number,), (position(number, (number, -0.1)),)) for number in range(20)]
    chunks.insert(5, Chunk("", (), ()))
    found = spots(chunks, bytes(32))
    assert len(found) == 4 and found[0].before == ""
    for spot in found:
        assert spot.before == "".join(f"{number} " for number in range(spot.told.taken.token))
    assert {spot.before for spot in spots(chunks, b"\x01" * 32)} != {spot.before for spot in found}
    assert len(spots(chunks[:2], bytes(32))) == 2
    assert spots([], bytes(32)) == []


def test_verdicts_on_texts() -> None:
    same = (Spot("", position(1, *((one.token, one.logprob + 0.01) for one in MINE.top))), MINE)
    other = (Spot("a", position(8, (8, -0.1), (9, -2.5), (7, -4.0))), MINE)
    assert compare_text([same] * 4, 0.0, 1.0)[0] == AGREES
    assert compare_text([same, same, same, other], 0.0, 1.0)[0] == DOUBT  # may be split into tokens otherwise
    assert compare_text([same, other, other, other], 0.0, 1.0)[0] == FALSE
    assert compare_text([other], 0.0, 1.0)[0] == FALSE
    # True log-probabilities, but tokens that the model would not take.
    forced = (Spot("a", Position(Likely(4, "", math.log(0.05)), MINE.top)), MINE)
    assert compare_text([forced] * 3, 0.0, 1.0)[0] == FALSE
    assert compare_text([forced] * 3, 0.8, 0.95)[0] == AGREES
    silent = (Spot("", position(1)), MINE)
    assert compare_text([silent], 0.0, 1.0)[0] == FALSE
    assert compare_text([], 0.0, 1.0) == (AGREES, 0.0)


def test_a_conversation_is_made_again_up_to_a_drawn_length() -> None:
    chunks = [Chunk("x", (number,), (position(number, (number, -0.1)),)) for number in range(400)]
    lengths = {len(prefix(chunks, number.to_bytes(32, "big"))) for number in range(300)}
    assert 16 <= min(lengths) <= 20 and 250 <= max(lengths) <= 256
    assert [len(prefix(chunks[:few], bytes(32))) for few in (0, 1, 16)] == [0, 1, 16]


def test_two_answers_are_compared_until_they_part() -> None:
    told = [Spot("", position(number, (number, -0.1))) for number in (5, 6, 7, 8)]
    mine = [position(number, (number, -0.1)) for number in (5, 6, 9, 8, 8)]
    assert list(shared(told, mine)) == [0, 1, 2]
    assert list(shared(told, mine[:2])) == [0, 1]
    assert shared(told, []) == {}


def test_where_both_have_read_the_same_one_place_is_enough() -> None:
    same, other = (Spot("", MINE), MINE), (Spot("", position(8, (8, -0.1), (9, -2.5))), MINE)
    near = (Spot("", position(1, *((one.token, one.logprob + 0.2) for one in MINE.top))), MINE)
    assert compare_text([same] * 9, 0.8, 0.95, exact=True)[0] == AGREES
    assert compare_text([same] * 9 + [near], 0.8, 0.95, exact=True)[0] == DOUBT
    assert compare_text([same] * 9 + [other], 0.8, 0.95, exact=True)[0] == FALSE


# -- conviction --------------------------------------------------------------------------------------------------------
def test_own_runs_convict_at_once_only_beyond_any_drift() -> None:
    assert judge(Case(), AGREES, own_run=True) == Judgement.FINE
    assert judge(Case(), DOUBT, own_run=True) == Judgement.SUSPECT
    assert judge(Case(doubts=1), DOUBT, own_run=True) == Judgement.SUSPECT
    assert judge(Case(doubts=2), DOUBT, own_run=True) == Judgement.LIAR
    assert judge(Case(), FALSE, own_run=True) == Judgement.LIAR


def test_another_server_alone_convicts_nobody() -> None:
    assert judge(Case(doubts=9), DOUBT, own_run=False) == Judgement.SUSPECT
    assert judge(Case(), FALSE, own_run=False) == Judgement.ASK_A_THIRD
    assert judge(Case(), FALSE, own_run=False, third=(FALSE, AGREES)) == Judgement.LIAR
    assert judge(Case(), FALSE, own_run=False, third=(AGREES, FALSE)) == Judgement.OTHER_IS_LIAR
    for votes in ((FALSE, FALSE), (DOUBT, AGREES), (AGREES, AGREES), (FALSE, DOUBT)):
        assert judge(Case(), FALSE, own_run=False, third=votes) == Judgement.SUSPECT


def test_doubts_fade() -> None:
    case = Case().after(DOUBT).after(AGREES).after(DOUBT)
    assert case == Case(2, 0)
    for _ in range(DOUBTS_FADE):
        case = case.after(AGREES)
    assert case == Case(0, 0)
