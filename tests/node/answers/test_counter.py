"""The owner's side of a node, on two whole nodes and a chain: asking others, and the deposit that pays them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from atoll.errors import BadInput, NoFunds, Refused, UnknownModel
from atoll.node.answers.counter import Counter
from atoll.wire.identity import format_account
from atoll.wire.reasons import Reason
from tests.node.answers.test_serving import ATL, network, node, until

pytestmark = pytest.mark.processes
__all__ = ["network"]


def test_the_owner_asks_and_pays(tmp_path: Path, network: dict[str, str]) -> None:
    async def scene() -> None:
        asking = node(tmp_path, "asking", network, roles=("worker",))
        serving = node(tmp_path, "serving", network, roles=("server",), token_price="1", input_price="0.25")
        tasks = [asyncio.create_task(one.run()) for one in (asking, serving)]
        try:
            await until(lambda: all(hasattr(one, "serving") for one in (asking, serving)))
            await until(lambda: all(one.account in asking.view.nodes for one in (asking, serving)))
            await until(lambda: asking.view.balances.get(asking.account, 0) > 0)
            mine, theirs = asking.serving.counter, serving.serving.counter
            found = await mine.offered({"model": "minilm-l6"})
            assert (found["id"], found["kind"], found["servers"]) == ("minilm-l6", "embedding", 1)
            with pytest.raises(UnknownModel, match="offered are"):
                await mine.offered({"model": "no-such"})
            with pytest.raises(BadInput, match="parameters"):
                await mine.embed({"model": 7})
            with pytest.raises(BadInput, match="base64"):
                await mine.classify({"model": "x", "inputs": "AAA", "dtype": "uint8", "shape": [1, 9]})
            with pytest.raises(Refused, match="atoll deposit") as caught:
                await mine.embed({"model": "minilm-l6", "texts": ["A fox."]})
            assert caught.value.reason == Reason.OVER_BUDGET

            with pytest.raises(NoFunds, match="too little"):
                await mine.deposit({"amount": str(10**30)})
            with pytest.raises(BadInput):
                await mine.deposit({"amount": "-1"})
            told = await mine.deposit({"amount": str(20 * ATL)})
            assert told["deposit"] == told["free"] == str(20 * ATL)  # it can be spent at once
            await until(lambda: serving.view.deposits.get(asking.account) == 20 * ATL)

            answer = await mine.embed({"model": "minilm-l6", "texts": ["A fox."]})
            assert answer["answered_by"] == format_account(serving.account)
            assert len(answer["vectors"][0]) == 384 and int(answer["cost"]) > ATL // 4
            await asking.serving.asker.close()  # until the voucher has arrived
            assert mine.sums()["paid"] == mine.sums()["owed"] == theirs.sums()["waiting"] == answer["cost"]
            record = asking.serving.record()
            assert record["servers"][0]["paid"] == answer["cost"] and record["sums"] == mine.sums()

            brought = await theirs.redeem({})
            assert brought == {"redeemed": answer["cost"], "waiting": "0", "payers": 1}
            await until(lambda: theirs.sums()["waiting"] == "0")
            assert (await theirs.redeem({}))["payers"] == 0
            left = 20 * ATL - int(answer["cost"])
            await until(lambda: asking.view.deposits.get(asking.account) == left)
            with pytest.raises(NoFunds, match="too little"):
                await mine.withdraw({"amount": str(left + 1)})
            asked = await mine.withdraw({"amount": str(ATL)})
            assert (asked["leaving"], asked["free"], asked["received"]) == (str(ATL), str(left - ATL), False)
            assert not (await mine.withdraw({}))["received"]  # its time is not over

            with pytest.raises(Refused) as caught:
                await mine.more({"talk": "none"})
            assert caught.value.reason == Reason.NOT_FOUND
            assert await mine.leave({"talk": "none"}) == {"left": False}
            await no_language_model(mine)
        finally:
            for one in (asking, serving):
                one.stop()
            await asyncio.gather(*tasks)

    asyncio.run(scene())


async def no_language_model(counter: Counter) -> None:
    """A talk whose model is of another kind ends with the reason, and can be left."""
    talk = await counter.chat({"model": "minilm-l6", "turns": [["user", "Hello"]]})
    with pytest.raises(UnknownModel):
        while not (await counter.more(talk))["end"]:
            pass
    assert (await counter.leave(talk))["left"]
