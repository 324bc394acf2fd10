from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.transfer.meter import Meter, Traffic

ALICE, BOB = b"\x01" * 20, b"\x02" * 20


def test_bytes_are_summed_by_peer_and_room() -> None:
    meter = Meter().add(ALICE, "storage", up=5).add(BOB, "storage", down=7).add(ALICE, "training", up=1, down=2)
    assert meter.total() == Traffic(6, 9)
    assert meter.by_peer() == {ALICE: Traffic(6, 2), BOB: Traffic(0, 7)}
    assert meter.by_room() == {"storage": Traffic(5, 7), "training": Traffic(1, 2)}


def test_a_meter_does_not_change() -> None:
    before = Meter().add(ALICE, "storage", up=5)
    before.add(ALICE, "storage", up=100)
    assert before.total() == Traffic(5, 0)


def test_an_empty_meter() -> None:
    assert Meter().total() == Traffic(0, 0)
    assert Meter().by_peer() == {} and Meter().by_room() == {}


@pytest.mark.parametrize(("up", "down"), [(-1, 0), (0, -1)])
def test_counts_only_grow(up: int, down: int) -> None:
    with pytest.raises(ValueError, match="upwards only"):
        Meter().add(ALICE, "storage", up, down)


MOVES = st.lists(
    st.tuples(st.sampled_from([ALICE, BOB]), st.sampled_from("ab"), st.integers(0, 99), st.integers(0, 99))
)


@given(moves=MOVES, more=MOVES)
def test_every_view_has_the_same_sum(
    moves: list[tuple[bytes, str, int, int]], more: list[tuple[bytes, str, int, int]]
) -> None:
    def counted(entries: list[tuple[bytes, str, int, int]]) -> Meter:
        meter = Meter()
        for entry in entries:
            meter = meter.add(*entry)
        return meter

    meter = counted(moves).merge(counted(more))
    assert meter == counted(moves + more)
    expected = Traffic(sum(move[2] for move in moves + more), sum(move[3] for move in moves + more))
    assert meter.total() == expected
    assert sum(meter.by_peer().values(), Traffic()) == sum(meter.by_room().values(), Traffic()) == expected
