"""`python -m atoll.ledger.devnet --home DIR --host 127.0.0.1 --port 8545`: the embedded chain as a process.

Prints one JSON line with the endpoint and the contracts once it answers, and runs until SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from atoll.errors import AtollError


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m atoll.ledger.devnet", description="A chain for one machine.")
    parser.add_argument("--home", type=Path, required=True, help="directory that holds the chain")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8545, help="port to listen on; 0 takes a free one")
    parser.add_argument("--chain-id", type=int, default=31337, help="chain id of a new chain")
    parser.add_argument("--window", type=int, default=3, help="seconds in which an epoch can be challenged (new chain)")
    parser.add_argument("--grace", type=int, default=60, help="seconds after a job's deadline to settle it (new chain)")
    parser.add_argument("--test-methods", action="store_true", help="offer evm_increaseTime and evm_mine to anybody")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chain; returns the exit code."""
    options = arguments(argv)
    try:
        return _run(options)
    except AtollError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def _run(options: argparse.Namespace) -> int:
    # Imported here, so that `--help` and a port in use are answered at once.
    from atoll.ledger.devnet.network import Devnet, Terms
    from atoll.ledger.devnet.server import Producer, Server

    server = Server(options.host, options.port, lambda _: b"")
    terms = Terms(chain_id=options.chain_id, window=options.window, grace=options.grace)
    devnet = Devnet(options.home, terms, time.time, options.test_methods)
    producer = Producer(devnet.evm, devnet.rpc.lock, time.time)
    devnet.rpc.on_transaction = producer.wake
    server.answer = devnet.rpc.handle
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: producer.stop())
    server.start()
    sys.stdout.write(json.dumps({"rpc": server.url, **asdict(devnet.network)}) + "\n")
    sys.stdout.flush()
    producer.run()
    server.shutdown()
    with devnet.rpc.lock:
        devnet.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
