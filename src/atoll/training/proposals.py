"""What a leader may propose in each phase, and what a member prepares: the same rules from both sides. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from atoll.errors import Refused
from atoll.training.audit import draw_committee
from atoll.training.beacon import Draw
from atoll.training.committee import (
    AUDIT,
    DISPUTED,
    REPLICA,
    UNIT,
    VALIDATION,
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
from atoll.training.verdict import Case, groups, rows, settle
from atoll.wire.hashing import keccak
from atoll.wire.messages import AuditCommit, AuditReveal, Commit, Phase, Present, Replay, Reveal, Signed
from atoll.wire.reasons import Reason

if TYPE_CHECKING:
    from atoll.training.round import Round

EMPTY_AFTER = 10
"""A round in which nobody commits is certified empty after so many training limits: so even a job whose model has
diverged comes to its end."""
Links = tuple[tuple[bytes, bytes], ...]
_CODES = {int(reason) for reason in Reason}
_KINDS = {UNIT, AUDIT, REPLICA, VALIDATION}


class Proposals:
    """Drafts payloads for a leader and weighs those of others, against what this node has seen in its round."""

    def __init__(self, state: Round) -> None:
        self._round = state
        self._fits: dict[bytes, bool] = {}  # raw opening -> whether it opens its commit

    def draft(self, phase: Phase, now: float) -> Payload | None:
        """The payload to propose now, None if it is too early."""
        state = self._round
        due = now >= state.due(phase)
        match phase:
            case Phase.LOCK:
                ready = due and (state.inbox.commits or self._nobody_commits(now))
                return LockPayload(ordered(state.inbox.commits)) if ready else None
            case Phase.BEACON:
                enough = len(state.links) >= quorum(len(state.context.place.committee))
                return BeaconPayload(tuple(sorted(state.links.items()))) if due and enough else None
            case Phase.AUDIT:
                drawn = {unit: state.inbox.audit_commits.get((unit, auditor)) for unit, auditor in state.audits.items()}
                held = {unit: signed for unit, signed in drawn.items() if signed is not None}
                return AuditPayload(ordered(held)) if due else None
            case Phase.OPEN:
                return self._draft_open(due, now)
            case Phase.CERTIFY:
                return self._draft_certificate(now) if due else None

    def check(self, payload: Payload) -> None:
        """Refuse what does not fit together with the phases before: no quorum makes it true, or safe to work with."""
        match payload:
            case LockPayload(commits=raws):
                self._read(raws, Commit, {unit.id: unit.account for unit in self._round.units.values()})
            case BeaconPayload(links=links):
                self._check_links(links, Draw.AUDIT)
            case AuditPayload(commits=raws):
                self._read(raws, AuditCommit, self._round.audits)
            case OpenPayload():
                self._read_openings(payload)
            case CertifyPayload():
                self._check_certificate(payload)

    def accepts(self, payload: Payload, obliged: bool, now: float) -> bool:
        """Whether to prepare a payload; False means not now. Raises Refused when it can never be right.

        `obliged`: it is carried on from an earlier view, so that only its correctness counts, not its timeliness.
        """
        self.check(payload)
        match payload:
            case LockPayload(commits=raws):
                named = {signed.body.unit for signed in self._learn(raws, now)}  # type: ignore[union-attr]
                timely = self._is_timely(Phase.LOCK, named, now) and (bool(raws) or self._nobody_commits(now))
                return obliged or timely
            case BeaconPayload(links=links):
                named = {account for account, _ in links}
                return obliged or self._is_timely(Phase.BEACON, named, now)
            case AuditPayload(commits=raws):
                named = {signed.body.unit + signed.account for signed in self._learn(raws, now)}  # type: ignore[union-attr]
                return obliged or self._is_timely(Phase.AUDIT, named, now)
            case OpenPayload():
                return self._accepts_open(payload, obliged, now)
            case CertifyPayload():
                return self._accepts_certificate(payload, obliged, now)

    # -- what all phases share -----------------------------------------------------------------------------------
    def _read(self, raws: Sequence[bytes], kind: type, owners: Mapping[bytes, bytes]) -> dict[bytes, Signed]:
        """Evidence about units, each from the account that owns it, in the order of the units; raises Refused."""
        found: dict[bytes, Signed] = {}
        for signed in read_evidence(self._round.read, raws, kind, self._round.context.place):
            unit = getattr(signed.body, "unit", b"")
            if owners.get(unit) != signed.account:
                raise Refused(Reason.UNKNOWN_ACCOUNT, f"a {kind.__name__} is not from the account that it is up to")
            if unit in found:
                raise Refused(Reason.DUPLICATE, "a unit is listed twice")
            found[unit] = signed
        if list(found) != sorted(found):
            raise Refused(Reason.MALFORMED, "evidence must be ordered by unit")
        return found

    def _learn(self, raws: Sequence[bytes], now: float) -> list[Signed]:
        """Keep what a proposal shows and this node had not received yet: it counts as arrived now."""
        shown = [self._round.read(raw) for raw in raws]
        for signed in shown:
            self._round.inbox.take(signed, now)
        return shown

    def _is_timely(self, phase: Phase, named: set[bytes], now: float) -> bool:
        """Whether the leader waited as it should, and left out nothing that was here for longer than the grace."""
        state = self._round
        missing = state.expected(phase) - named
        late = now - state.context.timing.grace
        if any(state.inbox.arrived.get((phase, key), now) < late for key in missing):
            return False
        return not missing or now >= state.due(phase, named)

    def _nobody_commits(self, now: float) -> bool:
        return now >= self._round.entered + EMPTY_AFTER * self._round.context.timing.train

    def _check_links(self, links: Links, draw: Draw) -> None:
        context, known = self._round.context, self._round.links_of(draw)
        accounts = [account for account, _ in links]
        if accounts != sorted(set(accounts)) or not set(accounts) <= set(context.place.committee):
            raise Refused(Reason.UNKNOWN_ACCOUNT, "links must come from distinct members, ordered by account")
        if len(accounts) < quorum(len(context.place.committee)):
            raise Refused(Reason.MALFORMED, "a beacon needs the links of a quorum")
        for account, value in links:
            if known.get(account) != value and not self._round.is_link(account, value, draw):
                raise Refused(Reason.BAD_PROOF, "a link does not belong to its enlisted hash chain")

    # -- OPEN ----------------------------------------------------------------------------------------------------
    def _read_openings(self, payload: OpenPayload) -> tuple[dict[bytes, Signed], dict[bytes, Signed]]:
        state = self._round
        reveals = self._read(payload.reveals, Reveal, {unit: state.units[unit].account for unit in state.locked})
        auditors = {unit: state.audits[unit] for unit in state.audited}
        audits = self._read(payload.audit_reveals, AuditReveal, auditors)
        if [unit for unit, _ in payload.findings] != sorted(state.locked):
            raise Refused(Reason.MALFORMED, "a finding is needed for each locked unit, in order")
        if not all(finding == DISPUTED or finding in _CODES for _, finding in payload.findings):
            raise Refused(Reason.MALFORMED, "a finding is neither a reason nor a dispute")
        disputed = {unit for unit, finding in payload.findings if finding in (DISPUTED, Reason.OK)}
        if not disputed <= set(reveals):
            raise Refused(Reason.MALFORMED, "a unit that was not revealed can be neither accepted nor disputed")
        return reveals, audits

    def _matches(self, commit: Commit | AuditCommit, signed: Signed) -> bool:
        """Whether a reveal opens the commit of its unit."""
        opening = signed.body
        if not isinstance(opening, Reveal | AuditReveal):
            return False
        if signed.raw not in self._fits:
            place, root = self._round.context.place, states_root(opening.states)
            made_of = (signed.account, root, opening.update, opening.salt)
            digest = commit_hash(place.domain, place.job, place.round, opening.unit, *made_of)
            whole = len(opening.states) == self._round.units[opening.unit].segments + 1
            self._fits[signed.raw] = whole and digest == commit.digest
        return self._fits[signed.raw]

    def _audit_opened(self, unit: bytes, audits: Mapping[bytes, Signed]) -> Reason:
        """Whether the locked audit of a unit was opened as it was committed."""
        signed = audits.get(unit)
        if signed is None or unit not in self._round.audited:
            return Reason.NOT_REVEALED
        return Reason.OK if self._matches(self._round.audited[unit], signed) else Reason.COMMIT_MISMATCH

    def _finding(
        self, unit: bytes, reveals: Mapping[bytes, Signed], audits: Mapping[bytes, Signed], now: float
    ) -> int | None:
        """What this node finds about a locked unit; None while it is still looking."""
        state = self._round
        signed = reveals.get(unit)
        reveal = signed.body if signed is not None else None
        if signed is None or not isinstance(reveal, Reveal):
            return Reason.NOT_REVEALED
        if not self._matches(state.locked[unit], signed):
            return Reason.COMMIT_MISMATCH
        if reveal.states[0] != state.context.model:
            return Reason.STATE_ORIGIN
        audit_states: tuple[bytes, ...] = ()
        if unit in state.audits:
            if self._audit_opened(unit, audits) is not Reason.OK:
                return DISPUTED
            audit = audits[unit].body
            if isinstance(audit, AuditReveal):
                same = (audit.states[-1], audit.update) == (reveal.states[-1], reveal.update)
                audit_states = () if same else audit.states
        key = keccak(b"examine" + signed.raw + b"".join(audit_states))
        if key in state.findings:
            return state.findings[key]
        state.once(key, Examine(key, state.units[unit], reveal, audit_states))
        # bytes that nobody has shown in time: an update that cannot be had is not revealed; replicas look at the rest
        in_vain = key in state.failed and now >= state.entered + state.context.timing.reveal
        return (DISPUTED if audit_states else Reason.NOT_REVEALED) if in_vain else None

    def _draft_open(self, due: bool, now: float) -> OpenPayload | None:
        state = self._round
        reveals = {unit: signed for unit, signed in state.inbox.reveals.items() if unit in state.locked}
        drawn = {unit: state.inbox.audit_reveals.get((unit, state.audits[unit])) for unit in state.audited}
        audits = {unit: signed for unit, signed in drawn.items() if signed is not None}
        findings = {unit: self._finding(unit, reveals, audits, now) for unit in sorted(state.locked)}
        if not due or any(finding is None for finding in findings.values()):
            return None
        listed = tuple((unit, int(finding)) for unit, finding in findings.items() if finding is not None)
        return OpenPayload(ordered(reveals), ordered(audits), listed)

    def _accepts_open(self, payload: OpenPayload, obliged: bool, now: float) -> bool:
        state = self._round
        reveals, audits = self._read_openings(payload)
        self._learn((*payload.reveals, *payload.audit_reveals), now)
        named = set(reveals) | {unit + signed.account for unit, signed in audits.items()}
        if not obliged and not self._is_timely(Phase.OPEN, named, now):
            return False
        findings = {unit: self._finding(unit, reveals, audits, now) for unit in state.locked}
        if any(finding is None for finding in findings.values()):
            return False
        wrong = {unit for unit, finding in payload.findings if findings[unit] != finding}
        if any(findings[unit] in (DISPUTED, Reason.NOT_REVEALED) and unit in reveals for unit in wrong):
            return False  # others may have bytes that this node could not get so far
        if wrong:
            raise Refused(Reason.MALFORMED, "the findings are not those of this node")
        return True

    # -- CERTIFY -------------------------------------------------------------------------------------------------
    def _cases(self, replays: Mapping[tuple[bytes, bytes], Signed], now: float) -> list[Case] | None:
        """Every locked unit with all that is known about it; None while a judgement is still being worked out."""
        state = self._round
        if state.opened is None:
            return None
        cases, waiting = [], False
        for unit, finding in state.opened.findings:
            segments = state.units[unit].segments
            said = {
                account: (signed.body.segment, signed.body.state)
                for (of, account), signed in replays.items()
                if of == unit and isinstance(signed.body, Replay)
            }
            convicted: set[int] = set()
            for segment, accounts in groups(said).items():
                enough = 1 if segment == segments + 1 else 2
                if len(accounts) >= enough and 0 < segment <= segments + 1:
                    guilty = self._judgement(unit, segment, tuple((a, said[a][1]) for a in accounts), now)
                    waiting |= guilty is None
                    convicted |= {segment} if guilty else set()
            opened = self._audit_opened(unit, state.audits_opened)
            worker, auditor, audited = state.units[unit].account, state.audits.get(unit), unit in state.audited
            cases.append(Case(unit, worker, finding, auditor, audited, opened, said, frozenset(convicted), segments))
        return None if waiting else cases

    def _judgement(
        self, unit: bytes, segment: int, replicas: tuple[tuple[bytes, bytes], ...], now: float
    ) -> bool | None:
        state = self._round
        reveal = state.reveals[unit].body
        if not isinstance(reveal, Reveal):
            return False
        key = keccak(b"judge" + unit + bytes([segment]) + b"".join(a + s for a, s in replicas))
        if key in state.judgements:
            return state.judgements[key]
        state.once(key, Judge(key, state.units[unit], reveal, segment, replicas))
        # states that the replicas cannot show convict nobody
        in_vain = key in state.failed and now >= state.entered + state.context.timing.train
        return False if in_vain else None

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
        if key not in state.models:
            state.once(key, Aggregate(key, tuple(accepted)))
        return state.models.get(key)

    def _certificate(
        self,
        replays: Mapping[tuple[bytes, bytes], Signed],
        links: Links,
        present: Mapping[bytes, Signed],
        now: float,
    ) -> CertifyPayload | None:
        """The one certificate that follows from this evidence; None while something is being worked out."""
        state = self._round
        context = state.context
        cases = self._cases(replays, now)
        model = self._model(cases) if cases is not None else None
        if cases is None or model is None or state.lock is None:
            return None
        active = {case.worker for case in cases} | set(state.linked) | {a for a, _ in links}
        room = max(0, context.room - len(active))
        admitted = sorted(set(present) - active)[:room]
        roster = tuple(sorted(active | set(admitted)))
        validators = [account for account in roster if context.has_role(account, VALIDATOR)]
        return CertifyPayload(
            replays=tuple(replays[key].raw for key in sorted(replays)),
            present=tuple(present[account].raw for account in admitted),
            links=links,
            verdicts=rows(cases, list(state.linked)),
            model=model,
            roster=roster,
            committee=draw_committee(state.audit_beacon, validators, context.committee_size),
            lock_root=lock_root(state.lock),
            last=context.last,
        )

    def _draft_certificate(self, now: float) -> CertifyPayload | None:
        state = self._round
        links = tuple(sorted(state.links_of(Draw.ASSIGN).items()))
        if len(links) < quorum(len(state.context.place.committee)):
            return None
        disputes = state.disputes
        replays = {key: signed for key, signed in state.inbox.replays.items() if key[1] in disputes.get(key[0], ())}
        return self._certificate(replays, links, state.present, now)

    def _check_certificate(self, payload: CertifyPayload) -> None:
        """What later rounds rely on; the rest is only told by those who took part."""
        context = self._round.context
        self._check_links(payload.links, Draw.ASSIGN)
        if list(payload.roster) != sorted(set(payload.roster)) or not set(payload.committee) <= set(payload.roster):
            raise Refused(Reason.MALFORMED, "the roster must be ordered and hold the committee")
        if len(set(payload.committee)) != len(payload.committee) or not payload.committee:
            raise Refused(Reason.MALFORMED, "the next committee must have members, each once")
        if payload.last != context.last:
            raise Refused(Reason.MALFORMED, "the certificate is wrong about whether this is the last round")
        if not all(row.kind in _KINDS and row.reason in _CODES for row in payload.verdicts):
            raise Refused(Reason.MALFORMED, "a verdict has an unknown kind or reason")

    def _accepts_certificate(self, payload: CertifyPayload, obliged: bool, now: float) -> bool:
        state = self._round
        place, disputes = state.context.place, state.disputes
        present = {s.account: s for s in read_evidence(state.read, payload.present, Present, place)}
        if any(account not in state.context.enlisted for account in present):
            return False  # this node's view of the chain may lag behind
        replays = {}
        for signed in read_evidence(state.read, payload.replays, Replay, place):
            unit = getattr(signed.body, "unit", b"")
            if signed.account not in disputes.get(unit, ()):
                raise Refused(Reason.UNKNOWN_ACCOUNT, "a replay comes from a node that was not drawn for it")
            replays[unit, signed.account] = signed
        self._learn(payload.replays, now)
        named = {unit + account for unit, account in replays}
        if not obliged and not self._is_timely(Phase.CERTIFY, named, now):
            return False
        own = self._certificate(replays, payload.links, present, now)
        if own is not None and own != payload:
            raise Refused(Reason.MALFORMED, "the certificate is not the one that follows from its evidence")
        return own is not None
