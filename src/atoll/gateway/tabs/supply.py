"""Brings blobs from the network for tabs: each once, a few at a time, and not for more than a few who wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from atoll.errors import Corrupt, Refused, Unreachable
from atoll.gateway.tabs.limits import FETCHES_AT_ONCE, FETCHES_WAITING
from atoll.wire.reasons import Reason

if TYPE_CHECKING:
    from pathlib import Path

    from atoll.node.daemon import Node


class Supply:
    """The gateway's way to what its tabs ask for."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._turn = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._waiting = 0
        self._under_way: dict[bytes, asyncio.Task[bytes]] = {}

    def sources(self) -> list[bytes]:
        """Whom to ask: every node once, seeds of jobs first."""
        seeds = [known.seed for known in self._node.view.jobs.values()]
        return list(dict.fromkeys((*seeds, *self._node.directory.reached())))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn to ask the network; raises Refused(BUSY) when too many wait."""
        if self._waiting >= FETCHES_WAITING:
            raise Refused(Reason.BUSY, "too many tabs wait for the network; try again in a moment")
        self._waiting += 1
        try:
            async with self._turn:
                yield
        finally:
            self._waiting -= 1

    async def blob(self, blob: bytes) -> Path:
        """The file of a blob, which is fetched first if it is not here or damaged; raises Refused or Unreachable."""
        blobs = self._node.blobs
        try:
            blobs.read(blob, 0, 1)  # checks the file when it is read for the first time
        except (Refused, Corrupt):
            task = self._under_way.get(blob)
            if task is None:
                task = self._under_way[blob] = asyncio.create_task(self._fetch(blob))
                task.add_done_callback(lambda _: self._under_way.pop(blob, None))
            await asyncio.shield(task)  # who closes a page does not take the blob from the others
        return blobs.path(blob)

    async def _fetch(self, blob: bytes) -> bytes:
        try:
            async with self.turn():
                return await self._node.library.fetch(blob, self.sources())
        except Refused as refusal:
            if refusal.reason is not Reason.NOT_FOUND:
                raise
            raise Unreachable(f"Nobody has blob {blob.hex()[:8]} now. Ask again in a moment.") from None
