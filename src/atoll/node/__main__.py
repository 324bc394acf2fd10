"""`python -m atoll.node --home DIR`: a node as a process (what `atoll node` runs)."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from atoll import config
from atoll.errors import AtollError, BadSetting
from atoll.logs import log_to, say_error


def serve(home: Path, overrides: Mapping[str, object], fresh_journal: bool, opponent: str, echo: bool) -> int:
    """Run a node until SIGTERM, SIGINT or `atoll stop`; returns the exit code."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        settings = config.load(home, os.environ, overrides)
        if not settings.rpc or not settings.registry:
            raise BadSetting(
                "A node needs a chain: give --rpc URL and --registry ADDRESS (`atoll up` prints both), "
                f"or put them into {home / 'config.toml'}."
            )
        log_to(home, settings.log_level, echo)
        from atoll.node.daemon import Node, Options  # imported here, so that a wrong setting is answered at once

        options = Options(fresh_journal, opponent, os.environ.get("ATOLL_PASSPHRASE"))
        node = Node(home, settings, options)

        async def run() -> None:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, node.stop)
            await node.run()

        asyncio.run(run())
    except AtollError as error:
        return say_error(error)
    return 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m atoll.node", description="A node of the network.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--opponent", default="")
    parser.add_argument("--fresh-journal", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    overrides = dict(pair.split("=", 1) for pair in options.set)
    return serve(options.home, overrides, options.fresh_journal, options.opponent, echo=False)


if __name__ == "__main__":
    sys.exit(main())
