"""What a leader may propose in each phase, and what a member signs: the same rules from both sides. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from atoll.errors import Refused
from atoll.training.audit import draw_committee
from atoll.training.beacon import Draw, belongs
from atoll.training.committee import (
    DISPUTED,
    AuditPayload,
    BeaconPayload,
    CertifyPayload,
    LockPayload,
    OpenPayload,
    Payload,
    lock_root,
    ordered,
    quorum,
    read_evidence,
)
from atoll.training.context import VALIDATOR
from atoll.training.events import Aggregate, Examine, Judge
from atoll.training.unit import commit_hash, states_root
from atoll.training.verdict import NOT_OPENED, Case, groups, rows, settle
from atoll.wire.hashing import keccak
from atoll.wire.messages import AuditCommit, AuditReveal, Commit, Phase, Present, Replay, Reveal, Signed
from atoll.wire.reasons import Reason

if TYPE_CHECKING:
    from atoll.training.round import Round


class Proposals:
    """Drafts payloads for a leader and weighs those of others, against what this node has seen in its round."""

    def __init__(self, state: Round) -> None:
        self._round = state

    def draft(self, phase: Phase, now: float) -> Payload | None:
        """The payload to propose now, None if it is too early."""
        state = self._round
        due = now >= state.due(phase)
        match phase:
            case Phase.LOCK:
                return LockPayload(ordered(state.commits)) if due and state.commits else None
            case Phase.BEACON:
                enough = len(state.links) >= quorum(len(state.context.place.committee))
                return BeaconPayload(tuple(sorted(state.links.items()))) if due and enough else None
            case Phase.AUDIT:
                return AuditPayload(ordered(self._drawn_audits())) if due else None
            case Phase.OPEN:
                return self._draft_open(due)
            case Phase.CERTIFY:
                return self._draft_certificate() if due else None

    def accepts(self, phase: Phase, payload: Payload, obliged: bool, now: float) -> bool:
        """Whether to sign a payload; False means not now. Raises Refused when it can never be signed.

        `obliged`: a quorum of handovers carries it on, so that only its correctness counts, not its timeliness.
        """
        match payload:
            case LockPayload():
                return self._accepts_lock(payload, obliged, now)
            case BeaconPayload():
                return self._accepts_links(payload.links, Draw.AUDIT)
            case AuditPayload():
                return self._accepts_audits(payload)
            case OpenPayload():
                return self._accepts_open(payload, obliged, now)
            case CertifyPayload():
                return self._accepts_certificate(payload)

    # -- LOCK ----------------------------------------------------------------------------------------------------
    def _accepts_lock(self, payload: LockPayload, obliged: bool, now: float) -> bool:
        state = self._round
        named = set()
        for signed in read_evidence(state.context.place.domain, payload.commits, Commit, state.context.place):
            body = signed.body
            unit = state.units.get(body.unit) if isinstance(body, Commit) else None
            if unit is None or unit.account != signed.account:
                raise Refused(Reason.UNKNOWN_ACCOUNT, "a commit is for a unit that was not given to its sender")
            named.add(unit.id)
        if len(named) != len(payload.commits) or not named:
            raise Refused(Reason.DUPLICATE, "a unit is listed twice, or none is listed")
        return obliged or not self._left_out(Phase.LOCK, named, now)

    def _left_out(self, phase: Phase, named: set[bytes], now: float) -> bool:
        """Whether the leader left out what this member has held for longer than the grace: then it does not sign."""
        state = self._round
        late = now - state.context.timing.grace
        held = {key for (of, key), time in state.arrived.items() if of is phase and time < late}
        return not held & state.expected(phase) <= named

    # -- BEACON --------------------------------------------------------------------------------------------------
    def _accepts_links(self, links: tuple[tuple[bytes, bytes], ...], draw: Draw) -> bool:
        context = self._round.context
        accounts = [account for account, _ in links]
        if accounts != sorted(set(accounts)) or not set(accounts) <= set(context.place.committee):
            raise Refused(Reason.UNKNOWN_ACCOUNT, "links must come from distinct members, ordered by account")
        if len(accounts) < quorum(len(context.place.committee)):
            raise Refused(Reason.MALFORMED, "a beacon needs the links of a quorum")
        for account, value in links:
            if not belongs(value, context.enlisted[account].tip, context.place.round, draw):
                raise Refused(Reason.BAD_PROOF, "a link does not belong to its enlisted hash chain")
        return True

    # -- AUDIT ---------------------------------------------------------------------------------------------------
    def _drawn_audits(self) -> dict[bytes, Signed]:
        state = self._round
        held = ((unit, state.audit_commits.get(unit + auditor)) for unit, auditor in state.audits.items())
        return {unit: signed for unit, signed in held if signed is not None}

    def _accepts_audits(self, payload: AuditPayload) -> bool:
        state = self._round
        named = set()
        for signed in read_evidence(state.context.place.domain, payload.commits, AuditCommit, state.context.place):
            body = signed.body
            if not isinstance(body, AuditCommit) or state.audits.get(body.unit) != signed.account:
                raise Refused(Reason.UNKNOWN_ACCOUNT, "an audit comes from a node that was not drawn for it")
            named.add(body.unit)
        if len(named) != len(payload.commits):
            raise Refused(Reason.DUPLICATE, "a unit's audit is listed twice")
        return True

    # -- OPEN ----------------------------------------------------------------------------------------------------
    def _matches(self, commit: Commit | AuditCommit, account: bytes, opening: Reveal | AuditReveal) -> bool:
        place = self._round.context.place
        root = states_root(opening.states)
        digest = commit_hash(
            place.domain, place.job, place.round, opening.unit, account, root, opening.update, opening.salt
        )
        return digest == commit.digest and len(opening.states) == self._round.context.segments + 1

    def _audit_opened(self, unit: bytes, audits: Mapping[bytes, Signed]) -> Reason:
        """Whether the locked audit of a unit was opened as it was committed."""
        state = self._round
        signed = audits.get(unit)
        if signed is None or not isinstance(signed.body, AuditReveal) or unit not in state.audited:
            return Reason.NOT_REVEALED
        good = signed.account == state.audits[unit] and self._matches(state.audited[unit], signed.account, signed.body)
        return Reason.OK if good else Reason.COMMIT_MISMATCH

    def _finding(self, unit: bytes, reveals: Mapping[bytes, Signed], audits: Mapping[bytes, Signed]) -> int | None:
        """What this node finds about a locked unit; None while it is still looking."""
        state = self._round
        signed = reveals.get(unit)
        if signed is None or not isinstance(signed.body, Reveal):
            return Reason.NOT_REVEALED
        reveal = signed.body
        if signed.account != state.units[unit].account or not self._matches(state.locked[unit], signed.account, reveal):
            return Reason.COMMIT_MISMATCH
        if reveal.states[0] != state.context.model:
            return Reason.STATE_ORIGIN
        audit_states: tuple[bytes, ...] = ()
        if unit in state.audits:
            audit = audits.get(unit)
            if audit is None or self._audit_opened(unit, audits) is not Reason.OK:
                return DISPUTED
            if isinstance(audit.body, AuditReveal):
                same = (audit.body.states[-1], audit.body.update) == (reveal.states[-1], reveal.update)
                audit_states = () if same else audit.body.states
        key = keccak(b"examine" + signed.raw + b"".join(audit_states))
        state.once(key, Examine(key, state.units[unit], reveal, audit_states))
        return state.findings.get(key)

    def _draft_open(self, due: bool) -> OpenPayload | None:
        state = self._round
        reveals = {unit: signed for unit, signed in state.reveals.items() if unit in state.locked}
        audits = {unit: signed for unit, signed in state.audit_reveals.items() if unit in state.audited}
        findings = {unit: self._finding(unit, reveals, audits) for unit in sorted(state.locked)}
        if not due or any(finding is None for finding in findings.values()):
            return None
        listed = tuple((unit, int(finding)) for unit, finding in findings.items() if finding is not None)
        return OpenPayload(ordered(reveals), ordered(audits), listed)

    def _accepts_open(self, payload: OpenPayload, obliged: bool, now: float) -> bool:
        state = self._round
        place = state.context.place
        reveals = {s.body.unit: s for s in read_evidence(place.domain, payload.reveals, Reveal, place)}  # type: ignore[union-attr]
        audits = {s.body.unit: s for s in read_evidence(place.domain, payload.audit_reveals, AuditReveal, place)}  # type: ignore[union-attr]
        if not set(reveals) <= set(state.locked) or not set(audits) <= set(state.audited):
            raise Refused(Reason.MALFORMED, "something was opened that was not locked")
        if [unit for unit, _ in payload.findings] != sorted(state.locked):
            raise Refused(Reason.MALFORMED, "a finding is needed for each locked unit, in order")
        findings = {unit: self._finding(unit, reveals, audits) for unit in state.locked}
        if any(finding is None for finding in findings.values()):
            return False
        if any(findings[unit] != finding for unit, finding in payload.findings):
            raise Refused(Reason.MALFORMED, "the findings are not those of this node")
        named = set(reveals) | {unit + state.audits[unit] for unit in audits}
        return obliged or not self._left_out(Phase.OPEN, named, now)

    # -- CERTIFY -------------------------------------------------------------------------------------------------
    def _cases(self, replays: Mapping[tuple[bytes, bytes], Signed]) -> list[Case] | None:
        """Every locked unit with all that is known about it; None while a judgement is still being worked out."""
        state = self._round
        if state.opened is None:
            return None
        disputes, cases, waiting = state.disputes(), [], False
        for unit, finding in state.opened.findings:
            said = {
                account: (signed.body.segment, signed.body.state)
                for (of, account), signed in replays.items()
                if of == unit and account in disputes.get(unit, ()) and isinstance(signed.body, Replay)
            }
            convicted: set[int] = set()
            for segment, accounts in groups(said).items():
                if len(accounts) >= 2 and 0 < segment < NOT_OPENED:
                    guilty = self._judgement(unit, segment, tuple((a, said[a][1]) for a in accounts))
                    waiting |= guilty is None
                    convicted |= {segment} if guilty else set()
            opened = self._audit_opened(unit, state.audit_reveals)
            worker, auditor = state.units[unit].account, state.audits.get(unit)
            cases.append(
                Case(unit, worker, finding, auditor, unit in state.audited, opened, said, frozenset(convicted))
            )
        return None if waiting else cases

    def _judgement(self, unit: bytes, segment: int, replicas: tuple[tuple[bytes, bytes], ...]) -> bool | None:
        state = self._round
        reveal = state.reveals[unit].body
        if not isinstance(reveal, Reveal) or segment >= len(reveal.states):
            return False
        start, end = reveal.states[segment - 1], reveal.states[segment]
        key = keccak(b"judge" + unit + start + end + b"".join(a + s for a, s in replicas))
        state.once(key, Judge(key, state.units[unit], start, end, replicas))
        return state.judgements.get(key)

    def _model(self, cases: list[Case]) -> bytes | None:
        """The model that follows from the accepted units; None while it is being computed."""
        state = self._round
        accepted = []
        for case in cases:
            reveal = state.reveals[case.unit].body if case.unit in state.reveals else None
            if settle(case) is Reason.OK and isinstance(reveal, Reveal):
                accepted.append((case.worker, reveal.update))
        if not accepted:
            return state.context.model
        key = keccak(b"aggregate" + state.context.model + b"".join(a + u for a, u in accepted))
        state.once(key, Aggregate(key, tuple(accepted)))
        return state.models.get(key)

    def _certificate(
        self,
        replays: Mapping[tuple[bytes, bytes], Signed],
        links: tuple[tuple[bytes, bytes], ...],
        present: Mapping[bytes, Signed],
    ) -> CertifyPayload | None:
        """The one certificate that follows from this evidence; None while something is being worked out."""
        state = self._round
        context = state.context
        cases = self._cases(replays)
        if cases is None or state.lock is None:
            return None
        model = self._model(cases)
        if model is None:
            return None
        active = {case.worker for case in cases} | set(state.linked) | {a for a, _ in links} | set(present)
        roster = tuple(sorted(active))
        validators = [account for account in roster if context.has_role(account, VALIDATOR)]
        return CertifyPayload(
            replays=tuple(replays[key].raw for key in sorted(replays)),
            present=ordered(present),
            links=links,
            verdicts=rows(cases, list(state.linked)),
            model=model,
            roster=roster,
            committee=draw_committee(state.audit_beacon, validators, context.committee_size),
            lock_root=lock_root(state.lock),
            last=context.last,
        )

    def _draft_certificate(self) -> CertifyPayload | None:
        state = self._round
        context = state.context
        links = tuple(
            (account, value)
            for account, value in sorted(state.ballot.links.items())
            if belongs(value, context.enlisted[account].tip, context.place.round, Draw.ASSIGN)
        )
        if len(links) < quorum(len(context.place.committee)):
            return None
        disputes = state.disputes()
        replays = {key: signed for key, signed in state.replays.items() if key[1] in disputes.get(key[0], ())}
        return self._certificate(replays, links, state.present)

    def _accepts_certificate(self, payload: CertifyPayload) -> bool:
        state = self._round
        place = state.context.place
        self._accepts_links(payload.links, Draw.ASSIGN)
        present = {s.account: s for s in read_evidence(place.domain, payload.present, Present, place)}
        if any(account not in state.context.enlisted for account in present):
            return False  # this node's view of the chain may lag behind
        replays = {}
        for signed in read_evidence(place.domain, payload.replays, Replay, place):
            if isinstance(signed.body, Replay):
                replays[signed.body.unit, signed.account] = signed
        own = self._certificate(replays, payload.links, present)
        if own is not None and own != payload:
            raise Refused(Reason.MALFORMED, "the certificate is not the one that follows from its evidence")
        return own is not None
