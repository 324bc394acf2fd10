"""What a person reads off the facts: rows and words of the terminal's live view; short numbers, also of the dashboard.

Pure. Values come from nodes over their control channel; what is missing or of another type shows as a dash or zero,
since a view must not end because one node answered half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.gateway.facts import Facts, NodeFacts
from atoll.ledger.receipts import amount_text
from atoll.wire.reasons import Reason

Json = Any

# What a round waits for, by the phase that its committee votes on (docs/protocol/round.md).
PHASE_WORDS: Mapping[str, str] = {
    "lock": "training",
    "beacon": "drawing",
    "audit": "auditing",
    "open": "revealing",
    "certify": "aggregating",
    "done": "finished",
}
TROUBLE = ("down", "silent")
_SHOWN_DECIMALS = 2


# Short forms
def short(name: str, head: int = 6, tail: int = 4) -> str:
    """The two ends of a long id: "0x1234…abcd"."""
    return name if len(name) <= head + tail + 1 else f"{name[:head]}…{name[len(name) - tail :]}"


def size(count: float) -> str:
    """Bytes in three or four characters and a unit: 12345 -> "12.3 kB"."""
    units = iter(("B", "kB", "MB", "GB"))
    unit = next(units)
    while count >= 1000 and unit != "TB":
        count, unit = count / 1000, next(units, "TB")
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


def tokens(amount: Json) -> str:
    """Base units as tokens, cut (never rounded up) after two decimals: nobody sees more than there is."""
    whole, _, decimals = amount_text(number(amount)).partition(".")
    decimals = decimals[:_SHOWN_DECIMALS].rstrip("0")
    return f"{whole}.{decimals}" if decimals else whole


def duration(seconds: float) -> str:
    """Seconds as a person says them: "42 s", "3 min 05 s", "2 h 10 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def sparkline(values: Sequence[float]) -> str:
    """One block character a value between 0 and 1."""
    blocks = "▁▂▃▄▅▆▇█"
    return "".join(blocks[min(7, max(0, int(value * 8)))] for value in values)


def number(value: Json) -> int:
    """A whole number out of JSON, 0 if it is none; amounts come as strings."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def reason_sentence(name: Json) -> str:
    """What the reason of this name says to a person."""
    found = Reason.__members__.get(str(name))
    return found.sentence if found else "A newer Atoll gave this reason: update to read it."


# Rows
@dataclass(frozen=True)
class NodeRow:
    """One node as text. `trouble` means that it should run and does not; `refused` counts its refused units."""

    name: str
    account: str
    roles: str
    state: str
    work: str
    up: str
    down: str
    earned: str
    balance: str
    refused: int
    dishonest: bool
    trouble: bool


@dataclass(frozen=True)
class Verdict:
    """One refused unit; `node` is the name where it is known, else the account."""

    node: str
    round: int
    reason: str
    sentence: str


def node_rows(facts: Facts) -> list[NodeRow]:
    """A row for each node, in order."""
    return [_node_row(facts, node) for node in facts.nodes]


def _node_row(facts: Facts, node: NodeFacts) -> NodeRow:
    status = node.status or {}
    account, traffic, roles = str(status.get("account", "")), status.get("bytes"), status.get("roles")
    traffic = traffic if isinstance(traffic, dict) else {}
    state = _state(facts, node, status)
    return NodeRow(
        name=node.name,
        account=short(account) or "-",
        roles=" ".join(str(role) for role in roles) if isinstance(roles, list | tuple) else "-",
        state=state,
        work=_work(status),
        up=size(number(traffic.get("up"))),
        down=size(number(traffic.get("down"))),
        earned=tokens(status.get("earned")),
        balance=tokens(status.get("balance")),
        refused=sum(bool(account) and verdict.get("node") == account for verdict in facts.rejected),
        dishonest=node.dishonest,
        trouble=state in TROUBLE,
    )


def _state(facts: Facts, node: NodeFacts, status: Mapping[str, Json]) -> str:
    if not node.alive:
        return "starting" if node.pid is None and facts.phase == "starting" else "down"
    if node.status is None:
        return "starting" if facts.phase == "starting" else "silent"
    if status.get("paused"):
        return "paused"
    if not status.get("registered", True):
        return "joining"
    job = job_of(status)
    if job is None:
        return "ready"
    return "finished" if job.get("done") else "working"


def _work(status: Mapping[str, Json]) -> str:
    job = job_of(status)
    if job is None:
        return "-"
    if job.get("done"):
        return "all rounds"
    phase = str(job.get("phase") or "")
    return f"{number(job.get('round'))}: {PHASE_WORDS.get(phase, phase) or 'waiting'}"


def job_of(status: Mapping[str, Json]) -> Mapping[str, Json] | None:
    """The job of a node's status that is furthest, None if it takes part in none."""
    jobs = [job for job in status.get("jobs") or () if isinstance(job, dict)]
    running = [job for job in jobs if not job.get("done")]
    return max(running or jobs, key=lambda job: number(job.get("round")), default=None)


def verdicts(facts: Facts) -> list[Verdict]:
    """The refused units, oldest round first."""
    names = {str((node.status or {}).get("account", "")): node.name for node in facts.nodes}
    found = [
        Verdict(
            names.get(str(one.get("node"))) or short(str(one.get("node"))),
            number(one.get("round")),
            str(one.get("reason")),
            reason_sentence(one.get("reason")),
        )
        for one in facts.rejected
    ]
    return sorted(found, key=lambda one: (one.round, one.node))


def progress(facts: Facts) -> tuple[int, int]:
    """(rounds certified, rounds in all); (0, 0) before there is a job."""
    job = facts.job
    if not job:
        return 0, 0
    rounds = number(job.get("rounds"))
    certified = rounds if job.get("done") else max(number(job.get("certified")), number(job.get("round")))
    return min(certified, rounds), rounds


def phase_line(facts: Facts) -> str:
    """What the network does now, in a few words."""
    words = {
        "starting": "starting the chain and the nodes",
        "enlisting": "nodes enlist in the job",
        "settling": "posting receipts and claiming pay",
        "done": "the job is done",
    }
    if facts.phase != "training" or not facts.job:
        return words.get(facts.phase, facts.phase)
    phase = str(facts.job.get("phase") or "")
    return f"round {number(facts.job.get('round'))}: {PHASE_WORDS.get(phase, phase) or 'waiting'}"


def epochs(facts: Facts) -> int:
    """How many epochs of payments the nodes know."""
    return max((number((node.status or {}).get("epochs")) for node in facts.nodes), default=0)


def traffic(facts: Facts) -> tuple[int, int]:
    """Bytes that all nodes have sent and received."""
    found = [(node.status or {}).get("bytes") for node in facts.nodes]
    meters = [meter for meter in found if isinstance(meter, dict)]
    return sum(number(meter.get("up")) for meter in meters), sum(number(meter.get("down")) for meter in meters)


class Pace:
    """How long the remaining rounds will take, judged by those that it saw end."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None  # rounds certified and the time, when it looked first
        self._last: tuple[int, float] = (0, 0.0)

    def remaining(self, certified: int, rounds: int, now: float) -> float | None:
        """Seconds that are left, None before the first round has ended under its eyes. `now` is in seconds."""
        if rounds == 0:
            return None
        if self._first is None:
            self._first = self._last = (certified, now)
        if certified > self._last[0]:
            self._last = (certified, now)
        seen = self._last[0] - self._first[0]
        if seen <= 0:
            return None
        each = (self._last[1] - self._first[1]) / seen
        return max(0.0, each * (rounds - certified) - (now - self._last[1]))
