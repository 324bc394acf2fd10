"""Faults: drawn as often as they should be, and the same for the same seed."""

from __future__ import annotations

from math import sqrt

import msgspec
import pytest

from atoll.sim.faults import Crash, Dice, Faults, Partition

DRAWS = 4_000


def copies(faults: Faults, seed: int = 1) -> list[list[float]]:
    dice = Dice(faults, seed)
    return [dice.deliveries() for _ in range(DRAWS)]


def test_a_good_network_delivers_once() -> None:
    assert copies(Faults(delay=0.0)) == [[0.0]] * DRAWS


@pytest.mark.parametrize("chance", [0.05, 0.2, 0.5])
def test_messages_are_lost_as_often_as_asked(chance: float) -> None:
    lost = sum(not found for found in copies(Faults(drop=chance)))
    assert abs(lost - chance * DRAWS) < 4 * sqrt(DRAWS * chance * (1 - chance))


def test_messages_are_doubled_as_often_as_asked() -> None:
    twice = sum(len(found) == 2 for found in copies(Faults(duplicate=0.3)))
    assert abs(twice - 0.3 * DRAWS) < 4 * sqrt(DRAWS * 0.3 * 0.7)


def test_latency_has_its_mean_and_is_exponential() -> None:
    drawn = [latency for found in copies(Faults(delay=0.05)) for latency in found]
    mean = sum(drawn) / len(drawn)
    assert abs(mean - 0.05) < 4 * 0.05 / sqrt(DRAWS)
    above = sum(latency > 0.05 for latency in drawn) / DRAWS
    assert abs(above - 0.3679) < 0.03  # 1 / e


def test_the_same_seed_draws_the_same() -> None:
    faults = Faults(drop=0.2, duplicate=0.2)
    assert copies(faults, 3) == copies(faults, 3)
    assert copies(faults, 3) != copies(faults, 4)


def test_partitions() -> None:
    dice = Dice(Faults(partitions=(Partition(1.0, 2.0, (0, 1)), Partition(1.5, 3.0, (2,)))), 1)
    # time -> pairs that are cut
    assert not dice.cut(0, 3, 0.9)
    assert dice.cut(0, 3, 1.0)
    assert dice.cut(3, 0, 1.0)
    assert not dice.cut(0, 1, 1.7)
    assert not dice.cut(3, 4, 1.7)
    assert dice.cut(2, 3, 1.7)
    assert not dice.cut(0, 3, 2.0)
    assert dice.cut(2, 0, 2.5)
    assert not dice.cut(2, 0, 3.0)


def test_the_form_of_the_file() -> None:
    read = msgspec.toml.decode(
        b'drop = 0.1\nslow = { 3 = 2.0 }\nliars = { 2 = "lazy" }\ncrashes = [{ at = 1.0, leader = true }]', type=Faults
    )
    assert read == Faults(drop=0.1, slow={"3": 2.0}, liars={"2": "lazy"}, crashes=(Crash(at=1.0, leader=True),))
    for bad in (b'liars = { 2 = "clever" }', b"dorp = 0.1", b"crashes = [{ node = 1 }]"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.toml.decode(bad, type=Faults)
