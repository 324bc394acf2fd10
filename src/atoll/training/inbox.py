"""What a round has received about its units, from whom it may be received, and when it came. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.wire.messages import AuditCommit, AuditReveal, Commit, Phase, Replay, Reveal, Signed, Work

if TYPE_CHECKING:
    from atoll.training.round import Round

PER_ACCOUNT = 64
"""Messages about work that are kept of one account: many more than an honest node has to send."""


class Inbox:
    """The first message of each kind about each unit, from the account that it is up to; `arrived` says when."""

    def __init__(self, state: Round) -> None:
        self._round = state
        self.commits: dict[bytes, Signed] = {}
        self.audit_commits: dict[tuple[bytes, bytes], Signed] = {}  # (unit, auditor)
        self.reveals: dict[bytes, Signed] = {}
        self.audit_reveals: dict[tuple[bytes, bytes], Signed] = {}
        self.replays: dict[tuple[bytes, bytes], Signed] = {}  # (unit, replica)
        self.arrived: dict[tuple[Phase, bytes], float] = {}
        self._taken: dict[bytes, int] = {}

    def wants(self, signed: Signed) -> bool:
        """Whether a message is about a unit, from somebody whose it may be, and the first of its kind."""
        state, body, account = self._round, signed.body, signed.account
        unit = state.units.get(body.unit) if isinstance(body, Work) else None
        if unit is None or account not in state.context.roster or self._taken.get(account, 0) >= PER_ACCOUNT:
            return False
        auditor = state.audits.get(unit.id) if state.audit_beacon else account  # not drawn yet: it may turn out so
        match body:
            case Commit():
                return account == unit.account and unit.id not in self.commits
            case Reveal():
                return account == unit.account and unit.id not in self.reveals
            case AuditCommit():
                return account == auditor and (unit.id, account) not in self.audit_commits
            case AuditReveal():
                return account == auditor and (unit.id, account) not in self.audit_reveals
            case Replay():
                replicas = state.disputes.get(unit.id, ()) if state.opened else (account,)
                return account in replicas and (unit.id, account) not in self.replays
        return False

    def take(self, signed: Signed, now: float) -> None:
        """Keep a message that is wanted, however it came here."""
        if not self.wants(signed):
            return
        body, account = signed.body, signed.account
        self._taken[account] = self._taken.get(account, 0) + 1
        match body:
            case Commit(unit=unit):
                self.commits[unit] = signed
                self.arrived[Phase.LOCK, unit] = now
            case AuditCommit(unit=unit):
                self.audit_commits[unit, account] = signed
                self.arrived[Phase.AUDIT, unit + account] = now
            case Reveal(unit=unit):
                self.reveals[unit] = signed
                self.arrived[Phase.OPEN, unit] = now
            case AuditReveal(unit=unit):
                self.audit_reveals[unit, account] = signed
                self.arrived[Phase.OPEN, unit + account] = now
            case Replay(unit=unit):
                self.replays[unit, account] = signed
                self.arrived[Phase.CERTIFY, unit + account] = now
