"""Simulated time: a queue of things to happen, in order, without waiting."""

from __future__ import annotations

import heapq
from collections.abc import Callable


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
        """Run until `finished()` or the time `until`."""
        while self._queue and not finished():
            time, _, action = heapq.heappop(self._queue)
            if time > until:
                return
            self.now = time
            action()
