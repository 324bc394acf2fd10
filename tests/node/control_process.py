"""A node's control channel in a process of its own: `control_process.py HOME`; says "ready" and serves until killed."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from atoll.node.control import ControlServer


async def status(_params: dict[str, Any]) -> Any:
    return {"pid": os.getpid()}


async def hang(_params: dict[str, Any]) -> Any:
    sys.stdout.write("asked\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


async def main(home: Path) -> None:
    server = await ControlServer.start(home, {"status": status, "hang": hang})
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()
    await server.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
