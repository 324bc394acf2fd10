"""`python -m atoll.node --home DIR`: a node as a process (what `atoll node` runs)."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from atoll import config
from atoll.errors import AtollError, BadSetting
from atoll.logs import log_to, say_error

if TYPE_CHECKING:
    from atoll.node.daemon import Node


@dataclass(frozen=True)
class Start:
    """How a node is started, beside its settings: see `atoll.node.daemon.Options`; `echo` shows the log."""

    fresh_journal: bool = False
    opponent: str = ""
    echo: bool = False
    beside: Callable[[Node], AbstractAsyncContextManager[object]] | None = None


def serve(home: Path, overrides: Mapping[str, object], start: Start) -> int:
    """Run a node until SIGTERM, SIGINT or `atoll stop`; returns the exit code."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        settings = config.load(home, os.environ, overrides)
        if not settings.rpc or not settings.registry:
            raise BadSetting(
                "A node needs a chain: give --rpc URL and --registry ADDRESS (`atoll up` prints both), "
                f"or put them into {home / config.FILE_NAME}."
            )
        log_to(home, settings.log_level, start.echo)
        from atoll.node.daemon import Node, Options  # imported here, so that a wrong setting is answered at once

        options = Options(start.fresh_journal, start.opponent, os.environ.get("ATOLL_PASSPHRASE"), start.beside)
        node = Node(home, settings, options)

        async def run() -> None:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, node.stop)
            await node.run()

        asyncio.run(run())
    except AtollError as error:
        return say_error(error)
    return 0


def parser(prog: str) -> argparse.ArgumentParser:
    """The command line of a node process."""
    found = argparse.ArgumentParser(prog=prog, description="A node of the network.")
    found.add_argument("--home", type=Path, required=True)
    found.add_argument("--opponent", default="")
    found.add_argument("--fresh-journal", action="store_true")
    found.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    return found


def main() -> int:
    """The command line."""
    options = parser("python -m atoll.node").parse_args()
    overrides = dict(pair.split("=", 1) for pair in options.set)
    return serve(options.home, overrides, Start(options.fresh_journal, options.opponent))


if __name__ == "__main__":
    sys.exit(main())
