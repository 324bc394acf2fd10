"""The server's side: who is refused and why, sessions that break and go on, vouchers that are redeemed, kill -9."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from atoll.errors import Refused
from atoll.inference import messages as wire
from atoll.inference.messages import Order, Progress, Voucher, amount_bytes
from atoll.inference.vouchers import Price, sign_voucher
from atoll.node.answers import questions
from atoll.node.answers.answering import IDLE_SECONDS, MAX_SESSIONS_PER_PAYER, Answering, Shop
from atoll.node.answers.payments import Payments
from atoll.wire import rpc
from atoll.wire.eip712 import Verifier
from atoll.wire.identity import AccountKey
from atoll.wire.reasons import Reason
from tests.node.answers.town import DOMAIN, VERIFIER, SmallModels, Vault

SERVER, ALICE, MALLORY = (AccountKey(bytes([number]) * 32) for number in (11, 12, 13))
PRICE = Price(1_000, 0)
DEPOSIT = 10**9
PLENTY = amount_bytes(10**12)


class Memory:
    """A journal that outlives the server that writes it."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def put_snapshot(self, key: str, data: bytes, *, durable: bool = False) -> None:
        self.kept[key] = data

    def get_snapshot(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def snapshots(self, prefix: str) -> dict[str, bytes]:
        return {key: data for key, data in sorted(self.kept.items()) if key.startswith(prefix)}

    def drop_snapshot(self, key: str) -> None:
        self.kept.pop(key, None)


class House:
    """A server and those who talk to it by hand; endpoint ids are accounts with a leading e."""

    def __init__(self, price: Price | None = PRICE, redeem_at: int = 10_000) -> None:
        self.vault, self.store, self.models, self.now = Vault(), Memory(), SmallModels(), 0.0
        self.vault.deposits[ALICE.address] = DEPOSIT
        self.price, self.redeem_at = price, redeem_at
        self.numbers = 0
        self.restart()

    def restart(self) -> None:
        self.payments = Payments(self.store)
        bank = self.vault.bank(SERVER.address)
        shop = Shop(
            SERVER, DOMAIN, self.models, lambda _: self.price, lambda peer: peer[1:] or None, bank, self.redeem_at
        )
        self.answering = Answering(shop, self.payments, lambda: self.now)

    async def ask(self, request: Any, key: AccountKey | None = ALICE) -> bytes:
        peer = b"e" + key.address if key else b"e"
        return rpc.decode_response(await self.answering.handle(peer, rpc.encode_body(request)))

    async def progress(self, request: Any, key: AccountKey = ALICE) -> Progress:
        return rpc.decode_body(Progress, await self.ask(request, key))

    async def refuses(self, reason: Reason, request: Any, key: AccountKey | None = ALICE) -> None:
        with pytest.raises(Refused) as caught:
            await self.ask(request, key)
        assert caught.value.reason == reason, caught.value

    def order(self, model: str = "letters", ceiling: bytes = PLENTY, voucher: Voucher = wire.NO_VOUCHER) -> Order:
        self.numbers += 1
        return Order(self.numbers.to_bytes(16, "big"), model, ceiling, voucher)

    def embed(self, voucher: Voucher = wire.NO_VOUCHER, ceiling: bytes = PLENTY) -> wire.Embed:
        return wire.Embed(self.order("letters", ceiling, voucher), ("abc",))

    def complete(self, tokens: int = 10) -> wire.Complete:
        return wire.Complete(self.order("parrot"), wire.Picking(tokens, 0.0, 1.0, 1, (), 0), "hello")


def voucher(cumulative: int, key: AccountKey = ALICE, verifier: Verifier = VERIFIER) -> Voucher:
    return sign_voucher(verifier, key, SERVER.address, cumulative)


def play(house: House, scene: Callable[[House], Awaitable[None]]) -> None:
    async def stage() -> None:
        try:
            await scene(house)
        finally:
            await house.answering.close()

    asyncio.run(stage())


def test_offers_tell_models_and_prices() -> None:
    async def scene(house: House) -> None:
        offering = rpc.decode_body(wire.Offering, await house.ask(wire.Offers(), None))
        assert [(one.id, one.kind, wire.amount(one.per_input)) for one in offering.models] == [
            ("digits", "classifier", 1_000),
            ("letters", "embedding", 1_000),
            ("parrot", "language", 1_000),
        ]
        assert offering.load == 0

    play(House(), scene)


def test_credit_is_three_answers_and_then_a_voucher_is_asked_for() -> None:
    async def scene(house: House) -> None:
        for _ in range(3):
            done = (await house.progress(house.embed())).done
            assert done is not None and wire.amount(done.statement.price) == 1_000
        await house.refuses(Reason.VOUCHER_MISSING, house.embed())
        assert (await house.progress(house.embed(voucher(1_000)))).done
        await house.refuses(Reason.VOUCHER_TOO_SMALL, house.embed())
        await house.ask(wire.Pay(voucher(4_000)))
        assert (await house.progress(house.embed())).done
        till = house.payments.till(ALICE.address)
        assert (till.charged, till.best, till.owed) == (5_000, 4_000, 1_000)
        assert len(house.payments._store.snapshots("answers/kept/")) == 1  # type: ignore[attr-defined]

    play(House(), scene)


def test_vouchers_that_are_refused() -> None:
    async def scene(house: House) -> None:
        await house.refuses(Reason.VOUCHER_FOREIGN, house.embed(voucher(1_000, MALLORY)))
        await house.refuses(Reason.VOUCHER_FOREIGN, wire.Pay(voucher(1_000, verifier=Verifier(78, VERIFIER.address))))
        await house.refuses(Reason.VOUCHER_FOREIGN, wire.Pay(wire.NO_VOUCHER))
        await house.refuses(Reason.OVER_DEPOSIT, wire.Pay(voucher(DEPOSIT + 1)))
        await house.refuses(Reason.OVER_DEPOSIT, house.embed(), MALLORY)  # she has none
        assert house.payments.tills == {}

    play(House(), scene)


def test_questions_that_are_refused() -> None:
    async def scene(house: House) -> None:
        await house.refuses(Reason.UNKNOWN_ACCOUNT, house.embed(), None)
        await house.refuses(Reason.OVER_CEILING, house.embed(ceiling=amount_bytes(999)))
        await house.refuses(Reason.NOT_FOUND, wire.Embed(house.order("parrot"), ("abc",)))
        await house.refuses(Reason.NOT_FOUND, wire.Next(bytes(16), 0))
        await house.refuses(Reason.NOT_FOUND, wire.Stop(bytes(16)))
        await house.refuses(Reason.MALFORMED, wire.Classify(house.order("digits"), 1, b"abc"))
        question = house.complete()
        await house.progress(question)
        await house.refuses(Reason.NOT_FOUND, wire.Next(question.order.nonce, 0), MALLORY)
        await house.refuses(Reason.DUPLICATE, msgspec.structs.replace(question, prompt="other"))
        for payload in (b"", b"\x91\x7f", b"\x91\x00", b"\xc1", rpc.encode_body([3, 1, 2, 3])):
            with pytest.raises(Refused):
                rpc.decode_response(await house.answering.handle(b"e" + ALICE.address, payload))

    play(House(), scene)


def test_a_busy_server_says_so() -> None:
    async def scene(house: House) -> None:
        house.models.gate.clear()
        asked = [asyncio.create_task(house.progress(house.complete())) for _ in range(MAX_SESSIONS_PER_PAYER)]
        await asyncio.sleep(0)
        await house.refuses(Reason.BUSY, house.complete())
        house.models.gate.set()
        assert all([one.chunks or one.done for one in await asyncio.gather(*asked)])

    play(House(Price()), scene)


def test_a_broken_session_goes_on_where_it_was() -> None:
    async def scene(house: House) -> None:
        question = house.complete(tokens=6)
        whole: list[wire.Chunk] = []
        progress = await house.progress(question)
        again = await house.progress(question)  # the first response was lost: nothing is made or charged twice
        assert again.chunks[: len(progress.chunks)] == progress.chunks
        whole += again.chunks
        while again.done is None:
            again = await house.progress(wire.Next(question.order.nonce, len(whole)))
            whole += again.chunks
        assert "".join(chunk.text for chunk in whole) == "".join(
            [
                piece.text
                async for piece in house.models.complete("parrot", "hello", questions.sampling_of(question.picking, 0))
            ]
        )
        assert (await house.progress(wire.Next(question.order.nonce, 0))).chunks == tuple(whole)
        assert house.payments.till(ALICE.address).charged == 1_000

    play(House(), scene)


def test_what_nobody_collects_is_stopped_and_charged_as_far_as_it_came() -> None:
    async def scene(house: House) -> None:
        question = house.complete(tokens=4_000)
        assert (await house.progress(question)).done is None
        house.models.gate.clear()
        house.now += IDLE_SECONDS + 1
        await house.ask(wire.Pay(voucher(1)))  # any request looks after the sessions
        house.models.gate.set()
        done = None
        while done is None:
            done = (await house.progress(wire.Next(question.order.nonce, 4_000))).done
        assert 0 < done.statement.tokens < 4_000

    play(House(), scene)


def test_a_killed_server_still_has_what_it_charged_and_nothing_else() -> None:
    async def scene(house: House) -> None:
        finished, running = house.embed(), house.complete(tokens=4_000)
        first = await house.progress(finished)
        house.models.gate.clear()
        at_work = asyncio.create_task(house.progress(running))
        await asyncio.sleep(0)
        kept = dict(house.store.kept)  # what the disk holds at this moment
        house.models.gate.set()
        await at_work
        await house.answering.close()
        house.store.kept = kept
        house.restart()
        assert house.payments.till(ALICE.address).charged == 1_000
        assert await house.progress(wire.Next(finished.order.nonce, 0)) == first
        assert await house.progress(finished) == first  # asked again: not made and not charged again
        await house.refuses(Reason.NOT_FOUND, wire.Next(running.order.nonce, 0))
        await house.refuses(Reason.NOT_FOUND, wire.Next(finished.order.nonce, 0), MALLORY)
        await house.ask(wire.Pay(voucher(1_000)))
        assert house.payments.till(ALICE.address).owed == 0
        await house.refuses(Reason.NOT_FOUND, wire.Next(finished.order.nonce, 0))  # paid, and forgotten

    play(House(), scene)


def test_redeeming() -> None:
    async def scene(house: House) -> None:
        for _ in range(3):
            await house.progress(house.embed())
        await house.ask(wire.Pay(voucher(3_000)))
        assert house.answering.worth_redeeming() == [] and await house.answering.redeem() == 0
        house.vault.leaves.add(ALICE.address)
        house.vault.down = True
        assert await house.answering.redeem() == 0  # it is tried again
        house.vault.down = False
        assert await house.answering.redeem() == 3_000
        assert house.vault.paid == {(ALICE.address, SERVER.address): 3_000}
        assert await house.answering.redeem() == 0
        house.vault.leaves.clear()
        await house.progress(house.embed())
        await house.ask(wire.Pay(voucher(4_000)))
        assert await house.answering.redeem([ALICE.address]) == 1_000
        assert house.vault.deposits[ALICE.address] == DEPOSIT - 4_000
        (row,) = house.answering.owed()
        assert (row["charged"], row["redeemed"], row["owed"]) == ("4000", "4000", "0")

    play(House(), scene)


def test_many_small_vouchers_are_redeemed_together() -> None:
    async def scene(house: House) -> None:
        for number in range(1, 6):
            await house.progress(house.embed())
            await house.ask(wire.Pay(voucher(1_000 * number)))
            assert await house.answering.redeem() == (3_000 if number == 3 else 0)

    play(House(redeem_at=3_000), scene)
