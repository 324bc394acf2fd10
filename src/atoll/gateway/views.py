"""From facts to what the status page shows: its template's context, its chart, and the JSON twin. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atoll.gateway import figures
from atoll.gateway.facts import Facts

Json = Any

# The chart's own coordinates; the picture scales to the width of the page.
WIDTH, HEIGHT = 640, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 28
_MAX_LABELS = 12  # under the horizontal axis


@dataclass(frozen=True)
class Point:
    """One round in the chart: where it lies, and what it says."""

    x: float
    y: float
    round: int
    accuracy: str


@dataclass(frozen=True)
class Chart:
    """Accuracy by round as drawing instructions; `grid` is (y, label), `labels` is (x, round)."""

    points: tuple[Point, ...]
    line: str
    grid: tuple[tuple[float, str], ...]
    labels: tuple[tuple[float, str], ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT


def chart(accuracy: Mapping[int, float], rounds: int) -> Chart:
    """The chart of `accuracy` (round -> 0 to 1), with room for `rounds` rounds; the axis starts at 0."""
    last = max([rounds - 1, 1, *accuracy])
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def across(number: int) -> float:
        return round(LEFT + inner_width * number / last, 1)

    def down(value: float) -> float:
        return round(TOP + inner_height * (1 - min(1.0, max(0.0, value))), 1)

    points = tuple(
        Point(across(number), down(value), number, f"{value:.2%}") for number, value in sorted(accuracy.items())
    )
    step = max(1, -(-(last + 1) // _MAX_LABELS))
    return Chart(
        points=points,
        line=" ".join(f"{point.x},{point.y}" for point in points),
        grid=tuple((down(share / 4), f"{share * 25} %") for share in range(5)),
        labels=tuple((across(number), str(number)) for number in range(0, last + 1, step)),
    )


def context(facts: Facts, now: float) -> dict[str, Json]:
    """Everything that templates/index.html uses; `now` in seconds since 1970."""
    certified, rounds = figures.progress(facts)
    known = sorted(facts.accuracy.items())
    up, down = figures.traffic(facts)
    rows = figures.node_rows(facts)
    return {
        "title": figures.phase_line(facts),
        "phase": facts.phase,
        "running": figures.duration(now - facts.started),
        "network": [
            (label, str(facts.network[name]))
            for name, label in (("rpc", "Chain"), ("chain_id", "Chain id"), ("registry", "Registry"))
            if facts.network.get(name)
        ],
        "join": str(facts.network.get("join") or ""),
        "join_hint": str(facts.network.get("join_hint") or ""),
        "epochs": figures.epochs(facts),
        "certified": certified,
        "rounds": rounds,
        "accuracy": f"{known[-1][1]:.2%}" if known else "",
        "chart": chart(facts.accuracy, rounds) if known else None,
        "up": figures.size(up),
        "down": figures.size(down),
        "nodes": rows,
        "alive": sum(not row.trouble for row in rows),
        "verdicts": figures.verdicts(facts),
        "model": str((facts.job or {}).get("model") or ""),
        "lines": list(facts.lines),
        "seconds": ", ".join(f"{name} {value:.1f} s" for name, value in facts.seconds.items()),
    }


def twin(facts: Facts) -> dict[str, Json]:
    """The facts as JSON: the fields of `Facts`; the keys of `accuracy` are texts, as JSON wants them."""
    plain = {field.name: getattr(facts, field.name) for field in dataclasses.fields(facts)}
    return plain | {
        "seconds": dict(facts.seconds),
        "network": dict(facts.network),
        "nodes": [dataclasses.asdict(node) for node in facts.nodes],
        "job": None if facts.job is None else dict(facts.job),
        "accuracy": {str(number): value for number, value in sorted(facts.accuracy.items())},
        "rejected": [dict(one) for one in facts.rejected],
        "lines": list(facts.lines),
    }
