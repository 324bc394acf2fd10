"""`atoll data`: data sets of this device are added, listed, shown and checked."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from atoll.cli import homes
from atoll.cli.commands import tell, waiting
from atoll.errors import AtollError, BadInput

Json = Any

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the data set; mnist is the bundled one.")]
Base = Annotated[Path | None, typer.Option("--home", metavar="DIR", help="Default: $ATOLL_HOME, or ~/.atoll.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Format(StrEnum):
    """What the files are."""

    csv = "csv"
    parquet = "parquet"
    npz = "npz"
    idx = "idx"
    images = "images"
    text = "text"


def add(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name to keep it under: a-z 0-9 . _ -")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file, or a folder of files.")],
    kind: Annotated[Format | None, typer.Option("--format", help="What the files are. Default: recognised.")] = None,
    target: Annotated[str, typer.Option(metavar="COLUMN", help="What is to be told from the other columns.")] = "",
    group: Annotated[
        str, typer.Option(metavar="COLUMN", help="Whose sample it is: shards become natural parts. Text: file.")
    ] = "",
    drop: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="Leave a column out; repeatable.")] = None,
    category: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Take a column's numbers for categories; repeatable.")
    ] = None,
    values: Annotated[bool, typer.Option("--values", help="The target is a quantity, not a class.")] = False,
    size: Annotated[str, typer.Option(metavar="HxW", help="Pictures: bring all to this height and width.")] = "",
    grey: Annotated[bool, typer.Option("--grey", help="Pictures: without colours.")] = False,
    window: Annotated[int, typer.Option(min=1, max=65_536, help="Text: tokens of a sample.")] = 64,
    tokens: Annotated[
        str, typer.Option(metavar="bytes|characters|FILE", help="Text: what a token is; a file of tokens is JSON.")
    ] = "bytes",
    held_out: Annotated[
        float | None,
        typer.Option("--held-out", metavar="SHARE", help="Share of samples to grade models on. Default: 0.1."),
    ] = None,
    licence: Annotated[str, typer.Option(help="Under which licence it may be used.")] = "not stated",
    origin: Annotated[str, typer.Option(help="Where it comes from.")] = "not stated",
    replace: Annotated[bool, typer.Option("--replace", help="Replace the data set of that name.")] = False,
    home: Base = None,
    as_json: AsJson = False,
) -> int:
    """Read files into a data set that jobs can be trained on: CSV, Parquet, NumPy, IDX, pictures or text."""
    from atoll.training.data import kept
    from atoll.training.data.add import read_source
    from atoll.training.data.card import About
    from atoll.training.data.formats.found import Options

    place = homes.base(home)
    if kept.place_of(place, kept.check_name(name)).exists() and not replace:
        raise BadInput(f"There is a data set {name!r} in {place} already: choose another name, or say --replace.")
    options = Options(
        target=target,
        group=group,
        drop=tuple(drop or ()),
        category=tuple(category or ()),
        values=values,
        size=_size(size) if size else None,
        grey=grey,
        window=window,
        tokens=tokens,
    )
    with waiting("Reading the samples"):
        about = About(licence=licence, origin=origin)
        source = read_source(name, path, options, about, held_out, kind.value if kind else "")
        folder = kept.keep(place, source, replace=replace)
    found = {"folder": str(folder), **_plain(source.card)}
    tell(as_json, found, Group(_card_view(found), Text(f"\nTrain on it: atoll train JOB.atoll --data {name}")))
    return 0


def list_data(home: Base = None, as_json: AsJson = False) -> int:
    """List the data sets of this device."""
    from atoll.training.data import bundled_source, kept

    place = homes.base(home)
    cards = {"mnist": bundled_source().card}
    cards |= {name: kept.read_card(kept.place_of(place, name)) for name in kept.names_in(place)}
    found = [{**_plain(card), "name": name} for name, card in cards.items()]
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("name", "samples", "held out", "x", "y", "partition", "licence"):
        table.add_column(heading, justify="right" if heading in ("samples", "held out") else "left")
    for one in found:
        x, y = one["schema"]["x"], one["schema"]["y"]
        counts = (f"{one['count']:,}", f"{one['held_out_count']:,}")
        texts = (_form(x), _target(y), one["partition"], one["licence"])
        table.add_row(Text(one["name"], style="bold"), *counts, *map(Text, texts))
    tell(as_json, found, table)
    return 0


def show(name: Name, home: Base = None, as_json: AsJson = False) -> int:
    """Show the card of a data set: what its samples are, how many, whose, and under which licence."""
    from atoll.training.data import bundled_source, kept

    place = homes.base(home)
    if name == "mnist":
        card = bundled_source().card
    elif name in kept.names_in(place):
        card = kept.read_card(kept.place_of(place, name))
    else:
        raise BadInput(f"There is no data set {name!r} in {place}: `atoll data list` shows those that are there.")
    found = _plain(card)
    tell(as_json, found, _card_view(found))
    return 0


def check(
    name: Name,
    job: Annotated[
        Path | None, typer.Argument(metavar="JOBFILE", help="Tell whether this job can be trained on it.")
    ] = None,
    home: Base = None,
    as_json: AsJson = False,
) -> int:
    """Recompute a data set's roots from its samples, and tell whether a job fits; ends with 1 if it does not."""
    from atoll.training.data import load
    from atoll.training.data.fit import fit

    with waiting("Hashing the samples"):
        source = load(name, homes.base(home))  # raises unless the samples have the roots of the card
    found: dict[str, Json] = {"name": name, "root": source.card.root, "held_out_root": source.card.held_out_root}
    text = f"{name}: all {source.card.count:,} + {source.card.held_out_count:,} samples are those of the card."
    if job is not None:
        from atoll.cli.jobfiles import open_job

        file = open_job(job)
        found |= {"job": file.id.hex(), "fits": True, "detail": ""}
        try:
            fit(file.spec, source)
            text += f"\nThe job {file.spec.name} can be trained on it."
        except AtollError as error:
            found |= {"fits": False, "detail": str(error)}
            text += f"\n{error}"
    tell(as_json, found, Text(text))
    return 0 if found.get("fits", True) else 1


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", text)
    if not found:
        raise BadInput(f"--size {text}: expected height and width in pixels, as in --size 32x32.")
    return int(found[1]), int(found[2])


