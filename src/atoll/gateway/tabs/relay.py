"""The gateway's side of all browser tabs: follows the jobs for them, passes on what they say, keeps what they upload.

A tab is a socket with an account that it has proven. What an account has said and uploaded belongs to the account: the
relay goes on with it when the tab has left, and a tab that comes back finds it again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from atoll.errors import AtollError, Refused
from atoll.gateway.tabs import telling
from atoll.gateway.tabs.duties import Duties, check_saying, duties_of, named_blobs, served_blobs
from atoll.gateway.tabs.limits import IDLE_SECONDS, Loads, Places
from atoll.gateway.tabs.memory import Memory
from atoll.gateway.tabs.outbox import Outbox
from atoll.gateway.tabs.sponsor import Sponsor
from atoll.node.material import Material
from atoll.node.runner import Runner
from atoll.wire.hashing import blob_id
from atoll.wire.messages import Signed, unseal
from atoll.wire.reasons import Reason

if TYPE_CHECKING:
    from atoll.node.daemon import Node

log = logging.getLogger(__name__)

STEP_SECONDS = 0.1
WRITE_SECONDS = 1.0


@dataclass(eq=False)
class Tab:
    """A socket whose account is proven. `token` lets it upload, `leave` ends it from here."""

    account: bytes
    address: str
    token: str
    outbox: Outbox
    leave: asyncio.Event
    nonce: int = 0
    heard: float = 0.0
    paused: bool = False
    reason: str = ""

    def end(self, reason: str) -> None:
        """Close the socket and say why."""
        self.reason = self.reason or reason
        self.leave.set()


@dataclass
class _Followed:
    """What the relay knows of one job: what it has told, and what its tabs have said."""

    memory: Memory
    manifest: bytes
    key: object = None
    enlisting: object = None
    chapter: telling.Chapter | None = None
    served: set[bytes] = field(default_factory=set)
    told: int = 0
    written: float = 0.0


class Relay:
    """All tabs of one gateway."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.sponsor = Sponsor(node)
        self.places = Places(node.settings.max_tabs)
        self.loads = Loads()
        self.tabs: dict[bytes, Tab] = {}
        self._tokens: dict[str, Tab] = {}
        self._jobs: dict[bytes, _Followed] = {}

    # -- tabs come and go ----------------------------------------------------------------------------------------------
    def enter(self, tab: Tab) -> None:
        """A tab has proven its account; another one with the same account gives way."""
        before = self.tabs.get(tab.account)
        if before is not None:
            self.leave(before)
            before.end("another tab works with this account now")
        self.tabs[tab.account], self._tokens[tab.token] = tab, tab
        for runner in self.node.jobs.runners:
            self._tell_job(tab, runner)
            self._tell_round(tab, runner, self._followed(runner))
        self._tell_account(tab, self.sponsor.hints())

    def leave(self, tab: Tab) -> None:
        """A tab is gone; what it said stays."""
        if self.tabs.get(tab.account) is tab:
            del self.tabs[tab.account]
        self._tokens.pop(tab.token, None)

    def tab_of(self, token: str) -> Tab | None:
        """Whose token this is."""
        return self._tokens.get(token)

    def make_room(self, now: float) -> None:
        """End the tab that was silent for longest, if one is idle: it has no duty, and a newcomer may have."""
        idle = [tab for tab in self.tabs.values() if now >= tab.heard + IDLE_SECONDS and not self._is_busy(tab)]
        if idle:
            min(idle, key=lambda tab: tab.heard).end("the gateway is full, and this tab had nothing to do")

    def _is_busy(self, tab: Tab) -> bool:
        return any(tab.account in runner.job.enlisted for runner in self.node.jobs.runners if runner.job.round)

    # -- what tabs say -------------------------------------------------------------------------------------------------
    def say(self, account: bytes, raw: bytes) -> None:
        """Pass an envelope of an account on to its committee, now and at every nudge; raises Refused."""
        signed = unseal(self.node.domain, raw)
        if signed.account != account:
            raise Refused(Reason.BAD_SIGNATURE, "the envelope is not signed by this tab's account")
        runner = self.runner_of(signed.body.job)
        duties = duties_of(runner.job, account)
        check_saying(duties, signed)
        missing = [blob for blob in named_blobs(signed.body, runner.job.standing.model) if not self._has(blob)]
        if missing:
            raise Refused(Reason.NOT_FOUND, f"blob {missing[0].hex()} is named, but was not uploaded")
        followed = self._followed(runner)
        if followed.memory.say(signed, time.monotonic()):
            self._pass_on(runner, signed)
            self._write(runner.id, followed)  # before the tab is told that it was taken, and may go

    def _has(self, blob: bytes) -> bool:
        return self.node.blobs.has(blob)

    def _pass_on(self, runner: Runner, signed: Signed) -> None:
        state = runner.job.round
        for member in state.context.place.committee if state else ():
            self.node.courier.send(member, signed.raw)

    def runner_of(self, job: bytes) -> Runner:
        """The runner of a job; raises Refused(NOT_FOUND)."""
        for runner in self.node.jobs.runners:
            if runner.id == job:
                return runner
        raise Refused(Reason.NOT_FOUND, f"job 0x{job.hex()[:8]} is not running here")

    # -- what tabs upload ----------------------------------------------------------------------------------------------
    def allowance(self, account: bytes, size: int) -> tuple[Runner, Duties]:
        """The job for which an account may upload a blob of so many bytes now; raises Refused."""
        refusal = Refused(Reason.NOT_FOUND, "no job asks this account for blobs now")
        for runner in self.node.jobs.runners:
            duties = duties_of(runner.job, account)
            if duties is None or not duties.any:
                continue
            limit = self.node.jobs.materials[runner.id].manifest.state_bytes
            if size > limit:
                refusal = Refused(Reason.TOO_LARGE, f"{size} bytes; nothing in a round is larger than {limit}")
            elif self._followed(runner).memory.uploaded(duties.round, account) >= duties.blobs:
                refusal = Refused(Reason.BUSY, f"a round asks this account for {duties.blobs} blobs and has them")
            else:
                return runner, duties
        raise refusal

    def keep(self, account: bytes, data: bytes) -> bytes:
        """Store an uploaded blob until its round is certified; returns its id. Raises Refused."""
        runner, duties = self.allowance(account, len(data))
        blobs, memory = self.node.blobs, self._followed(runner).memory
        blob = blobs.put(data)
        if not blobs.pinned(blob) or memory.holds(blob):
            memory.keep(duties.round, account, blob)
            blobs.pin(blob)
        return blob

    def serves(self, blob: bytes) -> bool:
        """Whether a tab may ask for a blob: it belongs to a job, or was revealed in its present round."""
        return any(blob in followed.served for followed in self._jobs.values())

    # -- following -----------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Until the node stops."""
        try:
            while True:
                try:
                    self.step(time.monotonic())
                except AtollError as error:  # the disk is full, say: tabs wait, the node goes on
                    log.warning("browser tabs wait: %s", error)
                await asyncio.sleep(STEP_SECONDS)
        finally:
            for job, followed in self._jobs.items():
                self._write(job, followed)

    def step(self, now: float) -> None:
        """Look at all jobs once: tell tabs what is new, say again what was said, claim what is final."""
        for runner in self.node.jobs.runners:
            self._follow(runner, now)
        hints = self.sponsor.hints() if self.tabs else ""
        for tab in self.tabs.values():
            self._tell_account(tab, hints)
        self.sponsor.step(now)

    def _followed(self, runner: Runner) -> _Followed:
        known = self._jobs.get(runner.id)
        if known is None:
            manifest = blob_id(self.node.jobs.materials[runner.id].manifest.to_bytes())
            told = len(self.node.jobs.finished[runner.id])
            known = self._jobs[runner.id] = _Followed(Memory(), manifest, told=told)
            self._remember(runner, known.memory)
            self._look(runner, known)
        return known

    def _follow(self, runner: Runner, now: float) -> None:
        job, followed = runner.job, self._followed(runner)
        self._tell_verdicts(runner, followed)
        if telling.state_key(job) != followed.key:
            self._look(runner, followed)
            for tab in self.tabs.values():
                self._tell_round(tab, runner, followed)
        enlisting = (len(job.enlisted), job.standing.done, len(job.standing.roster))
        if enlisting != followed.enlisting:
            followed.enlisting = enlisting
            for tab in self.tabs.values():
                self._tell_job(tab, runner)
        if job.round is not None:
            for signed in followed.memory.due(job.standing.round, job.round.ballot.phase, now):
                self._pass_on(runner, signed)
        if now >= followed.written + WRITE_SECONDS:
            followed.written = now
            self._write(runner.id, followed)

    def _write(self, job: bytes, followed: _Followed) -> None:
        """Write down what tabs have said and uploaded, if it has changed: a restart finds it again."""
        if followed.memory.changed:
            self.node.journal.put_snapshot(_snapshot(job), followed.memory.pack())

    def _look(self, runner: Runner, followed: _Followed) -> None:
        """The job has moved: work out what all its tabs are told, and let go of the rounds that are over."""
        job = runner.job
        followed.key = telling.state_key(job)
        followed.chapter = telling.chapter(job)
        material = self.node.jobs.materials[runner.id]
        followed.served = served_blobs(job, followed.manifest, material.manifest)
        for blob in followed.memory.forget(job.standing.round):
            self.node.blobs.unpin(blob)

    def _remember(self, runner: Runner, memory: Memory) -> None:
        """After a restart: what tabs had said and uploaded; what cannot be said any more is left out."""
        packed = self.node.journal.get_snapshot(_snapshot(runner.id))
        try:
            rows = memory.unpack(packed) if packed else []
        except msgspec.DecodeError:
            log.warning("what browser tabs said in job %s cannot be read; they say it again", runner.id.hex()[:8])
            return
        for _, account, envelopes in rows:
            for raw in envelopes:
                try:
                    signed = unseal(self.node.domain, raw)
                    if signed.body.round == runner.job.standing.round and signed.account == account:
                        memory.say(signed, time.monotonic())
                except Refused as refusal:
                    log.info("an envelope of a browser tab is left out: %s", refusal)

    # -- telling -------------------------------------------------------------------------------------------------------
    def _tell_round(self, tab: Tab, runner: Runner, followed: _Followed) -> None:
        duties = duties_of(runner.job, tab.account)
        if duties is None or followed.chapter is None or not duties.enlisted:
            return
        said = followed.memory.said(duties.round, tab.account)
        if not tab.paused or said:
            tab.outbox.state(("round", runner.id), telling.round_of(duties, followed.chapter, said))

    def tell_rounds(self, tab: Tab) -> None:
        """Tell a tab again where its jobs are, after it was paused."""
        for runner in self.node.jobs.runners:
            self._tell_round(tab, runner, self._followed(runner))

    def _tell_job(self, tab: Tab, runner: Runner) -> None:
        material, manifest_id = self.node.jobs.materials[runner.id], self._followed(runner).manifest
        size = self._size(material, manifest_id)
        frame = telling.job(runner.job, manifest_id, material.manifest, tab.account, size)
        tab.outbox.state(("job", runner.id), frame)

    def _size(self, material: Material, manifest_id: bytes) -> int:
        """Bytes of what a tab downloads once for a job."""
        manifest, blobs = material.manifest, self.node.blobs
        parts = [manifest_id, bytes.fromhex(manifest.step), bytes.fromhex(manifest.initial)]
        if material.frozen is not None:
            parts.append(bytes.fromhex(manifest.params))
        return sum(blobs.size(part) for part in parts if blobs.has(part))

    def _tell_account(self, tab: Tab, hints: str) -> None:
        standing = self.sponsor.standing(tab.account, tab.nonce, hints)
        tab.outbox.state("account", telling.account(standing, tab.token))

    def _tell_verdicts(self, runner: Runner, followed: _Followed) -> None:
        finished: Sequence[object] = self.node.jobs.finished[runner.id]
        while followed.told < len(finished):
            receipts = self.node.settler.book.receipts(runner.id, followed.told)
            followed.told += 1
            for tab in self.tabs.values():
                for frame in telling.verdicts(receipts, tab.account):
                    tab.outbox.event(frame)
        followed.told = min(followed.told, len(finished))  # a job that was shortened forgets rounds


def _snapshot(job: bytes) -> str:
    return f"tabs/{job.hex()}"
