"""Simulated time."""

from __future__ import annotations

import asyncio

import pytest

from atoll.errors import InternalError
from atoll.sim.clock import Clock, at_once


def test_things_happen_in_order() -> None:
    clock, seen = Clock(), []
    for delay in (3.0, 1.0, 2.0, 1.0):
        clock.after(delay, lambda at=delay: seen.append((clock.now, at)))  # type: ignore[misc]
    clock.run(10.0, lambda: False)
    assert seen == [(1.0, 1.0), (1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]


def test_equal_times_keep_their_order() -> None:
    clock, seen = Clock(), []
    for name in "abc":
        clock.after(1.0, lambda name=name: seen.append(name))  # type: ignore[misc]
    clock.run(1.0, lambda: False)
    assert seen == ["a", "b", "c"]


def test_delays_count_from_now() -> None:
    clock, seen = Clock(), []

    def again() -> None:
        seen.append(clock.now)
        clock.after(0.5, again)

    clock.after(0.5, again)
    clock.run(2.2, lambda: False)
    assert seen == [0.5, 1.0, 1.5, 2.0]


def test_what_is_due_later_waits_for_the_next_run() -> None:
    clock, seen = Clock(), []
    clock.after(5.0, lambda: seen.append(clock.now))
    clock.run(4.0, lambda: False)
    assert seen == []
    clock.run(6.0, lambda: False)
    assert seen == [5.0]


def test_it_stops_when_it_is_told() -> None:
    clock, seen = Clock(), []
    for delay in range(10):
        clock.after(float(delay), lambda: seen.append(clock.now))
    clock.run(100.0, lambda: len(seen) == 3)
    assert seen == [0.0, 1.0, 2.0]


def test_work_that_waits_for_nothing() -> None:
    async def inner(value: int) -> int:
        return value + 1

    async def outer() -> int:
        return await inner(1) * 10

    assert at_once(outer()) == 20


def test_work_that_waits_is_a_mistake() -> None:
    async def waits() -> None:
        await asyncio.sleep(0)

    with pytest.raises(InternalError, match="waited"):
        at_once(waits())


def test_errors_of_the_work_come_through() -> None:
    async def fails() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        at_once(fails())
