"""What nodes answer, as tables for people. Amounts are in ATL here; the JSON twins carry base units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from atoll import config
from atoll.gateway import figures
from atoll.inference.answers import Served
from atoll.ledger.receipts import TOKEN, Kind, amount_text
from atoll.ledger.statement import STATEMENT_HEADER, Explanation, explanation_text
from atoll.wire.identity import format_account, parse_account

Json = Any


def status_view(status: Json, home: object) -> RenderableType:
    """The state of one node."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _status_facts(status, home):
        table.add_row(name, Text(value))
    jobs = [job for job in status.get("jobs", ()) if isinstance(job, dict)]
    if not jobs:
        return Group(table, "", Text("No job yet.", style="dim"))
    models = [
        Text(f"model of {figures.short(str(job.get('job')))}: {job['model']}") for job in jobs if job.get("model")
    ]
    return Group(table, "", _jobs(jobs), *([""] if models else []), *models)


def _status_facts(status: Json, home: object) -> Iterator[tuple[str, str]]:
    yield "node", f"{status.get('name') or 'without a name'} in {home}"
    yield "account", str(status.get("account"))
    yield "endpoint", str(status.get("endpoint"))
    state = "paused" if status.get("paused") else "running"
    registered = "registered" if status.get("registered") else "not registered yet"
    yield "state", f"{state} for {figures.duration(figures.number(status.get('uptime')))}, {registered}"
    yield "roles", ", ".join(str(role) for role in status.get("roles", ()))
    yield "addresses", ", ".join(str(address) for address in status.get("addresses", ()))
    yield "peers", str(status.get("peers", 0))
    earned, claimed = figures.number(status.get("earned")), figures.number(status.get("claimed"))
    waiting = f", {amount_text(earned - claimed)} {TOKEN} to claim" if earned > claimed else ""
    yield "earned", f"{amount_text(earned)} {TOKEN}{waiting}"
    yield "balance", f"{amount_text(figures.number(status.get('balance')))} {TOKEN}"
    yield "stake", f"{amount_text(figures.number(status.get('stake')))} {TOKEN}"
    told = _answers(status.get("answers") or {})
    if told:
        yield "answers", told
    for label, field, units in (("traffic", "bytes", ("up", "down")), ("stored", "stored", ("blobs", "pieces"))):
        counted = status.get(field) or {}
        yield label, ", ".join(f"{figures.size(figures.number(counted.get(unit)))} {unit}" for unit in units)


def _answers(sums: Json) -> str:
    """The money of answers in a line; empty while there is none."""
    known = {name: figures.number(value) for name, value in sums.items()}
    parts = []
    if known.get("deposit") or known.get("paid"):
        told = {name: amount_text(known.get(name, 0)) for name in ("deposit", "free", "paid")}
        parts.append(f"deposit {told['deposit']} {TOKEN} ({told['free']} free), {told['paid']} paid for answers")
    if known.get("earned"):
        waiting = known.get("waiting", 0)
        rest = f" ({amount_text(waiting)} to redeem)" if waiting else ""
        parts.append(f"{amount_text(known['earned'])} {TOKEN} earned{rest}")
    return ", ".join(parts)


def _jobs(jobs: list[dict[str, Json]]) -> Table:
    table = _table("job", "name", "round", "phase", "accuracy", "refused")
    for job in jobs:
        known = list((job.get("accuracy") or {}).values())
        phase = str(job.get("phase") or "")
        table.add_row(
            Text(figures.short(str(job.get("job")))),
            Text(str(job.get("name"))),
            f"{job.get('round')} of {job.get('rounds')}",
            Text("finished" if job.get("done") else figures.PHASE_WORDS.get(phase, phase)),
            f"{known[-1]:.2%}" if known else "-",
            str(len(job.get("rejected") or ())),
        )
    return table


def statement_view(found: Json) -> RenderableType:
    """What an account was paid and refused, from `statement_json`; the job has a column only if there are several."""
    jobs = sorted({str(line["job"]) for line in found["lines"]})
    table = _table(*(heading for heading in STATEMENT_HEADER if heading != "job" or len(jobs) > 1))
    for line in found["lines"]:
        unit = str(line["unit"])
        table.add_row(
            str(line["epoch"]),
            *([Text(figures.short(str(line["job"]), 10, 0))] if len(jobs) > 1 else []),
            str(line["round"]),
            Text(figures.short(unit, 10, 0) if unit.strip("0x") else "-"),
            _label(figures.number(line["kind"])),
            amount_text(figures.number(line["amount"])),
            Text(str(line["sentence"]), style="red" if line["reason"] else ""),
        )
    account, epochs = format_account(parse_account(str(found["account"]))), len(found["epochs"])
    earned = f"{amount_text(figures.number(found['earned']))} {TOKEN} earned in {epochs} epoch{'s'[: epochs != 1]}"
    refused = f"{found['refused']} refused" if found["refused"] else "nothing refused"
    head = Text(f"{account}\n{earned}, {refused}", style="bold")
    if len(jobs) == 1:
        head.append(f"\njob {jobs[0]}", style="not bold dim")
    return Group(head, "", table) if found["lines"] else Group(head)


def _label(kind: int) -> str:
    return Kind(kind).label if kind in {int(one) for one in Kind} else f"kind {kind}"


def explain_view(found: Json) -> str:
    """The sentence for `explanation_json`."""
    matches = found["explain"] == "match"
    return explanation_text(Explanation(matches, found["first_difference"], found["checked"]))


def scores_view(found: Json) -> RenderableType:
    """The answer of a model."""
    table = Table.grid(padding=(0, 2))
    for one in found["top"]:
        share = float(one["score"])
        table.add_row(
            Text(str(one["class"]), style="bold"), f"{share:.2%}", "█" * round(30 * min(1.0, max(0.0, share)))
        )
    return Group(Text(f"{found['class']}, says {found['answered_by']}", style="bold green"), table)


def served_facts(served: Served) -> dict[str, str]:
    """Who answered, for how many base units, and whether the answer was checked ("local": it ran here)."""
    return {"answered_by": served.node, "cost": str(served.cost), "checked": served.checked}


def served_sentence(served: Served) -> str:
    """The same for a person."""
    cost = f"for {amount_text(served.cost)} {TOKEN}" if served.cost else "free of charge"
    checked = {
        "yes": "checked: it was run again and agreed",
        "no": "not checked: it was not drawn for a check",
        "local": "run on the node of this device",
    }
    return f"answered by {served.node or 'nobody'} {cost}, {checked[served.checked]}"


def settings_view() -> RenderableType:
    """All settings of a node."""
    table = _table("setting", "default", "unit", "what it is")
    for name, default, unit, sentence in config.rows():
        table.add_row(Text(name, style="bold"), Text(default), Text(unit), Text(sentence))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in (TOKEN, "epoch", "round") else "left")
    return table
