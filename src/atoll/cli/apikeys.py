"""`atoll key api add`, `list` and `remove`: who may use a node's API, and how much each may spend."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from atoll.cli import homes
from atoll.cli.commands import AsJson, Home, tell
from atoll.errors import BadInput
from atoll.ledger.receipts import TOKEN, amount_from_text, amount_text

GATEWAY = "gateway"  # the home of the gateway of `atoll up`, inside its base folder

Name = Annotated[str, typer.Argument(help="What the key is called: letters, digits, dots, dashes, underscores.")]


def add_api_key(
    name: Name,
    limit: Annotated[
        str | None, typer.Option(metavar="TOKENS", help="What its answers may cost in all. Default: no limit.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> int:
    """Make a key for the API and print it; it is not shown again.

    As soon as there is one key, nobody is answered without one. A running node notices at once.
    """
    from atoll.gateway.openai.keys import add_key

    most = None if limit is None else amount_from_text(limit)
    if most == 0:
        raise BadInput("--limit 0 would refuse every question: expected more, or no limit at all.")
    place = api_home(homes.base(home))
    text = add_key(place, name, most)
    allowed = "may spend without limit" if most is None else f"may spend {amount_text(most)} {TOKEN} in all"
    if not as_json:
        sys.stderr.write(f"atoll: the key {name!r} {allowed}. Keep it: it is not shown again.\n")
    tell(as_json, {"name": name, "key": text, "limit": None if most is None else str(most), "home": str(place)}, text)
    return 0


def list_api_keys(home: Home = None, as_json: AsJson = False) -> int:
    """List the keys of the API: what each may spend and has spent."""
    from atoll.gateway.openai.keys import Keys, read_keys

    place = api_home(homes.base(home))
    counts = Keys(place)
    found = [{"name": key.name, "limit": key.limit, "spent": str(counts.spent(key))} for key in read_keys(place)]
    counts.close()
    if not found:
        tell(as_json, found, f"There are no keys in {place}: only programs on this device are answered.")
        return 0
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("key", f"limit ({TOKEN})", f"spent ({TOKEN})"):
        table.add_column(heading, justify="left" if heading == "key" else "right")
    for one in found:
        limit = "none" if one["limit"] is None else amount_text(int(one["limit"]))
        table.add_row(Text(str(one["name"]), style="bold"), limit, amount_text(int(str(one["spent"]))))
    tell(as_json, found, table)
    return 0


def remove_api_key(name: Name, home: Home = None, as_json: AsJson = False) -> int:
    """Take a key back: whoever has it is refused from the next question on."""
    from atoll.gateway.openai.keys import read_keys, remove_key

    place = api_home(homes.base(home))
    remove_key(place, name)
    left = len(read_keys(place))
    told = f"{left} left" if left else "none is left: only programs on this device are answered now"
    tell(as_json, {"removed": name, "left": left}, f"The key {name!r} is refused from now on; {told}.")
    return 0


def api_home(base: Path) -> Path:
    """The home whose API is meant: the gateway's of `atoll up`, else the one node's."""
    return base / GATEWAY if (base / GATEWAY).is_dir() else homes.keys_in(base)
