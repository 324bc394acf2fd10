"""The end of `atoll up`: what happened in three tables, and what to try next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from atoll.cli import homes
from atoll.gateway import figures
from atoll.gateway.facts import PHASES
from atoll.ledger.receipts import TOKEN, amount_text

Json = Any
_MAX_REFUSALS = 12


def print_summary(summary: Mapping[str, Json], *, running: bool = True, console: Console | None = None) -> None:
    """Show the summary that `--json` writes (`atoll.cli.report`) and what to try next.

    `running`: whether the nodes still run, so that their commands work.
    """
    console = console or Console(highlight=False)
    console.print()
    console.print(_outcome(summary))
    for name, table in (("paid", _pay), ("rejected", _refused)):
        if summary.get(name):
            console.print()
            console.print(table(summary))
    console.print()
    for line in next_steps(summary, running):
        console.print(line, soft_wrap=True)


def _outcome(summary: Mapping[str, Json]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _facts(summary):
        table.add_row(name, value)
    return table


def _facts(summary: Mapping[str, Json]) -> Iterator[tuple[str, Text]]:
    yield from _learned(summary)
    yield "network", Text(f"{summary.get('nodes', '?')} nodes, {summary.get('rounds', '?')} rounds")
    if "escrow_in" in summary:
        yield "escrow", _escrow(summary)
    if "explain" in summary:
        match = summary["explain"] == "match"
        told = "every payment recomputed from the receipts: matches the chain" if match else str(summary["explain"])
        yield "check", Text(told, style="green" if match else "bold red")
    if "claims" in summary:
        yield "claims", Text(f"{summary['claims']} accounts have claimed their pay")
    sent = [figures.size(figures.number(summary.get(name))) for name in ("bytes_up", "bytes_down")]
    yield "traffic", Text(f"{sent[0]} up, {sent[1]} down")
    seconds = summary.get("seconds")
    if isinstance(seconds, dict):
        known = [(name, seconds[name]) for name in (*PHASES, "total") if isinstance(seconds.get(name), int | float)]
        yield "time", Text(", ".join(f"{name} {value:.1f} s" for name, value in known))
    if summary.get("model"):
        yield "model", Text(str(summary["model"]))
    yield from _chain(summary.get("chain"))


def _learned(summary: Mapping[str, Json]) -> Iterator[tuple[str, Text]]:
    """What the model can do: its accuracy, beside that of a worker alone, and its answer to one question."""
    accuracy = [float(value) for value in summary.get("accuracy") or () if value is not None]
    if accuracy:
        told = Text(f"{accuracy[-1]:.2%}", style="bold green")
        baseline = summary.get("baseline_accuracy")
        if isinstance(baseline, int | float):
            told.append(f"  (one worker alone, on its own share of the data: {baseline:.2%})", style="default")
        yield "accuracy", told
        yield "by round", Text(f"{figures.sparkline(accuracy)}  " + " ".join(f"{value:.1%}" for value in accuracy))
    answer = summary.get("answer")
    if isinstance(answer, dict) and "class" in answer:
        right = answer.get("class") == answer.get("label")
        said = f"a picture of a {answer.get('label')} that it had not seen: it says {answer['class']}"
        yield "question", Text(said, style="green" if right else "yellow")


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


def _names(summary: Mapping[str, Json]) -> dict[str, str]:
    """Names of nodes by account."""
    accounts = summary.get("accounts")
    return {str(account): str(name) for name, account in accounts.items()} if isinstance(accounts, dict) else {}


def _pay(summary: Mapping[str, Json]) -> Table:
    table = Table(title="Pay", title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for heading in ("node", "account"):
        table.add_column(heading, no_wrap=True)
    table.add_column(f"paid in {TOKEN}", justify="right", no_wrap=True)
    names = _names(summary)
    rows = sorted((names.get(account, "-"), account, figures.number(paid)) for account, paid in summary["paid"].items())
    for name, account, amount in rows:
        table.add_row(Text(name), Text(account), amount_text(amount))
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
        name, reason = figures.short(str(one.get("node")), 12), str(one.get("reason"))
        table.add_row(str(one.get("round")), Text(name), Text(reason), Text(figures.reason_sentence(reason)))
    if len(refused) > _MAX_REFUSALS:
        table.add_row("", Text(f"and {len(refused) - _MAX_REFUSALS} more"), "", "")
    return table


def next_steps(summary: Mapping[str, Json], running: bool) -> list[Text]:
    """Commands that work now, each with what it shows."""
    home = str(summary.get("home") or "")
    at = "" if not home or Path(home) == homes.base() else f" --home {shlex.quote(home)}"
    if not running:
        resume = _step(f"atoll up{at}", "resume this network with its balances, and train again")
        return [Text("Try next", style="bold"), resume]
    steps = [(f"atoll statement{at}", "what a node was paid for, unit by unit")]
    refused = next((one.get("account") or one.get("node") for one in summary.get("rejected") or ()), None)
    if refused:
        steps.append((f"atoll statement {refused}{at}", "why the dishonest node was not"))
    steps.append((f"atoll explain{at}", "redo all payments from the receipts"))
    model, answer = str(summary.get("model") or ""), summary.get("answer")
    if model:
        picture = shlex.quote(str(answer.get("picture"))) if isinstance(answer, dict) else "PICTURE.png"
        steps.append((f"atoll run {model} {picture}{at}", "ask the model on this device; --remote asks another node"))
        steps.append((f"atoll get {model} model.bin{at}", "bring it back from the nodes that hold its pieces"))
    if summary.get("join"):
        steps.append((str(summary["join"]), "join with another node"))
    if summary.get("page"):
        steps.append((str(summary["page"]), "the dashboard"))
    heading = Text("Try next, in another terminal", style="bold")
    return [heading, *(_step(command, purpose) for command, purpose in steps)]


def _step(command: str, purpose: str) -> Text:
    line = Text("  ")
    line.append(command, style="cyan")
    line.append(f"   # {purpose}", style="dim")
    return line
