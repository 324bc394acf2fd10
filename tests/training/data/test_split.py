"""What is held out: as often as asked for, the same each time, and whole groups where there are groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import BadInput
from atoll.training.data.split import by_group, hold_out, hold_out_groups
from atoll.wire.generator import Generator

ROOT = bytes(range(32))


def test_the_first_of_the_drawn_order_are_held_out() -> None:
    order = Generator(ROOT, b"held-out").permutation(10).tolist()
    train, held = hold_out(ROOT, 10, 0.3)
    assert held.tolist() == sorted(order[:3])
    assert train.tolist() == sorted(order[3:])


@settings(max_examples=50)
@given(count=st.integers(2, 300), share=st.floats(0.001, 0.999))
def test_every_sample_is_in_one_part(count: int, share: float) -> None:
    if round(count * share) == count:
        with pytest.raises(BadInput, match="leaves one part empty"):
            hold_out(ROOT, count, share)
        return
    train, held = hold_out(ROOT, count, share)
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(count))
    assert len(held) == max(1, round(count * share))


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, 2.0, float("nan")])
def test_shares_that_leave_a_part_empty(share: float) -> None:
    with pytest.raises(BadInput, match="leaves one part empty"):
        hold_out(ROOT, 10, share)
    with pytest.raises(BadInput, match="leaves one part empty"):
        hold_out_groups(ROOT, ["a", "b"], share)


def test_other_samples_draw_others() -> None:
    assert hold_out(ROOT, 100, 0.1)[1].tolist() != hold_out(bytes(32), 100, 0.1)[1].tolist()


@settings(max_examples=50)
@given(groups=st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=80), share=st.floats(0.05, 0.9))
def test_whole_groups_are_held_out(groups: list[str], share: float) -> None:
    if len(set(groups)) < 2:
        with pytest.raises(BadInput, match="at least two groups"):
            hold_out_groups(ROOT, groups, share)
        return
    if round(len(groups) * share) == len(groups):
        return
    train, held = hold_out_groups(ROOT, groups, share)
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(len(groups)))
    kept, out = [groups[i] for i in train], [groups[i] for i in held]
    assert kept
    assert out
    assert not set(kept) & set(out)
    assert kept == sorted(kept)
    for name in set(kept):  # within a group, the order of the files
        places = [int(i) for i in train if groups[i] == name]
        assert places == sorted(places)
    smallest = min(groups.count(name) for name in groups)
    assert len(out) <= max(smallest, round(len(groups) * share))


def test_sorting_by_group_keeps_neighbours_in_order() -> None:
    assert by_group(["b", "a", "b", "a", "c"]).tolist() == [1, 3, 0, 2, 4]
    assert by_group(["10", "9"]).dtype == np.int64
