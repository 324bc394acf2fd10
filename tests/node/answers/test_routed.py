"""Asking and answering for money between real nodes: who is asked, what is paid, and how liars end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atoll.errors import BadInput, Refused, UnknownModel, Unreachable
from atoll.inference.answers import Embedded, Message, Piece, Sampling, Served, Stream
from atoll.inference.messages import question_id
from atoll.inference.vouchers import Price
from atoll.node.answers.payments import Evidence
from atoll.node.answers.questions import decode_request
from atoll.wire.identity import format_account, recover
from atoll.wire.reasons import Reason
from tests.node.answers.town import DOMAIN, LETTERS, MODELS, Party, SmallModels, Text, Town, town

X = np.arange(8, dtype=np.float32).reshape(2, 4)
PRICES = {"digits": Price(10, 0), "letters": Price(1, 1_000), "parrot": Price(2, 3_000)}
DEPOSIT = 1_000_000
HELLO = [Message("user", "hello there")]


def play(folder: Path, scene: Callable[[Town], Awaitable[None]]) -> None:
    async def stage() -> None:
        async with town(folder) as made:
            await scene(made)

    asyncio.run(stage())


async def text_of(stream: Stream) -> str:
    return "".join([piece.text async for piece in stream])


class NoModels(SmallModels):
    """A device that is too small for any model."""

    def __init__(self) -> None:
        super().__init__(models=())


class Flipped(SmallModels):
    """A liar: right shapes, false numbers; and a text of another model."""

    async def classify(self, model: str, x: Any) -> tuple[Any, Served]:
        values, served = await super().classify(model, x)
        return -values, served


# -- honest ------------------------------------------------------------------------------------------------------------
def test_every_kind_of_answer_is_right_paid_and_checked(tmp_path: Path) -> None:
    async def scene(here: Town) -> None:
        me = await here.add(NoModels(), DEPOSIT)
        one = await here.add(SmallModels(drift=1e-5), **PRICES)
        two = await here.add(SmallModels(drift=1e-5), DEPOSIT, **PRICES)
        truth = SmallModels()

        scores, served = await me.routed.classify("digits", X)
        assert np.allclose(scores, X @ truth.weights, rtol=1e-4)
        assert served.cost == 20 and served.checked == "yes"
        assert served.node in (format_account(one.account), format_account(two.account))

        found = await me.routed.embed("letters", ["hello", "there you"])
        assert np.allclose(found.vectors, (await truth.embed("letters", ["hello", "there you"])).vectors, rtol=1e-4)
        assert (found.tokens, found.served.cost) == (14, 2 + 14)

        for sampling in (Sampling(20, 0.0), Sampling(20, 0.8, 0.95, seed=7)):
            stream = me.routed.chat("parrot", HELLO, sampling)
            expected = await text_of(truth.chat("parrot", HELLO, sampling))
            assert await text_of(stream) == expected
            assert (stream.prompt_tokens, stream.completion_tokens) == (11, 20)
            assert stream.served.cost == 2 + 3 * (11 + 20)
        assert await text_of(me.routed.complete("parrot", "once upon", Sampling(5, 0.0))) == await text_of(
            truth.complete("parrot", "once upon", Sampling(5, 0.0))
        )
        await me.asker.close()
        for server in (one, two):
            purse, till = me.payments.purse(server.account), server.payments.till(me.account)
            assert purse.due == purse.signed == till.charged == till.best
            assert not purse.pending and till.owed == 0 and till.kept == ()
        assert sum(me.payments.purse(server.account).due for server in (one, two)) > 0
        assert not any(record["refused"] for record in me.routed.record())

    play(tmp_path, scene)


def test_local_first_and_servers_where_it_does_not_fit(tmp_path: Path) -> None:
    async def scene(here: Town) -> None:
        me = await here.add(SmallModels(), DEPOSIT)
        server = await here.add(SmallModels(), **PRICES)
        at_home = type(me.routed)(me.market, me.asker)
        assert (await at_home.classify("digits", X))[1].node == "this device"
        assert await text_of(at_home.chat("parrot", HELLO, Sampling(3, 0.0)))
        assert server.models.asked == 0
        _, served = await at_home.remotely().classify("digits", X)
        assert served.node == format_account(server.account)
        assert served.checked == "yes"  # a newcomer, and the model is here
        with pytest.raises(UnknownModel):
            await at_home.classify("unheard", X)

    play(tmp_path, scene)


def test_a_cheaper_server_is_asked_and_a_free_one_needs_no_deposit(tmp_path: Path) -> None:
    async def scene(here: Town) -> None:
        me = await here.add(NoModels())
        await here.add(SmallModels(), **PRICES)
        free = await here.add(SmallModels(), digits=Price())
        _, served = await me.routed.classify("digits", X)
        assert (served.node, served.cost) == (format_account(free.account), 0)
        assert [info.id for info in me.routed.models()] == ["digits", "letters", "parrot"]
        with pytest.raises(Refused) as caught:
            await me.routed.embed("letters", ["a"])
        assert caught.value.reason == Reason.OVER_BUDGET

    play(tmp_path, scene)


def test_what_is_wrong_with_a_question_is_nobodys_fault(tmp_path: Path) -> None:
    async def scene(here: Town) -> None:
        me = await here.add(NoModels(), DEPOSIT)
        server = await here.add(SmallModels(), **PRICES)
        with pytest.raises(BadInput):
            await text_of(me.routed.complete("parrot", "CAPITALS", Sampling(3)))
        with pytest.raises(BadInput):
            await text_of(me.routed.complete("parrot", "a", Sampling(3, temperature=9.0)))
        with pytest.raises(BadInput):
            await me.routed.classify("digits", np.zeros((65, 4), np.float32))
        assert not me.payments.record(server.account).known
        assert me.payments.purse(server.account).due == 0

    play(tmp_path, scene)


# -- liars -------------------------------------------------------------------------------------------------------------
async def _caught(me: Party, liar: Party, honest: Party) -> None:
    record = next(one for one in me.routed.record() if one["server"] == format_account(liar.account))
    assert record["refused"] and record["lied"]
    assert not me.payments.record(honest.account).lied
    evidence = me.payments.evidence(liar.account)
    assert isinstance(evidence, Evidence)
    # Anyone can see who said this, about which question.
    question = decode_request(evidence.question)
    said = evidence.statement
    assert recover(said.digest(DOMAIN), said.signature) == liar.account
    assert question_id(DOMAIN, liar.account, me.account, question) == said.request  # type: ignore[arg-type]
    asked = liar.models.asked
    for _ in range(5):
        _, served = await me.routed.classify("digits", X)
        assert served.node == format_account(honest.account)
    assert liar.models.asked == asked


def test_false_numbers_are_caught_by_an_own_run(tmp_path: Path) -> None:
    async def scene(here: Town) -> None:
        me = await here.add(SmallModels(), DEPOSIT)
        liar = await here.add(Flipped(), digits=Price(1, 0))
        honest = await here.add(SmallModels(drift=1e-5), **PRICES)
        scores, served = await me.routed.classify("digits", X)
        assert np.allclose(scores, X @ me.models.weights, rtol=1e-4)
        assert (served.node, served.checked) == (format_account(honest.account), "yes")
        assert me.payments.purse(liar.account).due == 0  # a lie is not paid
        await _caught(me, liar, honest)

    play(tmp_path, scene)


def test_false_numbers_are_caught_by_two_others(tmp_path: Path) -> None:
    async def scene(here: Town) -> None:
        me = await here.add(NoModels(), DEPOSIT)
        liar = await here.add(Flipped(), digits=Price(1, 0))
        honest = await here.add(SmallModels(), digits=Price(2, 0))
        other = await here.add(SmallModels(drift=1e-5), digits=Price(3, 0))
        scores, _ = await me.routed.classify("digits", X)
        assert np.allclose(scores, X @ SmallModels().weights, rtol=1e-4)
        assert me.payments.record(liar.account).lied
        assert not me.payments.record(honest.account).lied and not me.payments.record(other.account).lied

    play(tmp_path, scene)


def test_one_against_one_convicts_nobody(tmp_path: Path) -> None:
    async def scene(here: Town) -> None:
        me = await here.add(NoModels(), DEPOSIT)
        liar = await here.add(Flipped(), digits=Price(1, 0))
        honest = await here.add(SmallModels(), digits=Price(2, 0))
        _, served = await me.routed.classify("digits", X)
        assert served.checked == "no"
        assert not any(me.payments.record(one.account).lied for one in (liar, honest))
        assert me.payments.record(liar.account).doubts == 1

    play(tmp_path, scene)


@pytest.mark.parametrize("sampling", [Sampling(30, 0.0), Sampling(30, 0.8, 0.95, seed=3)], ids=["greedy", "sampled"])
def test_a_text_of_another_model_is_caught(tmp_path: Path, sampling: Sampling) -> None:
    async def scene(here: Town) -> None:
        me = await here.add(SmallModels(), DEPOSIT)
        liar = await here.add(SmallModels(seed=2), digits=Price(1, 0), parrot=Price(1, 0))
        honest = await here.add(SmallModels(drift=1e-3), **PRICES)
        with pytest.raises(Refused) as caught:
            await text_of(me.routed.chat("parrot", HELLO, sampling))
        assert caught.value.reason == Reason.WRONG_ANSWER
        stream = me.routed.chat("parrot", HELLO, sampling)
        assert set(await text_of(stream)) <= set(LETTERS)
        assert stream.served.node == format_account(honest.account) and stream.served.checked == "yes"
        assert me.payments.purse(liar.account).due == 0
        await _caught(me, liar, honest)

    play(tmp_path, scene)


class Tiring(SmallModels):
    """Answers truly at first, and with another model after eight letters."""

    def chat(self, model: str, messages: Any, sampling: Sampling) -> Stream:
        return TiringText(self, model, "".join(one.content for one in messages), sampling)


class TiringText(Text):
    async def __aiter__(self) -> AsyncIterator[Piece]:
        truth = self._models.logits
        number = 0
        async for piece in super().__aiter__():
            number += 1
            self._models.logits = truth if number < 8 else SmallModels(seed=5).logits
            yield piece
        self._models.logits = truth


def test_a_text_that_turns_false_on_its_way_is_caught(tmp_path: Path) -> None:
    async def scene(here: Town) -> None:
        me = await here.add(SmallModels(), DEPOSIT)
        liar = await here.add(Tiring(), **PRICES)
        with pytest.raises(Refused) as caught:
            await text_of(me.routed.chat("parrot", HELLO, Sampling(60, 0.8, 0.95, seed=3)))
        assert caught.value.reason == Reason.WRONG_ANSWER
        assert me.payments.record(liar.account).lied and me.payments.purse(liar.account).due == 0

    play(tmp_path, scene)


class Overcharging(SmallModels):
    """Tells of more tokens than it was asked for."""

    async def embed(self, model: str, texts: Any) -> Embedded:
        found = await super().embed(model, texts)
        return Embedded(found.vectors, 10**6, found.served)


def test_more_tokens_than_the_question_can_have_are_not_paid(tmp_path: Path) -> None:
    async def scene(here: Town) -> None:
        me = await here.add(NoModels(), DEPOSIT)
        greedy = await here.add(Overcharging(), **PRICES)
        with pytest.raises((Refused, Unreachable)):
            await me.routed.embed("letters", ["abc"])
        assert me.payments.purse(greedy.account).due == 0
        assert "BAD_STATEMENT" in me.payments.record(greedy.account).lied

    play(tmp_path, scene)


def test_honest_drift_never_convicts(tmp_path: Path) -> None:
    async def scene(here: Town) -> None:
        me = await here.add(SmallModels(), DEPOSIT)
        server = await here.add(SmallModels(drift=3e-5), **PRICES)
        for number in range(12):
            await me.routed.classify("digits", X + number)
            await text_of(me.routed.chat("parrot", HELLO, Sampling(12, 1.0, 0.9, seed=number)))
        record = me.payments.record(server.account)
        assert (record.doubts, record.lied) == (0, "")
        assert record.answers == 24 and record.checked >= 5

    play(tmp_path, scene)


# -- trouble -----------------------------------------------------------------------------------------------------------
def test_a_dead_server_is_passed_over_and_remembered(tmp_path: Path) -> None:
    async def scene(here: Town) -> None:
        me = await here.add(NoModels(), DEPOSIT)
        dead = await here.add(SmallModels(), digits=Price(1, 0))
        alive = await here.add(SmallModels(), digits=Price(2, 0))
        await me.routed.refresh()
        await dead.transport.close()
        _, served = await me.routed.classify("digits", X)
        assert served.node == format_account(alive.account)
        assert me.payments.record(dead.account).timeouts >= 1
        assert me.payments.purse(dead.account).pending  # it may have answered: to be asked later

    play(tmp_path, scene)


def test_an_answer_that_is_not_read_on_is_stopped_and_what_was_made_is_paid(tmp_path: Path) -> None:
    async def scene(here: Town) -> None:
        me = await here.add(NoModels(), DEPOSIT)
        server = await here.add(SmallModels(), **PRICES)
        stream = me.routed.chat("parrot", HELLO, Sampling(4_000, 1.0))
        pieces = aiter(stream)
        await anext(pieces)
        server.models.gate.clear()
        await stream.aclose()
        await stream.aclose()
        server.models.gate.set()
        await me.asker.settle(server.account)
        await me.asker.close()
        till, purse = server.payments.till(me.account), me.payments.purse(server.account)
        assert 0 < till.charged < 2 + 3 * 4_000
        assert till.charged == till.best == purse.due == purse.signed
        assert not purse.pending

    play(tmp_path, scene)


def test_a_server_that_is_lost_amid_its_answer_may_still_cost_what_was_agreed(tmp_path: Path) -> None:
    """It may come back and ask for its money: whoever asked is told of the cost, and not who asks next."""

    async def scene(here: Town) -> None:
        me = await here.add(NoModels(), DEPOSIT)
        server = await here.add(SmallModels(), **PRICES)
        stream = me.routed.chat("parrot", HELLO, Sampling(4_000, 1.0))
        pieces = aiter(stream)
        await anext(pieces)
        server.models.gate.clear()
        me.network.attach(None)  # type: ignore[arg-type]  # off the network, so that nobody has to wait for a timeout
        with pytest.raises(Unreachable):
            while True:
                await anext(pieces)
        await stream.aclose()
        [ceiling] = me.payments.purse(server.account).pending.values()
        assert stream.served == Served(format_account(server.account), ceiling, "no")
        assert ceiling >= 2 + 3 * 4_000

    play(tmp_path, scene)


def test_records_and_payments_survive_a_restart(tmp_path: Path) -> None:
    async def scene(here: Town) -> None:
        me = await here.add(SmallModels(), DEPOSIT)
        liar = await here.add(Flipped(), digits=Price(1, 0))
        honest = await here.add(SmallModels(), **PRICES)
        await me.routed.classify("digits", X)
        await me.asker.close()
        purse, record = me.payments.purse(honest.account), me.payments.record(honest.account)
        till = honest.payments.till(me.account)
        for party in (me, honest):
            await party.stop()
            await party.start()
        assert me.payments.purse(honest.account) == purse and purse.due == 20
        assert me.payments.record(honest.account) == record
        assert honest.payments.till(me.account) == till and till.best == 20
        assert me.payments.record(liar.account).lied
        await _caught(me, liar, honest)

    play(tmp_path, scene)


def test_a_killed_asker_collects_and_pays_what_it_had_asked_for(tmp_path: Path) -> None:
    async def scene(here: Town) -> None:
        me = await here.add(NoModels(), DEPOSIT)
        server = await here.add(SmallModels(), **PRICES)
        await me.routed.refresh()
        server.lost = lambda payload: payload[1] == 4  # the answers to Embed never arrive
        asking = asyncio.create_task(me.routed.embed("letters", ["abc"]))
        while server.payments.till(me.account).charged == 0:
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await me.stop()
        await me.start()
        server.lost = lambda _: False
        assert list(me.payments.purse(server.account).pending.values()) == [1 + 3 + 64]
        assert me.payments.purse(server.account).due == 0
        await me.routed.embed("letters", ["hello"])  # settles first
        await me.asker.close()
        purse, till = me.payments.purse(server.account), server.payments.till(me.account)
        assert purse.due == purse.signed == till.charged == till.best == (1 + 3) + (1 + 5)
        assert not purse.pending and till.kept == ()

    play(tmp_path, scene)


def test_models_of_servers_are_listed(tmp_path: Path) -> None:
    async def scene(here: Town) -> None:
        me = await here.add(NoModels())
        server = await here.add(SmallModels(), parrot=PRICES["parrot"])
        await me.routed.refresh()
        (listed,) = me.routed.models()
        assert (listed.id, listed.kind, listed.blob, listed.context) == ("parrot", "language", MODELS[2].blob, 2048)
        assert me.routed.price(server.account, "parrot") == PRICES["parrot"]

    play(tmp_path, scene)
