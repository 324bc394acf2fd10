"""`python -m atoll.gateway --home DIR`: a node with the dashboard and the other services over HTTP beside it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from atoll.node.__main__ import Start, parser
from atoll.node.__main__ import serve as serve_node

if TYPE_CHECKING:
    from atoll.node.daemon import Node


def beside(node: Node) -> AbstractAsyncContextManager[object]:
    """What runs beside a node: HTTP, if its setting `http` names an address."""
    if not node.settings.http:
        return nullcontext()
    from atoll.gateway.server import Gateway

    return Gateway(node).running()


def serve(home: Path, overrides: Mapping[str, object], start: Start) -> int:
    """Run a node and, if its settings ask for it, HTTP beside it, until it is stopped; returns the exit code."""
    return serve_node(home, overrides, replace(start, beside=beside))


def main() -> int:
    """The command line."""
    options = parser("python -m atoll.gateway").parse_args()
    overrides = dict(pair.split("=", 1) for pair in options.set)
    return serve(options.home, overrides, Start(options.fresh_journal, options.opponent))


if __name__ == "__main__":
    sys.exit(main())
