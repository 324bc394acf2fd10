"""A peer in a process of its own: `peer_process.py SEED [LISTEN]` writes its endpoint id and addresses, then serves.

Protocols: /atoll/echo/1 answers what it got; /atoll/make/1 answers as many bytes as the request says (decimal);
/atoll/hang/1 never answers; /atoll/fail/1 fails in its handler; /atoll/no/1 refuses.
"""

from __future__ import annotations

import asyncio
import json
import sys

from atoll.errors import Refused
from atoll.node.transport import Limits, Transport
from atoll.wire.reasons import Reason


async def echo(_peer: bytes, payload: bytes) -> bytes:
    return payload


async def make(_peer: bytes, payload: bytes) -> bytes:
    return bytes(i % 251 for i in range(1 << 16))[: int(payload)].ljust(int(payload), b"\x07")


async def hang(_peer: bytes, _payload: bytes) -> bytes:
    await asyncio.Event().wait()
    return b""


async def fail(_peer: bytes, _payload: bytes) -> bytes:
    raise ZeroDivisionError("a mistake in a handler")


async def refuse(_peer: bytes, _payload: bytes) -> bytes:
    raise Refused(Reason.PAUSED)


async def main(seed: int, listen: str) -> None:
    handlers = {
        b"/atoll/echo/1": echo,
        b"/atoll/make/1": make,
        b"/atoll/hang/1": hang,
        b"/atoll/fail/1": fail,
        b"/atoll/no/1": refuse,
    }
    limits = Limits(request_bytes=1 << 20, request_bytes_of={b"/atoll/echo/1": 6 << 20})
    transport = await Transport.start(bytes([seed] * 32), listen, handlers, limits)
    sys.stdout.write(json.dumps([transport.endpoint_id.hex(), transport.addresses()]) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:0"))
