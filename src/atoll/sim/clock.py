"""Simulated time: a queue of things to happen, in order, without waiting."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from atoll.errors import InternalError

Value = TypeVar("Value")


class Clock:
    """`now` is in simulated seconds; `run` takes the next thing to happen until the queue or the time is up."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, delay: float, action: Callable[[], None]) -> None:
        """Do `action` so many seconds from now; equal times keep their order."""
        self._count += 1
        heapq.heappush(self._queue, (self.now + delay, self._count, action))

    def run(self, until: float, finished: Callable[[], bool]) -> None:
        """Run until `finished()` or the time `until`; what is due later stays in the queue."""
        while self._queue and self._queue[0][0] <= until and not finished():
            time, _, action = heapq.heappop(self._queue)
            self.now = time
            action()


def at_once(work: Coroutine[Any, Any, Value]) -> Value:
    """Run the nodes' asynchronous code where nothing waits; raises InternalError if it does."""
    try:
        work.send(None)
    except StopIteration as stop:
        value: Value = stop.value
        return value
    work.close()
    raise InternalError("simulated work waited for something")