def _plain(card: Any) -> dict[str, Json]:
    plain: dict[str, Json] = msgspec.to_builtins(card)
    return plain


def _card_view(card: dict[str, Json]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    x, y = card["schema"]["x"], card["schema"]["y"]
    rows = [
        ("name", card["name"]),
        ("samples", f"{card['count']:,} to train on, {card['held_out_count']:,} held out"),
        ("x", _form(x)),
        ("y", _target(y)),
        ("columns", ", ".join(_column(one) for one in x["columns"])),
        ("classes", ", ".join(map(_printable, y["names"]))),
        ("partition", _partition(card)),
        ("licence", card["licence"]),
        ("origin", card["origin"]),
        ("root", card["root"]),
        ("held-out root", card["held_out_root"]),
        ("folder", card.get("folder", "")),
    ]
    for heading, value in rows:
        if value:
            table.add_row(heading, Text(value if len(value) <= 600 else value[:600] + " ..."))
    return table


def _form(x: Json) -> str:
    return f"{x['dtype']} {' x '.join(map(str, x['shape'])) or 'one value'}"


def _target(y: Json) -> str:
    shape = f" {' x '.join(map(str, y['shape']))}" if y["shape"] else ""
    return f"{y['classes']} classes{shape}" if y["dtype"] == "int64" else f"values{shape}"


def _column(column: Json) -> str:
    name, count = _printable(column["name"]), len(column["categories"])
    return f"{name} ({count} categories)" if count else name


def _partition(card: Json) -> str:
    groups = card["groups"]
    if groups is None:
        return f"{card['partition']}: shards are alike"
    named = [f"{_printable(one['name'])} {one['count']:,}" for one in groups["train"][:12]]
    more = ", ..." if len(groups["train"]) > len(named) else ""
    return f"{card['partition']} by {_printable(groups['by'])}, {groups['count']:,} groups: {', '.join(named)}{more}"


def _printable(name: str) -> str:
    """A stranger's name for a terminal: what cannot be printed is escaped."""
    return name if name.isprintable() and name.strip() else ascii(name)
