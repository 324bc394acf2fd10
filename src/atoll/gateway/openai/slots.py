"""How many answers are made at the same time, how many requests may wait for their turn, how many bytes they hold."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from atoll.gateway.openai.faults import RETRY_SECONDS, ApiError

_RETRY = {"Retry-After": str(RETRY_SECONDS)}


class Slots:
    """At most `running` at once, at most `waiting` behind them (in the order of arrival), for `seconds` at most."""

    def __init__(self, running: int, waiting: int, seconds: float) -> None:
        self._free = asyncio.Semaphore(running)
        self._room, self._seconds = waiting, seconds
        self.waiting = self.running = 0

    @contextlib.asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Holds one slot. Raises ApiError: 429 when too many wait already, 503 when the turn does not come in time."""
        if self._free.locked() and self.waiting >= self._room:
            told = f"{self.waiting} requests wait already: ask again in a few seconds."
            raise ApiError(429, told, "too_many_requests", headers=_RETRY)
        self.waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                await self._free.acquire()
        except TimeoutError:
            told = f"The models are busy: no turn came within {self._seconds:g} seconds. Ask again later."
            raise ApiError(503, told, "busy", headers=_RETRY) from None
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._free.release()


class Room:
    """Bytes that the bodies of all requests may hold together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def take(self, amount: int) -> None:
        """Hold more; raises ApiError 429 when there is no room."""
        if self.held + amount > self._most:
            told = "Too many bytes are being read from others: ask again in a few seconds."
            raise ApiError(429, told, "too_many_requests", headers=_RETRY)
        self.held += amount

    def give_back(self, amount: int) -> None:
        """Hold less."""
        self.held -= amount
