"""Dishonest workers: their claims hold together, and only recomputation tells."""

from __future__ import annotations

import numpy as np
import pytest

from atoll.errors import BadSetting
from atoll.training.events import Examine, Examined, Replayed, Rerun, Trained
from atoll.training.opponents import ATTACKS, NOISE, attack
from atoll.wire.hashing import keccak
from atoll.wire.messages import Reveal

from .bench import ACCOUNTS, Shelf, run, softmax, unit, vector
from .test_workbench import update_by_hand

OTHERS = tuple(ACCOUNTS[1:])


def claimed(name: str) -> tuple[Shelf, Trained]:
    shelf = Shelf()
    return shelf, run(attack(name, shelf.bench, unit(), shelf.model, OTHERS))


@pytest.mark.parametrize("name", ATTACKS)
def test_claims_hold_together(name: str) -> None:
    shelf, found = claimed(name)
    assert found.unit == unit().id
    assert found.states[0] == shelf.model
    assert len(found.states) == 3
    assert all(len(shelf.blobs[state]) == softmax().manifest.state_bytes for state in found.states[1:])
    assert shelf.blobs[found.update] == update_by_hand(shelf.blobs[found.states[-1]], softmax().initial)
    assert claimed(name)[1] == found


@pytest.mark.parametrize(("name", "segment"), [("random", 1), ("lazy", 2)])
def test_recomputation_tells(name: str, segment: int) -> None:
    shelf, found = claimed(name)
    opened = Reveal(keccak(b"job"), 0, found.unit, found.states, found.update, bytes(32))
    unaudited = run(shelf.bench.carry_out(Examine(b"", unit(), opened, ()), shelf.model, OTHERS))
    assert unaudited == Examined(b"", 0)
    honest = run(shelf.bench.train(unit(), shelf.model, OTHERS))
    audited = run(shelf.bench.carry_out(Examine(b"", unit(), opened, honest.states), shelf.model, OTHERS))
    assert audited == Examined(b"", 255)
    replay = run(shelf.bench.carry_out(Rerun(unit(), opened), shelf.model, OTHERS))
    assert isinstance(replay, Replayed)
    assert replay.segment == segment


def test_noise_is_as_large_as_an_honest_update() -> None:
    shelf, found = claimed("random")
    for state in found.states[1:]:
        noise = vector(shelf.blobs[state]) - vector(softmax().initial)
        assert np.abs(noise).max() <= NOISE
        assert noise.std() == pytest.approx(NOISE / 3**0.5, rel=0.05)  # uniform
    assert len(set(found.states)) == 3


def test_the_lazy_do_half() -> None:
    shelf, found = claimed("lazy")
    honest = run(shelf.bench.train(unit(), shelf.model, OTHERS))
    assert found.states == (honest.states[0], honest.states[1], honest.states[1])


@pytest.mark.parametrize("name", ATTACKS)
def test_claims_about_a_light_unit(name: str) -> None:
    shelf, small = Shelf(), unit(segments=1)
    found = run(attack(name, shelf.bench, small, shelf.model, OTHERS))
    assert len(found.states) == 2
    opened = Reveal(keccak(b"job"), 0, found.unit, found.states, found.update, bytes(32))
    replay = run(shelf.bench.carry_out(Rerun(small, opened), shelf.model, OTHERS))
    assert isinstance(replay, Replayed)
    assert replay.segment == 1  # half of one segment is none


def test_an_unknown_attack() -> None:
    shelf = Shelf()
    with pytest.raises(BadSetting, match=r"'clever' is not an attack.*random, lazy"):
        run(attack("clever", shelf.bench, unit(), shelf.model, OTHERS))
