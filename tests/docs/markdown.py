"""Markdown tables, and the words that docstrings give."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any


def table(heading: str, rows: Iterable[tuple[Any, ...]]) -> str:
    """A Markdown table; `heading` names the columns, separated by |."""
    names = [name.strip() for name in heading.split("|")]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in row]
        if len(cells) != len(names):
            raise ValueError(f"{len(cells)} cells under {len(names)} names: {cells}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def code(text: object) -> str:
    return f"`{text}`"


def first_sentence(thing: object) -> str:
    """The first paragraph of a docstring on one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
