"""A running network in the terminal: a live view, or one line an event where there is no terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from atoll.gateway import figures
from atoll.gateway.facts import Facts

REFRESH_PER_SECOND = 4
MAX_VERDICTS = 4
MAX_LINES = 5
_OTHER_ROWS = 16  # of the view beside the nodes and the lines
_WITH_ACCOUNTS = 100  # columns: from here on there is room for accounts
_WITH_ROLES = 124  # and for roles in full
_STATE_STYLES = {"working": "green", "ready": "green", "finished": "green", "down": "bold red", "silent": "yellow",
                 "paused": "yellow", "starting": "dim", "joining": "cyan"}  # fmt: skip

FactsSource = Callable[[], Facts]
"""Called from the view's own thread: it must be safe to call at any time, and quick."""


class LiveView:
    """A context manager that draws the facts four times a second until it is left; the last picture stays."""

    def __init__(self, facts: FactsSource, console: Console | None = None) -> None:
        self._facts = facts
        self._console = console or Console()
        self._pace = figures.Pace()
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=REFRESH_PER_SECOND,
            vertical_overflow="crop",
        )

    def __enter__(self) -> LiveView:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _draw(self) -> RenderableType:
        facts = self._facts()
        left = self._pace.remaining(*figures.progress(facts), time.monotonic())
        return picture(facts, time.time(), left, self._console.width, self._console.height)


# The picture, pure
def picture(facts: Facts, now: float, left: float | None, width: int, height: int) -> RenderableType:
    """The whole view; `now` in seconds since 1970, `left` the seconds until the job ends, sizes in characters."""
    most = max(3, height - _OTHER_ROWS)
    parts: list[RenderableType] = [_title(facts, now), _nodes(facts, width, most)]
    if len(facts.nodes) > most:
        parts.append(Text(f"and {len(facts.nodes) - most} more", style="dim"))
    if figures.progress(facts)[1]:
        parts.append(_bar(facts, left, width))
    if facts.accuracy:
        parts.append(_accuracy(facts, width))
    parts += _verdicts(facts)
    room = max(0, min(MAX_LINES, height - _OTHER_ROWS - min(len(facts.nodes), most) + 3))
    if room:
        parts += [Text("  " + line, style="dim", no_wrap=True, overflow="ellipsis") for line in facts.lines[-room:]]
    if facts.network.get("phone"):
        parts.append(Text(f"join with a phone: {facts.network['phone']}", style="dim"))
        parts.append(Text(f"join with a computer: {facts.network.get('join')}", style="dim"))
    if facts.page:
        parts.append(Text(f"dashboard {facts.page} · Ctrl-C ends the network", style="dim", no_wrap=True))
    return Group(*parts)


def _title(facts: Facts, now: float) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("Atoll ", style="bold cyan")
    line.append(figures.phase_line(facts), style="bold")
    chain = facts.network.get("chain_id")
    about = [f"chain {chain}" if chain else "", f"epoch {figures.epochs(facts)}" if facts.nodes else ""]
    about.append(figures.duration(now - facts.started))
    up, down = figures.traffic(facts)
    about.append(f"{figures.size(up)} up, {figures.size(down)} down" if up or down else "")
    line.append("  " + " · ".join(part for part in about if part), style="dim")
    return line


