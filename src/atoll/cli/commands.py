"""The commands that talk to a running node of this device. Each returns the exit code."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from atoll import config
from atoll.cli import answers, homes
from atoll.errors import BadInput, NotRunning
from atoll.ledger.receipts import TOKEN, amount_text

Json = Any
LONG_SECONDS = 900.0  # bringing a large model together may take a while

Home = Annotated[
    Path | None,
    typer.Option("--home", metavar="DIR", help="Home of a node or of `atoll up`. Default: $ATOLL_HOME, or ~/.atoll."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; amounts are base units, 10^18 to a token.")]


def tell(as_json: bool, found: Json, view: RenderableType | str) -> None:
    """Print an answer: JSON for programs, the view for people."""
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    elif isinstance(view, str):
        sys.stdout.write(view + "\n")
    else:
        Console(highlight=False).print(view)


def waiting(text: str) -> AbstractContextManager[object]:
    """A spinner on a terminal, nothing elsewhere; on stderr, so that what is printed can be piped."""
    console = Console(stderr=True)
    return console.status(text) if console.is_terminal else contextlib.nullcontext()


def ask(
    home: Path | None, method: str, text: str, params: Mapping[str, Json] | None = None, timeout: float = 30.0
) -> Json:
    with waiting(text):
        return homes.ask(homes.base(home), method, params, timeout)


def status(home: Home = None, as_json: AsJson = False) -> int:
    """Show a running node: its account, roles, jobs, traffic and money."""
    place = homes.base(home)
    with waiting("Asking the node"):
        found_at, found = homes.ask_from(place, "status")
    tell(as_json, found, answers.status_view(found, found_at))
    others = [path for path in homes.nodes_in(place) if path != found_at]
    if others and not as_json:
        sys.stdout.write(f"\n{len(others)} more in {place}, for instance: atoll status --home {others[0]}\n")
    return 0


def stop(home: Home = None, as_json: AsJson = False) -> int:
    """End a node, or a whole `atoll up` with its nodes and its chain."""
    place = homes.base(home)
    pid = homes.supervisor(place)
    if pid is not None:
        with waiting("Waiting until the network has ended"):
            homes.stop_supervisor(place, pid)
        tell(as_json, {"stopping": True, "pid": pid}, f"The network in {place} has ended; `atoll up` resumes it.")
        return 0
    stopped = []
    for path in homes.nodes_in(place):
        with contextlib.suppress(NotRunning):
            homes.ask_node(path, "stop")
            stopped.append(str(path))
    if not stopped:
        raise homes.nothing_runs(place)
    tell(as_json, {"stopping": True, "homes": stopped}, f"Stopping: {', '.join(stopped)}.")
    return 0


def pause(home: Home = None, as_json: AsJson = False) -> int:
    """Take no new work; what the node has promised is still done."""
    text = "Paused: this node finishes what it promised and takes nothing new. `atoll resume` ends the pause."
    tell(as_json, ask(home, "pause", "Pausing"), text)
    return 0


def resume(home: Home = None, as_json: AsJson = False) -> int:
    """Take work again after `atoll pause`."""
    tell(as_json, ask(home, "resume", "Resuming"), "Resumed: this node takes work again.")
    return 0


def claim(home: Home = None, as_json: AsJson = False) -> int:
    """Bring earned pay to the node's account on the chain."""
    found = ask(home, "claim", "Claiming on the chain", timeout=180.0)
    amount = int(found["claimed"])
    tell(as_json, found, str(found["note"]) if not amount else f"Claimed {amount_text(amount)} {TOKEN}.")
    return 0


def statement(
    account: Annotated[str | None, typer.Argument(help="0x and 40 digits. Default: the node's own account.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> int:
    """Show what an account was paid for, and what was refused and why."""
    found = ask(home, "statement", "Reading the receipts", {"account": account} if account else {})
    tell(as_json, found, answers.statement_view(found))
    return 0


def explain(home: Home = None, as_json: AsJson = False) -> int:
    """Recompute all payments from the published receipts; ends with 1 if the chain says otherwise."""
    found = ask(home, "explain", "Recomputing every payment", timeout=LONG_SECONDS)
    tell(as_json, found, answers.explain_view(found))
    return 0 if found["explain"] == "match" else 1


def get(
    blob: Annotated[str, typer.Argument(metavar="ID", help="Blob id: 64 hexadecimal digits.")],
    out: Annotated[Path | None, typer.Argument(help="File to write. Default: the id's first 16 digits + .bin.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> int:
    """Bring stored bytes back from the nodes that hold their pieces."""
    path = (out or Path(f"{blob.removeprefix('0x')[:16]}.bin")).expanduser().absolute()
    if path.is_dir() or not path.parent.is_dir():
        raise BadInput(f"{path} cannot be written: expected the name of a file in a folder that exists.")
    if path.exists() and not force:
        raise BadInput(f"{path} exists already: give another name, or --force to replace it.")
    params = {"blob": blob, "out": str(path)}
    found = ask(home, "get", "Collecting pieces from the holders", params, LONG_SECONDS)
    tell(as_json, found | {"out": str(path)}, f"{found['bytes']} bytes in {path}.")
    return 0


def put(
    file: Annotated[Path, typer.Argument(help="File to store; anyone who knows its id can read it.")],
    home: Home = None,
    as_json: AsJson = False,
) -> int:
    """Cut a file into pieces and hand them to holders."""
    found = ask(home, "put", "Handing pieces to holders", {"file": readable(file)}, LONG_SECONDS)
    text = (
        f"{found['blob']}\nin {found['n']} pieces, any {found['k']} of which bring it back: atoll get {found['blob']}"
    )
    tell(as_json, found, text)
    return 0


def settings(as_json: AsJson = False) -> int:
    """List every setting of a node with its default, unit and range."""
    rows = config.rows()
    found = [dict(zip(("name", "default", "unit", "sentence"), row, strict=True)) for row in rows]
    tell(as_json, found, answers.settings_view())
    return 0


def readable(file: Path) -> str:
    """The absolute path of a file that can be read; raises BadInput."""
    path = file.expanduser().absolute()
    try:
        with path.open("rb"):
            return str(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}): expected a file.") from error
