"""Asking one server one question: the session is collected, its statement checked, and what was received is paid."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from atoll.errors import AtollError, Refused, Unreachable
from atoll.inference import messages as wire
from atoll.inference.messages import ALPN, Chunk, Done, Offering, Order, Progress, Question
from atoll.inference.router import Candidate
from atoll.inference.vouchers import sign_voucher
from atoll.ledger.receipts import TOKEN, amount_text
from atoll.node.answers import questions
from atoll.node.answers.payments import Bank, Payments
from atoll.wire import rpc
from atoll.wire.hashing import Domain
from atoll.wire.identity import AccountKey
from atoll.wire.reasons import Reason
from atoll.wire.rpc import Ask

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
"""How long a server may take without a word."""
TRIES = 3
"""Times that a session whose connection broke is asked for again."""

MakeQuestion = Callable[[Order], Question]


@dataclass(frozen=True)
class Payer:
    """Who asks: its key, the network, how others are reached, where its deposit is."""

    key: AccountKey
    domain: Domain
    ask: Ask
    bank: Bank


class Asker:
    """The asker's side of `/atoll/inference/1`: sessions with servers and the purses that pay them."""

    def __init__(self, payer: Payer, payments: Payments, clock: Callable[[], float] = time.monotonic) -> None:
        self.payer, self.payments = payer, payments
        self.clock = clock
        self.live: set[bytes] = set()
        self._paying: set[asyncio.Task[None]] = set()

    async def offers(self, server: bytes) -> Offering:
        """What a server offers now; raises Unreachable or Refused."""
        return rpc.decode_body(Offering, await self.request(server, wire.Offers()))

    async def request(self, server: bytes, request: questions.AnyRequest) -> bytes:
        """The body of a server's response; raises Unreachable or Refused."""
        return rpc.decode_response(await self.payer.ask(server, ALPN, rpc.encode_body(request)))

    def free(self) -> int:
        """Base units of this node's deposit that are neither owed nor promised."""
        me, cover = self.payer.key.address, self.payer.bank.cover
        owed = sum(
            max(0, purse.due - cover.redeemed(me, server)) + purse.at_risk
            for server, purse in self.payments.purses.items()
        )
        return max(0, cover.usable(me) - owed)

    def begin(self, candidate: Candidate, make: MakeQuestion) -> Exchange:
        """Begin to ask; raises Refused(OVER_BUDGET) if the deposit does not cover the most that it may cost."""
        server = candidate.server
        sample = make(Order(bytes(wire.NONCE_BYTES), candidate.offer.id, b""))
        ceiling = questions.wanted(sample).ceiling(candidate.price)
        if ceiling > self.free():
            raise Refused(
                Reason.OVER_BUDGET,
                f"it may cost {amount_text(ceiling)} {TOKEN}, {amount_text(self.free())} of the deposit are free",
            )
        nonce = os.urandom(wire.NONCE_BYTES)
        purse = self.payments.purse(server).ask(nonce, ceiling)
        if ceiling:
            self.payments.keep_purse(server, purse)
        voucher = sign_voucher(self.payer.bank.verifier, self.payer.key, server, purse.signed)
        return Exchange(self, candidate, make(Order(nonce, candidate.offer.id, wire.amount_bytes(ceiling), voucher)))

    # -- payment -------------------------------------------------------------------------------------------------
    def receive(self, server: bytes, nonce: bytes, price: int) -> None:
        """An answer is here and is right: write down its price, then sign for it, then send the voucher."""
        if price == 0:
            self.drop(server, nonce)
            return
        purse = self.payments.purse(server).receive(nonce, price)
        self.payments.keep_purse(server, purse.sign())
        task = asyncio.create_task(self.pay(server))
        self._paying.add(task)
        task.add_done_callback(self._paying.discard)

    def drop(self, server: bytes, nonce: bytes) -> None:
        """Nothing is due for this question."""
        self.payments.keep_purse(server, self.payments.purse(server).drop(nonce))

    async def pay(self, server: bytes) -> None:
        """Send the newest voucher. If it does not arrive, the next question brings it."""
        signed = self.payments.purse(server).signed
        voucher = sign_voucher(self.payer.bank.verifier, self.payer.key, server, signed)
        if voucher.signature:
            with contextlib.suppress(AtollError):
                await self.request(server, wire.Pay(voucher))

    async def settle(self, server: bytes) -> dict[bytes, int]:
        """Collect and pay what a crash or a broken connection left open with a server; raises Unreachable.

        Returns what each question (by nonce) cost.
        The price is within what was agreed when the question was asked; the text itself is of no use any more.
        """
        paid: dict[bytes, int] = {}
        for nonce, ceiling in list(self.payments.purse(server).pending.items()):
            if nonce in self.live:
                continue
            try:
                done = await self._collect(server, nonce)
            except Refused as error:
                log.info("an open question to 0x%s has no answer: %s", server.hex(), error)
                self.drop(server, nonce)
                continue
            if done is None:
                continue
            price = wire.amount(done.statement.price)
            said = done.statement
            honest = (said.server, said.nonce) == (server, nonce) and questions.is_signed(self.payer.domain, said)
            if honest and price <= ceiling:
                self.receive(server, nonce, price)
                paid[nonce] = price
            else:
                self.drop(server, nonce)
        return paid

    async def _collect(self, server: bytes, nonce: bytes) -> Done | None:
        seen = 0
        for _ in range(wire.MAX_TOKENS):
            progress = rpc.decode_body(Progress, await self.request(server, wire.Next(nonce, seen)))
            seen += len(progress.chunks)
            if progress.done is not None or not progress.chunks:
                return progress.done
        return None

    async def abandon(self, exchange: Exchange) -> int:
        """Stop an answer that nobody reads on; pay for what was made of it, now or when its server is asked again.

        Returns what it costs; the most that was agreed while its server does not say.
        """
        server, nonce = exchange.candidate.server, exchange.question.order.nonce
        await exchange.stop()
        ceiling = self.payments.purse(server).pending.get(nonce, 0)
        try:
            return (await self.settle(server)).get(nonce, 0)
        except AtollError:
            return ceiling

    async def close(self) -> None:
        """Let vouchers that are on their way arrive."""
        await asyncio.gather(*self._paying, return_exceptions=True)


