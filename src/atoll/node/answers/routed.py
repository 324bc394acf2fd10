"""Answers from here where the model fits, else from servers that the router picks, with spot checks (`Answers`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.errors import AtollError, BadInput, Refused, UnknownModel, Unreachable
from atoll.inference import messages as wire
from atoll.inference.answers import (
    Answers,
    Checked,
    Embedded,
    Floats,
    Kind,
    Message,
    ModelInfo,
    Piece,
    Sampling,
    Served,
    Stream,
)
from atoll.inference.messages import Chunk, Order
from atoll.inference.router import Candidate, Outcome, Wanted, ranked
from atoll.inference.spotcheck import Judgement, is_drawn
from atoll.inference.vouchers import Price
from atoll.node.answers import questions
from atoll.node.answers.asking import Asker, Exchange, MakeQuestion
from atoll.node.answers.checking import Checker, Finding
from atoll.node.answers.payments import Evidence
from atoll.wire.identity import format_account
from atoll.wire.reasons import Reason
from atoll.wire.rpc import encode_body

log = logging.getLogger(__name__)

OFFERS_SECONDS = 30.0
"""How long offers are believed."""
MAX_SERVERS = 64
"""Servers whose offers are asked for."""


@dataclass(frozen=True)
class Market:
    """Where answers can be had. `servers`: accounts that may be asked now; `known`: what the catalogue says of a model
    whose file may not be here; `fits`: whether a model can run here."""

    local: Answers
    servers: Callable[[], Sequence[bytes]]
    known: Callable[[str], ModelInfo | None] = lambda _: None
    fits: Callable[[ModelInfo], bool] = lambda _: True
    dice: Callable[[], bytes] = lambda: os.urandom(32)
    clock: Callable[[], float] = time.time


@dataclass
class _Offers:
    at: float = 0.0
    by_server: dict[bytes, wire.Offering] = field(default_factory=dict)


class RoutedAnswers:
    """Models here and at servers. With `remote`, servers are asked even for what could run here."""

    def __init__(self, market: Market, asker: Asker, *, remote: bool = False, offers: _Offers | None = None) -> None:
        self._market, self._asker, self._remote = market, asker, remote
        self._offers = _Offers() if offers is None else offers
        self._payments = asker.payments
        self._checker = Checker(market.local, asker, self._own_model, self._unanswered)

    def remotely(self) -> RoutedAnswers:
        """The same, but servers are always asked."""
        return RoutedAnswers(self._market, self._asker, remote=True, offers=self._offers)

    # -- models --------------------------------------------------------------------------------------------------
    def models(self) -> Sequence[ModelInfo]:
        """Models of this device, then those that servers offered when they were last asked (`refresh`)."""
        known = {info.id: info for info in self._market.local.models()}
        for offering in self._offers.by_server.values():
            for offer in offering.models:
                known.setdefault(offer.id, questions.info_of(offer))
        return list(known.values())

    @property
    def offerings(self) -> Mapping[bytes, wire.Offering]:
        """What each server offered when it was last asked."""
        return self._offers.by_server

    async def refresh(self) -> None:
        """Ask all servers what they offer."""
        servers = list(self._market.servers())[:MAX_SERVERS]
        found = await asyncio.gather(*map(self._asker.offers, servers), return_exceptions=True)
        for server, offering in zip(servers, found, strict=True):
            if isinstance(offering, wire.Offering):
                readable = tuple(one for one in offering.models if one.id.isprintable())
                self._offers.by_server[server] = wire.Offering(readable, offering.load)
            elif isinstance(offering, AtollError):
                self._offers.by_server.pop(server, None)
            else:
                raise offering
        for server in set(self._offers.by_server) - set(servers):
            del self._offers.by_server[server]
        self._offers.at = self._market.clock()

    def _local(self, model: str) -> ModelInfo | None:
        for info in self._market.local.models():
            if model in (info.id, info.blob):
                return info
        return None

    def _own_model(self, candidate: Candidate) -> str | None:
        """The name here of the very model that a server offers, if it can run here."""
        for info in self._market.local.models():
            same = info.blob and info.blob == candidate.offer.blob.hex()
            if same and info.kind == candidate.offer.kind and self._market.fits(info):
                return info.id
        return None

    def _runs_here(self, model: str, kind: Kind) -> bool:
        """Whether this device answers; a model of another kind as well, to say so."""
        info = self._local(model)
        return not self._remote and info is not None and (info.kind != kind or self._market.fits(info))

    async def _candidates(self, model: str, kind: Kind) -> list[Candidate]:
        """Who offers this model; raises UnknownModel if nobody does."""
        info = self._local(model) or self._market.known(model)
        if self._market.clock() > self._offers.at + OFFERS_SECONDS:
            await self.refresh()
        found = []
        for server, offering in self._offers.by_server.items():
            for offer in offering.models:
                same = offer.blob.hex() == info.blob if info and info.blob else model in (offer.id, offer.blob.hex())
                if same and offer.kind == kind:
                    found.append(Candidate(server, offer, offering.load))
                    break
        if not found:
            raise UnknownModel(f"No server offers the {kind} model {model!r}, and it does not run here.")
        return found

    async def ranked(self, model: str, make: MakeQuestion) -> list[Candidate]:
        """The servers of a model in the order in which they are asked; raises UnknownModel, Refused(WRONG_ANSWER)."""
        sample = make(Order(bytes(wire.NONCE_BYTES), "?", b""))
        candidates = await self._candidates(model, questions.KIND[type(sample)])
        market, records = self._market, self._payments.records
        order = ranked(candidates, records, questions.wanted(sample), market.clock(), market.dice())
        if not order:
            raise Refused(Reason.WRONG_ANSWER, f"all {len(candidates)} servers of {model} were caught in lies")
        return order

    # -- answers -------------------------------------------------------------------------------------------------
    async def classify(self, model: str, x: NDArray[Any]) -> tuple[Floats, Served]:
        """Scores float32 [n, classes] of inputs x [n, ...]."""
        if self._runs_here(model, "classifier"):
            return await self._market.local.classify(model, x)
        if not 1 <= len(x) <= wire.MAX_INPUTS or x.nbytes > wire.MAX_REQUEST_BYTES:
            raise BadInput(
                f"{len(x)} inputs of {x.nbytes} bytes; servers take 1 to {wire.MAX_INPUTS}, of 8 MiB in all."
            )
        data = np.ascontiguousarray(x, x.dtype.newbyteorder("<")).tobytes()
        try:
            values, _, served = await self._numbers(model, lambda order: wire.Classify(order, len(x), data), len(x))
        except UnknownModel:
            if self._remote:
                raise
            return await self._market.local.classify(model, x)
        return values, served

    async def embed(self, model: str, texts: Sequence[str]) -> Embedded:
        """Vectors of texts."""
        if self._runs_here(model, "embedding"):
            return await self._market.local.embed(model, texts)
        if not 1 <= len(texts) <= wire.MAX_TEXTS or max(map(len, texts)) > wire.MAX_TEXT_CHARS:
            raise BadInput(
                f"{len(texts)} texts; servers take 1 to {wire.MAX_TEXTS}, each of {wire.MAX_TEXT_CHARS} signs."
            )
        asked = tuple(texts)
        try:
            return Embedded(*await self._numbers(model, lambda order: wire.Embed(order, asked), len(asked)))
        except UnknownModel:
            if self._remote:
                raise
            return await self._market.local.embed(model, texts)

    def chat(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Stream:
        """The next turn of a conversation."""
        local = self._market.local
        if self._runs_here(model, "language"):
            return local.chat(model, messages, sampling)

        def plan() -> MakeQuestion:
            turns, picking = questions.turns_of(messages), questions.picking_of(sampling, self._seed())
            return lambda order: wire.Chat(order, picking, turns)

        return RemoteStream(self, model, plan, self._fallback(lambda: local.chat(model, messages, sampling)), sampling)

    def complete(self, model: str, prompt: str, sampling: Sampling) -> Stream:
        """What comes after a text."""
        local = self._market.local
        if self._runs_here(model, "language"):
            return local.complete(model, prompt, sampling)

        def plan() -> MakeQuestion:
            if len(prompt) > wire.MAX_TEXT_CHARS:
                raise BadInput(f"A prompt of {len(prompt)} signs; servers take {wire.MAX_TEXT_CHARS} at most.")
            picking = questions.picking_of(sampling, self._seed())
            return lambda order: wire.Complete(order, picking, prompt)

        return RemoteStream(
            self, model, plan, self._fallback(lambda: local.complete(model, prompt, sampling)), sampling
        )

    def _fallback(self, here: Callable[[], Stream]) -> Callable[[], Stream] | None:
        """What is tried when no server offers the model: this device may find it yet, or says what to do."""
        return None if self._remote else here

    def _seed(self) -> int:
        return int.from_bytes(self._market.dice()[:4], "big")

    async def _numbers(self, model: str, make: MakeQuestion, count: int) -> tuple[Floats, int, Served]:
        failures: list[AtollError] = []
        for candidate in await self.ranked(model, make):
            exchange = await self.begin(candidate, make, failures)
            if exchange is None:
                continue
            try:
                await exchange.finish()
                result = exchange.done.result if exchange.done else b""
                values = questions.decode_array(result, count)
                checked = await self.judged(exchange, values)
            except (Refused, Unreachable) as error:
                failures.append(error)
                self.failed(exchange, error)
                continue
            tokens = exchange.done.statement.prompt_tokens if exchange.done else 0
            return values, tokens, self.served(exchange, checked)
        raise nobody(failures)

    # -- one server ----------------------------------------------------------------------------------------------
    async def begin(self, candidate: Candidate, make: MakeQuestion, failures: list[AtollError]) -> Exchange | None:
        """An exchange with a server; None, and one more failure, when it cannot be asked."""
        try:
            if self._payments.purse(candidate.server).pending:
                await self._asker.settle(candidate.server)
            return self._asker.begin(candidate, make)
        except (Refused, Unreachable) as error:
            failures.append(error)
            return None

    def failed(self, exchange: Exchange, error: AtollError) -> None:
        """Write down that a server did not answer, or not well."""
        reason = error.reason if isinstance(error, Refused) else None
        # A false statement, or numbers that are none, cannot come from drift.
        if reason == Reason.BAD_STATEMENT or (reason == Reason.MALFORMED and exchange.done is not None):
            self.convict(exchange, str(error))
        else:
            self._unanswered(exchange.candidate.server, error)

    def _unanswered(self, server: bytes, error: AtollError) -> None:
        record, now = self._payments.record(server), self._market.clock()
        if record.lied or (isinstance(error, Refused) and error.reason == Reason.MALFORMED):
            return  # the latter is the question's fault, by all that is known
        outcome = Outcome.TIMEOUT if isinstance(error, Unreachable) else Outcome.REFUSED
        self._payments.keep_record(server, record.after(outcome, now))

    async def judged(self, exchange: Exchange, values: Floats | None) -> Checked:
        """Check the answer if it is drawn, pay for it if it stands; raises Refused(WRONG_ANSWER) for a lie."""
        candidate, market = exchange.candidate, self._market
        record = self._payments.record(candidate.server)
        kind = candidate.offer.kind
        finding = None
        if is_drawn(record.checked, kind, market.dice()):
            others = [one for one in await self._others(candidate) if not self._payments.record(one.server).lied]
            finding = await self._checker.check(exchange, values, others, market.dice())
        now = market.clock()
        if finding is not None:
            self._note(exchange, finding)
            if finding.judgement == Judgement.LIAR:
                exchange.reject()
                raise Refused(Reason.WRONG_ANSWER, finding.told)
        exchange.accept()
        record = self._payments.record(candidate.server)
        tokens = exchange.done.statement.tokens if exchange.done else 0
        record = record.after(Outcome.GOOD, now).timed(exchange.first, exchange.seconds, tokens)
        self._payments.keep_record(candidate.server, record)
        stood = finding is not None and finding.judgement in (Judgement.FINE, Judgement.OTHER_IS_LIAR)
        return "yes" if stood else "no"

    async def _others(self, candidate: Candidate) -> list[Candidate]:
        """Other servers of the very same model, in an order drawn by the dice."""
        offer = candidate.offer
        found = await self._candidates(offer.blob.hex() if any(offer.blob) else offer.id, offer.kind)
        others = [one for one in found if one.server != candidate.server]
        wanted = Wanted(1, 0, 1)
        return ranked(others, self._payments.records, wanted, self._market.clock(), self._market.dice())

    def _note(self, exchange: Exchange, finding: Finding) -> None:
        """Write down what a check found, against whom it was found."""
        server, now = exchange.candidate.server, self._market.clock()
        record, case = self._payments.record(server), self._payments.case(server)
        match finding.judgement:
            case Judgement.FINE:
                self._payments.keep_record(server, record.agreed(), case.after(finding.verdict))
            case Judgement.LIAR:
                self.convict(exchange, finding.told)
            case Judgement.OTHER_IS_LIAR:
                other = finding.other
                if other is not None:
                    self.convict(other, finding.told)
            case _:
                doubted = record.after(Outcome.DOUBT, now)
                # Doubts lead to a verdict only where this node ran the model itself: others may cast them falsely.
                own = finding.other is None
                self._payments.keep_record(server, doubted, case.after(finding.verdict) if own else case)

    def convict(self, exchange: Exchange, found: str) -> None:
        """Refuse a server from now on, and keep what shows why."""
        server = exchange.candidate.server
        log.warning("0x%s gave a false answer and is not asked again: %s", server.hex(), found)
        record = self._payments.record(server).after(Outcome.LIE, self._market.clock(), found)
        self._payments.keep_record(server, record)
        if exchange.done is not None:
            question, done = encode_body(exchange.question), exchange.done
            evidence = Evidence(question, tuple(exchange.chunks), done.result, done.statement, found)
            self._payments.keep_evidence(server, evidence)

    def served(self, exchange: Exchange, checked: Checked) -> Served:
        """Who answered, for how much."""
        return Served(format_account(exchange.candidate.server), exchange.price, checked)

    def settle_later(self, exchange: Exchange) -> Awaitable[int]:
        """Stop an answer that nobody reads on, and pay for what was made of it; what that costs."""
        return self._asker.abandon(exchange)

    # -- for the dashboard ---------------------------------------------------------------------------------------
    def record(self) -> list[dict[str, Any]]:
        """Every server that was ever asked: its record, what it is owed, and why it is refused if it is."""
        return [
            {
                "server": format_account(server),
                **asdict(record),
                "paid": str(self._payments.purse(server).due),
                "doubts_now": self._payments.case(server).doubts,
                "refused": bool(record.lied),
                "evidence": int(bool(record.lied) and self._payments.evidence(server) is not None),
            }
            for server, record in sorted(self._payments.records.items())
        ]

    def price(self, server: bytes, model: str) -> Price | None:
        """What a server asked for a model when it was last heard of."""
        offering = self._offers.by_server.get(server)
        found = [one for one in offering.models if model in (one.id, one.blob.hex())] if offering else []
        return Candidate(server, found[0], 0).price if found else None


class RemoteStream:
    """A text from a server, piece by piece (`answers.Stream`). It changes servers until the first piece came.

    `here` is what answers when no server offers the model.
    """

    def __init__(
        self,
        routed: RoutedAnswers,
        model: str,
        plan: Callable[[], MakeQuestion],
        here: Callable[[], Stream] | None,
        sampling: Sampling,
    ) -> None:
        self._routed, self._model, self._plan, self._here, self._top = routed, model, plan, here, sampling.top_logprobs
        self._inner: Stream | None = None
        self._exchange: Exchange | None = None
        self._served = Served("", 0, "no")
        self._ended = False
        self._pieces = self._run()

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the question has; 0 before the first piece."""
        if self._inner is not None:
            return self._inner.prompt_tokens
        return self._exchange.prompt_tokens if self._exchange else 0

    @property
    def completion_tokens(self) -> int:
        """How many tokens the model has made so far."""
        if self._inner is not None:
            return self._inner.completion_tokens
        return sum(len(chunk.tokens) for chunk in self._exchange.chunks) if self._exchange else 0

    @property
    def served(self) -> Served:
        """Who answered; final after the last piece, or once it was closed."""
        return self._served if self._inner is None else self._inner.served

    def __aiter__(self) -> AsyncIterator[Piece]:
        """The pieces in order, once."""
        return self._pieces

    async def aclose(self) -> None:
        """Stop the server if it is still at work; what it made is paid."""
        await self._pieces.aclose()
        if self._inner is not None:
            await self._inner.aclose()
        if self._exchange is not None and not self._ended:
            self._ended = True
            cost = await self._routed.settle_later(self._exchange)
            self._served = Served(self._served.node, cost, "no")

    async def _run(self) -> AsyncGenerator[Piece, None]:
        failures: list[AtollError] = []
        make = self._plan()
        try:
            servers = await self._routed.ranked(self._model, make)
        except UnknownModel:
            if self._here is None:
                raise
            self._inner = self._here()
            async for piece in self._inner:
                yield piece
            return
        for candidate in servers:
            exchange = await self._routed.begin(candidate, make, failures)
            if exchange is None:
                continue
            self._exchange = exchange
            self._served = Served(format_account(candidate.server), 0, "no")
            told = False
            try:
                async with contextlib.aclosing(self._told(exchange)) as pieces:
                    async for piece in pieces:
                        told = True
                        yield piece
            except (Refused, Unreachable) as error:
                self._routed.failed(exchange, error)
                failures.append(error)
                if told:
                    self._ended = isinstance(error, Refused)  # one that is gone may still ask to be paid
                    raise
                continue
            self._ended = True
            return
        raise nobody(failures)

    async def _told(self, exchange: Exchange) -> AsyncGenerator[Piece, None]:
        """The pieces of one server; the last waits until the answer is checked and paid."""
        async with contextlib.aclosing(exchange.stream()) as stream:
            held: Chunk | None = None
            async for chunk in stream:
                if held is not None:
                    yield questions.piece_of(held, self._top)
                held = chunk
        checked = await self._routed.judged(exchange, None)
        self._served = self._routed.served(exchange, checked)
        if held is not None:
            yield questions.piece_of(held, self._top)


def nobody(failures: Sequence[AtollError]) -> AtollError:
    """What is raised when no server answered: what the first of them said, OVER_BUDGET if all was about money."""
    money = (Reason.OVER_BUDGET, Reason.OVER_DEPOSIT, Reason.VOUCHER_MISSING, Reason.VOUCHER_TOO_SMALL)
    if failures and all(isinstance(one, Refused) and one.reason in money for one in failures):
        return Refused(Reason.OVER_BUDGET, str(failures[0])[:400])
    lies = [one for one in failures if isinstance(one, Refused) and one.reason == Reason.WRONG_ANSWER]
    if lies:
        return lies[0]
    if failures and all(isinstance(one, Refused) and one.reason == Reason.MALFORMED for one in failures):
        return BadInput(f"The servers do not take this question: {failures[0]}.")
    said = "; ".join(str(one) for one in failures[:3]) or "there is none"
    return Unreachable(f"No server answered ({said}). Try again, or run the model on this device.")