def _nodes(facts: Facts, width: int, most: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2 if width >= _WITH_ACCOUNTS else 1, 0, 0), header_style="dim")
    for heading in ("node", *(["account"] if width >= _WITH_ACCOUNTS else []), "roles", "state", "round"):
        table.add_column(heading, no_wrap=True)
    for heading in ("up", "down", "earned", "balance", "refused"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = figures.node_rows(facts)
    for row in rows[:most]:
        table.add_row(*_cells(row, width))
    return table


def _cells(row: figures.NodeRow, width: int) -> list[Text]:
    return [
        Text(row.name, style="red" if row.dishonest else "bold"),
        *([Text(row.account, style="dim")] if width >= _WITH_ACCOUNTS else []),
        Text(_roles(row.roles, width)),
        Text(row.state, style=_STATE_STYLES.get(row.state, "")),
        Text(row.work),
        Text(row.up),
        Text(row.down),
        Text(row.earned, style="green" if row.earned != "0" else "dim"),
        Text(row.balance),
        Text(str(row.refused), style="bold red") if row.refused else Text("-", style="dim"),
    ]


def _roles(roles: str, width: int) -> str:
    if width >= _WITH_ROLES or roles == "-":
        return roles
    return "".join(role[0].upper() for role in roles.split())


def _bar(facts: Facts, left: float | None, width: int) -> Table:
    certified, rounds = figures.progress(facts)
    line = Table.grid(padding=(0, 1))
    told = f"{certified} of {rounds} rounds"
    if certified < rounds and left is not None:
        told += f", {figures.duration(left)} left"
    bar = ProgressBar(total=rounds, completed=certified, width=max(10, min(50, width - 40)))
    line.add_row(Text("rounds  ", style="dim"), bar, Text(told))
    return line


def _accuracy(facts: Facts, width: int) -> Text:
    known = sorted(facts.accuracy.items())
    shown = known[-max(8, width - 50) :]
    line = Text("accuracy ", style="dim", no_wrap=True, overflow="ellipsis")
    line.append(figures.sparkline([value for _, value in shown]), style="green")
    line.append(f" {known[-1][1]:.1%}", style="bold green")
    best = max(known, key=lambda pair: pair[1])
    line.append(f" after round {known[-1][0]}; best {best[1]:.1%}", style="dim")
    return line


def _verdicts(facts: Facts) -> list[Text]:
    found = figures.verdicts(facts)
    lines = []
    for verdict in found[-MAX_VERDICTS:]:
        line = Text("refused ", style="bold red", no_wrap=True, overflow="ellipsis")
        line.append(f"{verdict.node} in round {verdict.round}: ", style="red")
        line.append(verdict.sentence, style="default")
        lines.append(line)
    if len(found) > MAX_VERDICTS:
        lines.insert(0, Text(f"refused {len(found) - MAX_VERDICTS} earlier units", style="red"))
    return lines


# Plain lines
class PlainView:
    """A context manager that writes what is new, one event a line, and nothing twice."""

    def __init__(self, facts: FactsSource, out: TextIO | None = None) -> None:
        self._facts = facts
        self._out = out
        self._news = News()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="plain-view", daemon=True)

    def __enter__(self) -> PlainView:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        while True:
            ended = self._ended.wait(1 / REFRESH_PER_SECOND)
            facts = self._facts()
            try:
                for line in self._news.of(facts, time.time()):
                    self._write(line)
            except (BrokenPipeError, ValueError):  # nobody reads any more, as in `atoll up | head`
                return
            if ended:
                return

    def _write(self, line: str) -> None:
        out = self._out or sys.stdout
        out.write(line + "\n")
        out.flush()


class News:
    """The events that lie between one look at the facts and the next, as lines. Pure."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._states: dict[str, str] = {}
        self._lines: tuple[str, ...] = ()

    def of(self, facts: Facts, now: float) -> list[str]:
        """The lines that are new since the last call; `now` in seconds since 1970.

        Events come with the time since the start; log lines as they are, since they carry their own.
        """
        lines = self._fresh([_PHASE_NEWS.get(facts.phase, facts.phase), *self._network(facts)]) + self._states_of(facts)
        lines += self._fresh(_rounds(facts)) + self._fresh(_refusals(facts))
        return [f"{now - facts.started:6.1f} s  {line}" for line in lines] + self._log(facts.lines)

    def _fresh(self, lines: Sequence[str]) -> list[str]:
        new = [line for line in dict.fromkeys(lines) if line not in self._told]
        self._told.update(new)
        return new

    def _network(self, facts: Facts) -> list[str]:
        told = []
        if facts.network.get("chain_id"):
            told.append(f"chain {facts.network['chain_id']} at {facts.network.get('rpc')}")
        if facts.network.get("join"):
            hint = facts.network.get("join_hint")
            told.append(f"join with: {facts.network['join']}" + (f" ({hint})" if hint else ""))
        if facts.page:
            told.append(f"dashboard: {facts.page}")
        return told

    def _states_of(self, facts: Facts) -> list[str]:
        told = []
        for row in figures.node_rows(facts):
            # Only what stays for a while: a node is "working" and "ready" in turns.
            state = "up" if row.state in ("ready", "working", "finished") else row.state
            if self._states.get(row.name) != state and not (state == "starting" and row.name not in self._states):
                told.append(f"{row.name} is {state}" + (f" ({row.account})" if state == "up" else ""))
            self._states[row.name] = state
        return told

    def _log(self, lines: Sequence[str]) -> list[str]:
        """What was added to a list that keeps only the last lines."""
        seen, self._lines = self._lines, tuple(lines)
        overlap = min(len(seen), len(self._lines))
        while overlap and seen[-overlap:] != self._lines[:overlap]:
            overlap -= 1
        return list(self._lines[overlap:])


_PHASE_NEWS = {
    "starting": "starting the chain and the nodes",
    "enlisting": "the nodes enlist in the job",
    "training": "training begins",
    "settling": "the rounds are over: posting receipts, claiming pay, storing the model",
    "done": "done",
}


def _rounds(facts: Facts) -> list[str]:
    certified, rounds = figures.progress(facts)
    accuracy = [f"round {number}: accuracy {value:.2%}" for number, value in sorted(facts.accuracy.items())]
    return accuracy + ([f"all {rounds} rounds are certified"] if rounds and certified == rounds else [])


def _refusals(facts: Facts) -> list[str]:
    return [f"REFUSED {one.node} in round {one.round}: {one.reason}. {one.sentence}" for one in figures.verdicts(facts)]
