"""The end of `atoll up`: what happened in three tables, and what to try next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from atoll.cli import figures
from atoll.ledger.receipts import TOKEN, amount_text

Json = Any
_MAX_REFUSALS = 12


@dataclass(frozen=True)
class Next:
    """Where to go from here: the home of the network, whether its nodes still run, how to join, the status page."""

    home: Path | None = None
    running: bool = False
    join: str = ""
    page: str = ""


def print_summary(summary: Mapping[str, Json], following: Next | None = None, console: Console | None = None) -> None:
    """Show the summary that `--json` writes; `names` (account -> name of a node) is used where it is there.

    `following` adds the commands to try next.
    """
    console = console or Console(highlight=False)
    console.print()
    console.print(_outcome(summary))
    if summary.get("paid"):
        console.print()
        console.print(_pay(summary))
    if summary.get("rejected"):
        console.print()
        console.print(_refused(summary))
    if following is not None:
        console.print()
        for line in next_steps(summary, following):
            console.print(line, soft_wrap=True)


def _outcome(summary: Mapping[str, Json]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _facts(summary):
        table.add_row(name, value)
    return table


def _facts(summary: Mapping[str, Json]) -> Iterator[tuple[str, Text]]:
    accuracy = [float(value) for value in summary.get("accuracy") or ()]
    if accuracy:
        told = Text(f"{accuracy[-1]:.2%}", style="bold green")
        baseline = summary.get("baseline_accuracy")
        if isinstance(baseline, int | float):
            told.append(f"  (one worker alone, on its own share of the data: {baseline:.2%})", style="default")
        yield "accuracy", told
        yield "by round", Text(f"{figures.sparkline(accuracy)}  " + " ".join(f"{value:.1%}" for value in accuracy))
    yield "network", Text(f"{_count(summary.get('nodes'))} nodes, {_count(summary.get('rounds'))} rounds")
    if "escrow_in" in summary:
        yield "escrow", _escrow(summary)
    if "explain" in summary:
        match = summary["explain"] == "match"
        told = "every payment recomputed from the receipts: matches the chain" if match else str(summary["explain"])
        yield "check", Text(told, style="green" if match else "bold red")
    if "claims" in summary:
        yield "claims", Text(str(_count(summary["claims"])))
    sent = [figures.size(figures.number(summary.get(name))) for name in ("bytes_up", "bytes_down")]
    yield "traffic", Text(f"{sent[0]} up, {sent[1]} down")
    seconds = summary.get("seconds")
    if isinstance(seconds, dict):
        yield "time", Text(", ".join(f"{name} {float(value):.1f} s" for name, value in seconds.items()))
    if summary.get("model"):
        yield "model", Text(str(summary["model"]))
    yield from _chain(summary.get("chain"))


def _escrow(summary: Mapping[str, Json]) -> Text:
    paid_in, out, back = (figures.number(summary.get(name)) for name in ("escrow_in", "escrow_out", "refunded"))
    told = Text(f"{amount_text(paid_in)} {TOKEN} in = {amount_text(out)} paid + {amount_text(back)} refunded")
    if paid_in != out + back:
        told.append(f"  (does not add up: {amount_text(paid_in - out - back)} {TOKEN} apart)", style="bold red")
    return told


def _chain(chain: Json) -> Iterator[tuple[str, Text]]:
    if not isinstance(chain, dict):
        return
    yield "chain", Text(f"{chain.get('kind', '')} at {chain.get('rpc', '')}".strip())
    contracts = chain.get("contracts")
    if isinstance(contracts, dict) and contracts.get("registry"):
        yield "registry", Text(str(contracts["registry"]))


def _count(value: Json) -> int:
    return len(value) if isinstance(value, list | tuple | dict) else figures.number(value)


def _name(summary: Mapping[str, Json], account: str) -> str:
    names = summary.get("names")
    return str(names.get(account, "")) if isinstance(names, dict) else ""


def _pay(summary: Mapping[str, Json]) -> Table:
    table = Table(title="Pay", title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for heading in ("node", "account"):
        table.add_column(heading, no_wrap=True)
    table.add_column(f"paid in {TOKEN}", justify="right", no_wrap=True)
    for account, amount in summary["paid"].items():
        table.add_row(Text(_name(summary, account) or "-"), Text(account), amount_text(figures.number(amount)))
    return table


def _refused(summary: Mapping[str, Json]) -> Table:
    table = Table(
        title="Refused units (unpaid)", title_justify="left", title_style="bold red", box=None, pad_edge=False,
        header_style="dim",
    )  # fmt: skip
    table.add_column("round", justify="right")
    table.add_column("node", no_wrap=True)
    table.add_column("reason", no_wrap=True)
    table.add_column("which means")
    refused = summary["rejected"]
    for one in refused[:_MAX_REFUSALS]:
        account, reason = str(one.get("node")), str(one.get("reason"))
        name = _name(summary, account) or figures.short(account)
        table.add_row(str(one.get("round")), Text(name), Text(reason), Text(figures.reason_sentence(reason)))
    if len(refused) > _MAX_REFUSALS:
        table.add_row("", Text(f"and {len(refused) - _MAX_REFUSALS} more"), "", "")
    return table


def next_steps(summary: Mapping[str, Json], following: Next) -> list[Text]:
    """Commands that work now, each with what it shows."""
    at = f" --home {following.home}" if following.home is not None else ""
    model = str(summary.get("model") or "")
    if following.running:
        steps = [(f"atoll statement{at}", "what a node was paid for, unit by unit")]
        rejected = summary.get("rejected") or []
        if rejected:
            steps.append((f"atoll statement {rejected[0].get('node')}{at}", "why the dishonest node was not"))
        steps.append((f"atoll explain{at}", "redo all payments from the receipts"))
        if model:
            steps.append((f"atoll predict {model} PICTURE.png{at}", "ask the model (--remote asks another node)"))
            steps.append((f"atoll get {model} model.bin{at}", "bring the model back from the nodes that hold it"))
        if following.join:
            steps.append((following.join, "join from another machine"))
        if following.page:
            steps.append((following.page, "the status page"))
    else:
        steps = [(f"atoll up{at}", "resume this network with its balances, and train another job")]
    heading = Text("Try next" + (" in another terminal" if following.running else ""), style="bold")
    return [heading, *(_step(command, purpose) for command, purpose in steps)]


def _step(command: str, purpose: str) -> Text:
    line = Text("  ")
    line.append(command, style="cyan")
    line.append(f"   # {purpose}", style="dim")
    return line