class Exchange:
    """One question to one server. `stream` or `finish` it for the answer; then `accept` or `reject` it."""

    def __init__(self, asker: Asker, candidate: Candidate, question: Question) -> None:
        self.candidate, self.question = candidate, question
        self.chunks: list[Chunk] = []
        self.done: Done | None = None
        self.price = self.prompt_tokens = 0
        self.first = self.seconds = 0.0
        self._asker = asker
        self._nonce = question.order.nonce
        self._taken = False  # by the server: from then on only its nonce is sent

    async def stream(self) -> AsyncGenerator[Chunk, None]:
        """The chunks as they come. Raises Unreachable, or Refused: what the server says, or BAD_STATEMENT."""
        asker, started = self._asker, self._asker.clock()
        asker.live.add(self._nonce)
        try:
            heard = started
            while self.done is None:
                progress = await self._ask()
                now = asker.clock()
                if progress.chunks or progress.done is not None:
                    heard, self.first = now, self.first or now - started
                elif now > heard + PATIENCE_SECONDS:
                    await self.stop()
                    raise Unreachable(f"0x{self.candidate.server.hex()} has sent nothing for {PATIENCE_SECONDS:g} s.")
                questions.check_chunks(self.question, len(self.chunks), progress.chunks)
                self.chunks += progress.chunks
                self.prompt_tokens = progress.prompt_tokens
                if progress.done is not None:
                    self._check(progress.done)
                for chunk in progress.chunks:
                    yield chunk
            self.seconds = asker.clock() - started
        except Refused:
            asker.drop(self.candidate.server, self._nonce)
            raise
        finally:
            asker.live.discard(self._nonce)

    async def _ask(self) -> Progress:
        """The next response; a connection that broke is tried again, since asking twice changes nothing.

        Not before the server has taken the question: another may do as well.
        """
        request = wire.Next(self._nonce, len(self.chunks)) if self._taken else self.question
        for left in reversed(range(TRIES if self._taken else 1)):
            try:
                progress = rpc.decode_body(Progress, await self._asker.request(self.candidate.server, request))
                self._taken = True
                return progress
            except Unreachable:
                if left == 0:
                    raise
        raise Unreachable("no try was left")

    def _check(self, done: Done) -> None:
        payer, chunks = self._asker.payer, tuple(self.chunks)
        self.price = questions.check_answer(
            payer.domain, payer.key.address, self.candidate, self.question, chunks, done
        )
        self.done = done

    async def finish(self) -> None:
        """Collect the whole answer."""
        async for _ in self.stream():
            pass

    async def stop(self) -> None:
        """Tell the server to make no more of it; what was made is collected and paid later."""
        with contextlib.suppress(AtollError):
            await self._asker.request(self.candidate.server, wire.Stop(self._nonce))

    def accept(self) -> None:
        """Pay for the answer."""
        self._asker.receive(self.candidate.server, self._nonce, self.price)

    def reject(self) -> None:
        """The answer is false: it is not paid."""
        self._asker.drop(self.candidate.server, self._nonce)
