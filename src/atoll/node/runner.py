"""Runs one job: feeds its core with events, writes them down, and carries the effects out.

The core's time is the monotonic clock: setting a device's clock neither hurries nor holds up a round.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.errors import AtollError, Refused
from atoll.node import records
from atoll.node.courier import Courier
from atoll.node.job import Job
from atoll.node.journal import Journal
from atoll.training.events import Effect, Event, Finished, Note, Received, Send, Tick, Train
from atoll.training.opponents import attack
from atoll.training.round import Round
from atoll.training.workbench import Workbench
from atoll.wire.messages import HistoryAsk, Phase
from atoll.wire.reasons import Reason

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25
RETRY_SECONDS = 1.0
WAITING_EVENTS = 10_000
"""Messages are dropped when so many events wait; what this node worked out never is."""


@dataclass
class Progress:
    """What the job's round is doing now, for people."""

    round: int = 0
    phase: str = ""
    started: float = 0.0
    ended: float = 0.0


class Runner:
    """One job at this node. `on_round` is called with every finished round, after it has been written down."""

    def __init__(
        self,
        job: Job,
        workbench: Workbench,
        journal: Journal,
        courier: Courier,
        on_round: Callable[[Finished], None],
        opponent: str = "",
    ) -> None:
        self.job, self.workbench = job, workbench
        self.progress = Progress(started=time.time())
        self.seconds: dict[str, float] = {phase.name.lower(): 0.0 for phase in Phase}
        self._journal, self._courier, self._on_round, self._opponent = journal, courier, on_round, opponent
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._phase: tuple[int, Phase | None, float] = (0, None, time.time())
        self.paused = False

    @property
    def id(self) -> bytes:
        """The job's id."""
        return self.job.terms.job

    def submit(self, event: Event) -> None:
        """Give the core an event; when too many wait, messages are dropped (the sender says them again)."""
        if isinstance(event, Received) and self._events.qsize() >= WAITING_EVENTS:
            log.warning("too many events wait for job %s; a message was dropped", self.id.hex()[:8])
            return
        self._events.put_nowait(event)

    def replay(self) -> None:
        """Fold the journal in, without beginning anything: the certificates, then the events of open rounds."""
        domain, now = self.job.terms.domain, time.monotonic()
        while (raw := self._journal.get_snapshot(self._certificate_key(self.job.standing.round))) is not None:
            finished = self.job.handle(records.read(domain, "Received", raw), now, act=False)
            for effect in finished:
                if isinstance(effect, Finished):
                    self._on_round(effect)
            if not finished or self.job.standing.done:
                break
        for entry in list(self._journal.read(self.id, self.job.standing.round)):  # `_finish` prunes what is read
            for effect in self.job.handle(records.read(domain, entry.kind, entry.payload), now, act=False):
                if isinstance(effect, Finished):  # its end was not yet written down
                    self._finish(effect)
        if self.job.standing.round:
            log.info("job %s goes on at round %d", self.id.hex()[:8], self.job.standing.round)

    def _certificate_key(self, round_number: int) -> str:
        return f"certificate/{self.id.hex()}/{round_number}"

    async def run(self) -> None:
        """Until the job is done, and on to answer those who are behind."""
        self._carry_out(self.job.resume(time.monotonic()))
        next_tick = time.monotonic() + TICK_SECONDS
        while True:
            event = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, next_tick - time.monotonic())):
                    event = await self._events.get()
            if event is not None:
                self._handle(event)
            if time.monotonic() >= next_tick:  # also when messages never cease
                self._handle(Tick())
                next_tick = time.monotonic() + TICK_SECONDS
                await asyncio.sleep(0)
            elif self._events.empty():  # not before: what is read in one go may end a round whose work need not begin
                await asyncio.sleep(0)

    def _handle(self, event: Event) -> None:
        if self.job.is_news(event):
            number = event.signed.body.round if isinstance(event, Received) else self.job.standing.round
            self._write(number, event, durable=False)
        elif isinstance(event, Received) and not isinstance(event.signed.body, HistoryAsk):
            return  # heard before, or over
        self._carry_out(self.job.handle(event, time.monotonic()))
        self._note_phase()

    def _write(self, round_number: int, event: Event, durable: bool) -> None:
        written = records.write(event)
        if written is not None:
            self._journal.append(self.id, round_number, *written, durable=durable)

    def _note_phase(self) -> None:
        now = time.time()
        current = self.job.round
        key = (self.job.standing.round, current.ballot.phase if current else None)
        if key != self._phase[:2]:
            _, phase, since = self._phase
            if phase is not None:
                self.seconds[phase.name.lower()] += now - since
            self._phase = (*key, now)
            self.progress.round, self.progress.phase = key[0], "done" if key[1] is None else key[1].name.lower()

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(to=to, message=message, promise=promise):
                    if promise:  # whatever happens next, this node must know what it said
                        self._write(message.body.round, Received(message), durable=True)
                    for account in to:
                        self._courier.send(account, message.raw)
                case Note(text=text):
                    log.info("%s", text)
                case Finished():
                    self._finish(effect)
                case _:
                    self._start(self._do(effect, self.job.round))

    def _finish(self, finished: Finished) -> None:
        signed = self.job.sign(self.job.certificates[finished.round])
        self._journal.put_snapshot(self._certificate_key(finished.round), signed.raw)
        self._journal.prune(self.id, finished.round + 1)
        if self.job.standing.done:
            self.progress.ended = time.time()
        self._on_round(finished)

    def shorten(self, rounds: int) -> bool:
        """The developer ends the job after `rounds` rounds; whether it is over now."""
        over = self.job.shorten(rounds)
        if over:
            self.progress.ended = time.time()
            self._note_phase()
        return over

    async def _do(self, effect: Effect, current: Round | None) -> None:
        """One piece of work, tried again as long as its round is open."""
        if current is None:
            return
        context = current.context
        others = tuple(account for account in context.everybody if account != self.job.member.account)
        while self.job.round is current:
            try:
                event = await self._result(effect, context.model, others)
            except AtollError as error:  # a peer or the engine may be back in a moment
                log.warning("%s could not be done: %s", type(effect).__name__, error)
                if isinstance(error, Refused) and error.reason is Reason.DIVERGED:  # it would diverge again
                    return
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if event is not None:
                self.submit(event)
            return

    async def _result(self, effect: Effect, model: bytes, others: Sequence[bytes]) -> Event | None:
        if isinstance(effect, Train) and not effect.audit:
            if self.paused:
                return None
            if self._opponent:
                return await attack(self._opponent, self.workbench, effect.unit, model, others)
        return await self.workbench.carry_out(effect, model, others)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop working."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
