"""What a node owes a round with its own hands: training its unit, auditing and replaying those of others. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.training.events import Rerun, Train
from atoll.training.unit import UnitSpec, commit_hash, states_root
from atoll.wire.messages import AuditCommit, AuditReveal, Commit, Phase, Present, Replay, Reveal

if TYPE_CHECKING:
    from atoll.training.round import Round


class Duties:
    """The duties of the worker, the auditor, the replica and the newcomer; each asks for work or tells its result."""

    def __init__(self, state: Round) -> None:
        self._round = state
        self._me = state.member.account

    def do(self, now: float) -> None:
        """Everything that is up to this node now and has not been done."""
        state = self._round
        phase, context = state.ballot.phase, state.context
        if self._me not in context.everybody and self._me in context.enlisted:
            state.tell(Present(context.place.job, context.place.round), now)
        match phase:
            case Phase.LOCK:
                if state.mine is not None:
                    self._do_unit(state.mine, Commit, now)
            case Phase.AUDIT:
                for unit_id, auditor in state.audits.items():
                    if auditor == self._me:
                        self._do_unit(state.units[unit_id], AuditCommit, now)
            case Phase.OPEN:
                self._reveal(now)
            case Phase.CERTIFY:
                self._replay(now)

    def _do_unit(self, unit: UnitSpec, kind: type[Commit] | type[AuditCommit], now: float) -> None:
        state, place = self._round, self._round.context.place
        done = state.results.get(unit.id)
        if done is None:
            state.once(b"train" + unit.id, Train(unit, kind is AuditCommit))
            return
        made_of = (states_root(done.states), done.update, state.member.salt(unit.id))
        digest = commit_hash(place.domain, place.job, place.round, unit.id, self._me, *made_of)
        state.tell(kind(place.job, place.round, unit.id, digest), now)

    def _reveal(self, now: float) -> None:
        state, place = self._round, self._round.context.place
        for unit_id, done in state.results.items():
            opening = (place.job, place.round, unit_id, done.states, done.update, state.member.salt(unit_id))
            if state.mine is not None and unit_id == state.mine.id and unit_id in state.locked:
                state.tell(Reveal(*opening), now)
            if unit_id in state.audited and state.audits[unit_id] == self._me:
                state.tell(AuditReveal(*opening), now)

    def _replay(self, now: float) -> None:
        state, place = self._round, self._round.context.place
        for unit_id, replicas in state.disputes.items():
            reveal = state.reveals[unit_id].body
            if self._me not in replicas or not isinstance(reveal, Reveal):
                continue
            done = state.reruns.get(unit_id)
            if done is None:
                state.once(b"rerun" + unit_id, Rerun(state.units[unit_id], reveal))
            else:
                state.tell(Replay(place.job, place.round, unit_id, done.segment, done.state), now)
