"""What one account owes a job's round, what it may say about it and when, as the gateway's observer sees it. Pure.

The observer folds the quorums of a job that it takes no part in; everything here follows from them, so a tab is told
nothing that a node of its own would not find.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from atoll.errors import Refused
from atoll.graph.manifest import Manifest
from atoll.node.job import Job
from atoll.training.round import Round
from atoll.training.unit import UnitSpec
from atoll.wire.hashing import ZERO_HASH
from atoll.wire.messages import AuditCommit, AuditReveal, Body, Commit, Phase, Present, Replay, Reveal, Signed
from atoll.wire.reasons import Reason

SAYINGS = Commit | AuditCommit | Reveal | AuditReveal | Replay | Present
"""All that a tab has to say to a committee."""

PHASES: dict[type, Phase] = {
    Commit: Phase.LOCK,
    AuditCommit: Phase.AUDIT,
    Reveal: Phase.OPEN,
    AuditReveal: Phase.OPEN,
    Replay: Phase.CERTIFY,
}
"""In which phase a message counts; Present counts in all of them."""


@dataclass(frozen=True)
class Duties:
    """One account's part in the present round.

    `unit` is its own, `audits` the units that it recomputes, `replays` those that it re-runs with their reveals.
    `locked` and `audited` name what a quorum has locked: only that is opened. `enlisted` newcomers that are not
    `on_roster` say that they are present.
    """

    job: bytes
    round: int
    phase: Phase
    committee: tuple[bytes, ...]
    on_roster: bool
    enlisted: bool
    unit: UnitSpec | None = None
    audits: tuple[UnitSpec, ...] = ()
    replays: tuple[tuple[UnitSpec, Signed], ...] = ()
    locked: frozenset[bytes] = frozenset()
    audited: frozenset[bytes] = frozenset()

    @property
    def any(self) -> bool:
        """Whether there is anything to do or to have done in this round."""
        return self.unit is not None or bool(self.audits) or bool(self.replays)

    @property
    def blobs(self) -> int:
        """How many blobs the round may ask of this account: states and update of each unit, one state a replay."""
        units = [*self.audits, *([self.unit] if self.unit is not None else [])]
        return sum(unit.segments + 2 for unit in units) + len(self.replays)


def duties_of(job: Job, account: bytes) -> Duties | None:
    """What a job's present round asks of an account; None once the job is done."""
    state = job.round
    if state is None:
        return None
    context, place = state.context, state.context.place
    return Duties(
        job=place.job,
        round=place.round,
        phase=state.ballot.phase,
        committee=place.committee,
        on_roster=account in context.everybody,
        enlisted=account in context.enlisted,
        unit=next((unit for unit in state.units.values() if unit.account == account), None),
        audits=tuple(state.units[unit] for unit, auditor in state.audits.items() if auditor == account),
        replays=tuple(_replays(state, account)),
        locked=frozenset(state.locked),
        audited=frozenset(unit for unit in state.audited if state.audits.get(unit) == account),
    )


def _replays(state: Round, account: bytes) -> Iterable[tuple[UnitSpec, Signed]]:
    for unit, replicas in state.disputes.items():
        if account in replicas:
            yield state.units[unit], state.reveals[unit]


def check_saying(duties: Duties | None, signed: Signed) -> None:
    """Refuse an envelope that is not this account's to send, or not now; the account itself is checked before.

    Nothing is revealed before the audits are locked, whatever a tab was talked into.
    """
    body = signed.body
    if not isinstance(body, SAYINGS):
        raise Refused(Reason.UNKNOWN_MESSAGE, f"a tab has no {type(body).__name__} to say")
    if duties is None or body.round < duties.round:
        raise Refused(Reason.STALE, f"round {body.round} is over")
    if body.round > duties.round:
        raise Refused(Reason.NOT_FOUND, f"round {body.round} has not begun; this is round {duties.round}")
    phase = PHASES.get(type(body), duties.phase)
    if phase < duties.phase:
        raise Refused(Reason.STALE, f"{phase.name} of round {body.round} is closed")
    if phase > duties.phase or not _is_asked(duties, body):
        raise Refused(Reason.NOT_FOUND, f"this round does not ask the account for {type(body).__name__} of it now")


def _is_asked(duties: Duties, body: Body) -> bool:
    match body:
        case Present():
            return duties.enlisted and not duties.on_roster
        case Commit(unit=unit):
            return duties.unit is not None and duties.unit.id == unit
        case AuditCommit(unit=unit):
            return any(one.id == unit for one in duties.audits)
        case Reveal(unit=unit):
            return duties.unit is not None and duties.unit.id == unit and unit in duties.locked
        case AuditReveal(unit=unit):
            return unit in duties.audited
        case Replay(unit=unit):
            return any(one.id == unit for one, _ in duties.replays)
    return False


def named_blobs(body: Body, model: bytes) -> tuple[bytes, ...]:
    """Blobs that others will ask for once this is said; the model, which names state 0, is everybody's."""
    match body:
        case Reveal(states=states, update=update) | AuditReveal(states=states, update=update):
            return tuple(blob for blob in (*states, update) if blob != model)
        case Replay(state=state) if state != ZERO_HASH:
            return (state,)
    return ()


def served_blobs(job: Job, manifest_id: bytes, manifest: Manifest) -> set[bytes]:
    """What a tab may need of a job, and all that the gateway fetches for it: the job, its model, what was revealed."""
    names = (manifest.step, manifest.evaluate, manifest.predict, manifest.params, manifest.initial, manifest.data.card)
    found = {manifest_id, job.standing.model, *map(bytes.fromhex, names)}
    for signed in job.round.reveals.values() if job.round else ():
        if isinstance(signed.body, Reveal):
            found.update((*signed.body.states, signed.body.update))
    return found
