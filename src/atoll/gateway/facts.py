"""What is known about a running network at one moment, as plain values: what the live view shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = Any

# In this order; a network that resumes skips `enlisting`.
PHASES = ("starting", "enlisting", "training", "settling", "done")


@dataclass(frozen=True)
class NodeFacts:
    """One node process. `status` is the JSON of `Desk.status`, or None while the node does not answer."""

    index: int
    name: str
    pid: int | None
    alive: bool
    dishonest: bool
    status: dict[str, Json] | None


@dataclass(frozen=True)
class Facts:
    """The network at one moment.

    `started` is in seconds since 1970; `seconds` holds how long each phase took; `network` holds `rpc`, `registry`,
    `chain_id`, `join` (the command that joins from elsewhere) and maybe `join_hint`; `job` is the job status (as in
    `Desk.status`) of the node that knows the highest round; `accuracy` is by round, 0 to 1; `rejected` holds
    {node, round, reason}, where `node` is an account and `reason` the name of a `Reason`; `lines` are recent events
    for people; `page` is the address of the dashboard, or empty.
    """

    phase: str
    started: float
    seconds: Mapping[str, float] = field(default_factory=dict)
    network: Mapping[str, Json] = field(default_factory=dict)
    nodes: Sequence[NodeFacts] = ()
    job: Mapping[str, Json] | None = None
    accuracy: Mapping[int, float] = field(default_factory=dict)
    rejected: Sequence[Mapping[str, Json]] = ()
    lines: Sequence[str] = ()
    page: str = ""
