"""Brings training messages to peers: everything that waits for the same peer travels in one request.

A request of `/atoll/training/1` is a msgpack array of envelopes, its response the array of refusals (empty when all
were taken). A peer that does not answer loses what was sent: the round says it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated

import msgspec

from atoll.errors import AtollError, Refused
from atoll.wire import messages, rpc
from atoll.wire.reasons import Reason
from atoll.wire.rpc import Ask

log = logging.getLogger(__name__)

BATCH_MESSAGES = 64
BATCH_BYTES = messages.LARGEST
MAX_REQUEST = messages.LARGEST + (1 << 20)
WAITING_MESSAGES = 1024
WAITING_BYTES = 4 * messages.LARGEST
RETRY_SECONDS = 0.5

_BATCH = msgspec.msgpack.Decoder(Annotated[list[bytes], msgspec.Meta(max_length=BATCH_MESSAGES)])


class Courier:
    """One queue and one task a peer; `send` never waits."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._waiting: dict[bytes, list[bytes]] = {}
        self._tasks: dict[bytes, asyncio.Task[None]] = {}

    def send(self, account: bytes, raw: bytes) -> None:
        """Queue an envelope for a peer; the oldest are dropped when it has been away for long."""
        queue = self._waiting.setdefault(account, [])
        if raw in queue:
            return
        if len(raw) > messages.LARGEST:
            log.warning("a message of %d bytes is too large to be sent", len(raw))
            return
        queue.append(raw)
        while len(queue) > WAITING_MESSAGES or sum(map(len, queue)) > WAITING_BYTES:
            del queue[0]
        task = self._tasks.get(account)
        if task is None or task.done():
            self._tasks[account] = asyncio.create_task(self._deliver(account))

    async def _deliver(self, account: bytes) -> None:
        queue = self._waiting[account]
        while queue:
            batch: list[bytes] = []
            size = 0
            while queue and len(batch) < BATCH_MESSAGES and size + len(queue[0]) <= BATCH_BYTES:
                size += len(queue[0])
                batch.append(queue.pop(0))
            try:
                answer = rpc.decode_response(await self._ask(account, messages.ALPN, rpc.encode_body(batch)))
                for reason, detail in rpc.decode_body(list[tuple[int, str]], answer):
                    log.info("%s refused a message: %s %.200r", account.hex()[:8], reason, detail)
            except AtollError as error:
                log.debug("%d messages for %s were lost: %s", len(batch), account.hex()[:8], error)
                await asyncio.sleep(RETRY_SECONDS)  # a dead peer must not keep this node busy

    async def close(self) -> None:
        """Stop delivering."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


def receive(payload: bytes, take: Callable[[bytes], None]) -> bytes:
    """Answer a batch: `take` gets each envelope and raises Refused for those that it does not want."""
    try:
        batch = _BATCH.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return rpc.encode_refusal(Reason.MALFORMED, f"a batch of envelopes was expected: {error}")
    refused = []
    for raw in batch:
        try:
            take(raw)
        except Refused as refusal:
            refused.append((int(refusal.reason), refusal.detail[:200]))
    return rpc.encode_ok(rpc.encode_body(refused))
