"""Answering the questions of others, for money: offers, sessions, signed statements, vouchers taken and redeemed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from atoll.errors import AtollError, ChainError, Refused, UserError
from atoll.inference import messages as wire
from atoll.inference.answers import Answers, ModelInfo, Piece
from atoll.inference.messages import Chunk, Done, Progress, Question
from atoll.inference.spotcheck import TOP
from atoll.inference.vouchers import Price, check_voucher, credit_of
from atoll.node.answers import questions
from atoll.node.answers.payments import Bank, KeptAnswer, Payments
from atoll.wire import rpc
from atoll.wire.hashing import Domain
from atoll.wire.identity import AccountKey
from atoll.wire.reasons import Reason

log = logging.getLogger(__name__)

MAX_SESSIONS = 32
MAX_SESSIONS_PER_PAYER = 8
WAIT_SECONDS = 5.0
"""How long a response waits for the next words."""
IDLE_SECONDS = 20.0
"""An answer that nobody collects is made no further after this time."""
KEEP_SECONDS = 120.0
MAX_FINISHED = 128
"""How long, and how many, finished sessions stay in memory; what is not paid stays on disk beyond it."""

PriceOf = Callable[[ModelInfo], Price | None]
"""The price of a model, or None if it is not served."""


@dataclass
class Session:
    """A question at work. `bound` is the most that it may cost."""

    payer: bytes
    request: bytes
    question: Question
    info: ModelInfo
    price: Price
    bound: int
    chunks: list[Chunk] = field(default_factory=list)
    prompt_tokens: int = 0
    done: Done | None = None
    refused: Refused | None = None
    touched: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    work: asyncio.Task[None] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.done is not None or self.refused is not None

    def tell(self) -> None:
        """Wake those who wait for more."""
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass(frozen=True)
class Shop:
    """What a server of answers works with. `payer_of`: the account behind an endpoint id, None for strangers."""

    key: AccountKey
    domain: Domain
    answers: Answers
    price_of: PriceOf
    payer_of: Callable[[bytes], bytes | None]
    bank: Bank
    redeem_at: int = 0  # base units that are worth a transaction


class Answering:
    """The server's side of `/atoll/inference/1`."""

    def __init__(self, shop: Shop, payments: Payments, clock: Callable[[], float] = time.time) -> None:
        self._shop, self._payments, self._clock = shop, payments, clock
        self._sessions: dict[bytes, Session] = {}
        self._redeeming: set[bytes] = set()

    # -- requests ------------------------------------------------------------------------------------------------
    async def handle(self, peer: bytes, payload: bytes) -> bytes:
        """The response to a request by the endpoint `peer`."""
        try:
            return rpc.encode_ok(await self._respond(peer, payload))
        except Refused as refusal:
            return rpc.encode_refusal(refusal.reason, refusal.detail)

    async def _respond(self, peer: bytes, payload: bytes) -> bytes:
        request = questions.decode_request(payload)
        if isinstance(request, wire.Offers):
            return rpc.encode_body(self._offering())
        payer = self._shop.payer_of(peer)
        if payer is None:
            raise Refused(Reason.UNKNOWN_ACCOUNT, "only registered accounts are answered")
        self.sweep()
        if isinstance(request, wire.Pay):
            self._take(payer, request.voucher)
            return b""
        if isinstance(request, wire.Next):
            return rpc.encode_body(await self._more(payer, request.nonce, request.seen))
        if isinstance(request, wire.Stop):
            self._stop(self._session(payer, request.nonce))
            return b""
        if request.order.voucher.signature:
            self._take(payer, request.order.voucher)
        self._open(payer, request)
        return rpc.encode_body(await self._more(payer, request.order.nonce, 0))

    def _served(self) -> list[tuple[ModelInfo, Price]]:
        found = ((info, self._shop.price_of(info)) for info in self._shop.answers.models())
        return [(info, price) for info, price in found if price is not None][: wire.MAX_OFFERS]

    def _offering(self) -> wire.Offering:
        models = tuple(questions.offer_of(info, price) for info, price in self._served())
        working = sum(not one.over for one in self._sessions.values())
        return wire.Offering(models, min(1000, 1000 * working // MAX_SESSIONS))

    # -- sessions ------------------------------------------------------------------------------------------------
    def _open(self, payer: bytes, question: Question) -> None:
        """Start to answer, unless this very question is at work already (its first response was lost)."""
        order, shop = question.order, self._shop
        request = wire.question_id(shop.domain, shop.key.address, payer, question)
        known = self._sessions.get(order.nonce)
        if known is not None or self._payments.kept_answer(order.nonce) is not None:
            if known is None or (known.payer, known.request) == (payer, request):
                return
            raise Refused(Reason.DUPLICATE, "the nonce belongs to another question")
        info, price = self._model(question)
        bound = questions.wanted(question).ceiling(price)
        if bound > wire.amount(order.ceiling):
            raise Refused(
                Reason.OVER_CEILING, f"it may cost {bound} base units, agreed are {wire.amount(order.ceiling)}"
            )
        running = [one for one in self._sessions.values() if not one.over]
        theirs = [one for one in running if one.payer == payer]
        if len(running) >= MAX_SESSIONS or len(theirs) >= MAX_SESSIONS_PER_PAYER:
            raise Refused(Reason.BUSY, f"{len(running)} questions are at work, {len(theirs)} of them this account's")
        till, cover = self._payments.till(payer), self._cover(payer)
        credit = credit_of(served for _, served in self._served())
        till.admit(bound, cover, sum(one.bound for one in theirs), credit)
        session = Session(payer, request, question, info, price, bound, touched=self._clock())
        self._sessions[order.nonce] = session
        session.work = asyncio.create_task(self._work(session))

    def _model(self, question: Question) -> tuple[ModelInfo, Price]:
        kind = questions.KIND[type(question)]
        for info, price in self._served():
            if question.order.model in (info.id, info.blob) and info.kind == kind:
                return info, price
        raise Refused(Reason.NOT_FOUND, f"no {kind} model {question.order.model} is served here")

    def _session(self, payer: bytes, nonce: bytes) -> Session:
        session = self._sessions.get(nonce)
        if session is None or session.payer != payer:
            raise Refused(Reason.NOT_FOUND, "no such question is at work here")
        return session

    async def _more(self, payer: bytes, nonce: bytes, seen: int) -> Progress:
        kept = None if nonce in self._sessions else self._payments.kept_answer(nonce)
        if kept is not None and kept.payer == payer:
            return Progress(kept.chunks[seen:], kept.done.statement.prompt_tokens, kept.done)
        session = self._session(payer, nonce)
        session.touched = self._clock()
        if len(session.chunks) <= seen and not session.over:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(session.changed.wait(), WAIT_SECONDS)
        session.touched = self._clock()
        if session.refused is not None and session.done is None:
            raise session.refused
        return Progress(tuple(session.chunks[seen:]), session.prompt_tokens, session.done)

    def _stop(self, session: Session) -> None:
        if session.work is not None and not session.over:
            session.work.cancel()

    def sweep(self) -> None:
        """Stop what nobody collects, and forget what is over; called at every request and again and again."""
        now = self._clock()
        finished = [nonce for nonce, session in self._sessions.items() if session.over]
        for nonce in finished[: max(0, len(finished) - MAX_FINISHED)]:
            del self._sessions[nonce]
        for nonce, session in list(self._sessions.items()):
            if not session.over and now > session.touched + IDLE_SECONDS:
                self._stop(session)
            elif session.over and now > session.touched + KEEP_SECONDS:
                del self._sessions[nonce]

    # -- work ----------------------------------------------------------------------------------------------------
    async def _work(self, session: Session) -> None:
        try:
            if isinstance(session.question, wire.Chat | wire.Complete):
                await self._speak(session, session.question)
            else:
                await self._compute(session, session.question)
        except asyncio.CancelledError:
            session.refused = Refused(Reason.PAUSED, "the answer was stopped")
        except Refused as error:
            session.refused = error
        except UserError as error:
            session.refused = Refused(Reason.MALFORMED, str(error)[: rpc.MAX_DETAIL])
        except AtollError as error:
            log.warning("an answer failed: %s", error)
            session.refused = Refused(Reason.BUSY, "the model failed here; ask another server")
        finally:
            if not session.over:  # a mistake of ours, which the task itself tells of
                session.refused = Refused(Reason.BUSY, "the model failed here; ask another server")
            session.tell()

    async def _compute(self, session: Session, question: wire.Classify | wire.Embed) -> None:
        answers, model = self._shop.answers, session.info.id
        if isinstance(question, wire.Embed):
            found = await answers.embed(model, question.texts)
            self._finish(session, questions.encode_array(found.vectors), (found.tokens, 0))
        else:
            values, _ = await answers.classify(model, questions.inputs_of(question, session.info))
            self._finish(session, questions.encode_array(values), (0, 0))

    async def _speak(self, session: Session, question: wire.Chat | wire.Complete) -> None:
        """Pass the model's pieces on. When it is stopped, what was made so far is the answer."""
        sampling = questions.sampling_of(question.picking, max(TOP, question.picking.top))
        stream = questions.start(self._shop.answers, session.info.id, question, sampling)
        try:
            async for piece in stream:
                session.chunks.append(_chunk(piece))
                session.prompt_tokens = stream.prompt_tokens
                if piece.finish:
                    # The last words leave only when their price is written down: a killed server then asks for no
                    # payment of what it never gave, and gives what it asks payment for.
                    last = session.chunks.pop()
                    self._finish(session, b"", (stream.prompt_tokens, _tokens([*session.chunks, last])), last)
                session.tell()
        except asyncio.CancelledError:
            if not session.over and session.chunks:
                last = Chunk("", (), (), "stop")
                self._finish(session, b"", (stream.prompt_tokens, _tokens(session.chunks)), last)
            raise
        finally:
            await stream.aclose()

    def _finish(self, session: Session, result: bytes, tokens: tuple[int, int], last: Chunk | None = None) -> None:
        """Sign the answer and charge for it, on disk, before its end leaves."""
        shop, order = self._shop, session.question.order
        chunks = (*session.chunks, last) if last is not None else tuple(session.chunks)
        work = questions.wanted(session.question)
        price = session.price.of(work.inputs, min(sum(tokens), work.question_tokens + work.new_tokens))
        statement = wire.Statement(
            server=shop.key.address,
            payer=session.payer,
            nonce=order.nonce,
            request=session.request,
            model=wire.blob_of(session.info.blob),
            result=wire.result_id(chunks, result),
            seed=questions.seed_of(session.question),
            prompt_tokens=tokens[0],
            tokens=tokens[1],
            price=wire.amount_bytes(price),
        )
        signature = shop.key.sign_digest(statement.digest(shop.domain))
        done = Done(result, questions.signed(statement, signature))
        self._payments.charge(session.payer, order.nonce, price, KeptAnswer(session.payer, chunks, done))
        session.chunks[:] = chunks
        session.prompt_tokens = tokens[0]
        session.done = done

    async def close(self) -> None:
        """Stop all work."""
        tasks = [one.work for one in self._sessions.values() if one.work is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- money ---------------------------------------------------------------------------------------------------
    def _cover(self, payer: bytes) -> int:
        """The most that a payer's deposit can bring this node to, in all."""
        cover = self._shop.bank.cover
        return cover.redeemed(payer, self._shop.key.address) + cover.usable(payer)

    def _take(self, payer: bytes, voucher: wire.Voucher) -> None:
        me = self._shop.key.address
        cumulative = check_voucher(self._shop.bank.verifier, payer, me, voucher)
        till = self._payments.till(payer).take(cumulative, voucher.signature, self._cover(payer))
        self._payments.keep_till(payer, till)

    def worth_redeeming(self) -> list[bytes]:
        """Payers whose vouchers should be redeemed now."""
        cover, me = self._shop.bank.cover, self._shop.key.address
        found = []
        for payer, till in self._payments.tills.items():
            known = till.paid_out(cover.redeemed(payer, me))
            if known.worth_redeeming(self._shop.redeem_at, self._cover(payer), cover.leaving(payer)):
                found.append(payer)
        return found

    async def redeem(self, payers: Sequence[bytes] | None = None) -> int:
        """Redeem the vouchers of these payers (None: of all that are worth it); base units that were waiting.

        What the chain refuses or cannot take now stays and is tried again at the next call.
        """
        brought = 0
        for payer in self.worth_redeeming() if payers is None else payers:
            till = self._payments.till(payer).paid_out(self._shop.bank.cover.redeemed(payer, self._shop.key.address))
            if till.waiting == 0 or payer in self._redeeming:
                continue
            self._redeeming.add(payer)
            try:
                await self._shop.bank.redeem(payer, till.best, till.signature)
                brought += till.waiting
            except ChainError as error:
                log.warning("a voucher of 0x%s over %d was not redeemed: %s", payer.hex(), till.best, error)
            finally:
                self._redeeming.discard(payer)
        return brought

    def owed(self) -> list[dict[str, str]]:
        """Every payer's account, for the dashboard: base units as text."""
        return [
            {
                "payer": "0x" + payer.hex(),
                "charged": str(till.charged),
                "vouchers": str(till.best),
                "redeemed": str(self._shop.bank.cover.redeemed(payer, self._shop.key.address)),
                "owed": str(till.owed),
            }
            for payer, till in sorted(self._payments.tills.items())
        ]


def _chunk(piece: Piece) -> Chunk:
    positions = tuple(questions.position_of(one) for one in piece.logprobs or ())
    return Chunk(
        piece.text, tuple(piece.tokens) or tuple(one.taken.token for one in positions), positions, piece.finish
    )


def _tokens(chunks: Sequence[Chunk]) -> int:
    return sum(len(chunk.tokens) for chunk in chunks)
