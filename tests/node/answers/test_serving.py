"""Two whole nodes and a chain: one asks the other for vectors and for a text, pays, and the voucher is redeemed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from atoll import config
from atoll.inference.answers import Message, Sampling
from atoll.inference.vouchers import Price
from atoll.ledger.receipts import amount_from_text
from atoll.node.daemon import Node, Options
from atoll.wire.identity import format_account

pytestmark = pytest.mark.processes

ATL = 10**18
ASKED = ["A fox in the snow.", "Bread is made of flour."]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    home = tmp_path_factory.mktemp("chain")
    command = [sys.executable, "-m", "atoll.ledger.devnet", "--home", str(home), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())
    process.terminate()
    process.communicate()


def node(folder: Path, name: str, network: dict[str, str], **more: object) -> Node:
    given = {"rpc": network["rpc"], "registry": network["registry"], "listen": "127.0.0.1:0", "poll_seconds": 0.2}
    return Node(folder / name, config.load(folder / name, {}, given | more), Options())


async def until(what: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it took too long"
        await asyncio.sleep(0.1)


def test_a_node_asks_another_and_the_contract_pays(tmp_path: Path, network: dict[str, str]) -> None:
    async def scene() -> None:
        asking = node(tmp_path, "asking", network, roles=("worker",))
        serving = node(tmp_path, "serving", network, roles=("server",), token_price="1", input_price="0.25")
        tasks = [asyncio.create_task(one.run()) for one in (asking, serving)]
        try:
            await until(lambda: all(hasattr(one, "serving") for one in (asking, serving)))
            price = Price(ATL // 4, ATL)
            assert serving.serving.price == price == Price(amount_from_text("0.25"), amount_from_text("1"))
            await until(lambda: all(one.account in asking.view.nodes for one in (asking, serving)))
            await until(lambda: asking.view.balances.get(asking.account, 0) > 0)
            await asking.serving.deposit(20 * ATL)
            for one in (asking, serving):
                await until(lambda one=one: one.view.deposits.get(asking.account) == 20 * ATL)
            here = await asking.answers.embed("minilm-l6", ASKED)
            assert here.served.node == "this device"
            there = await asking.answers.remotely().embed("minilm-l6", ASKED)
            assert np.allclose(here.vectors, there.vectors, atol=1e-4)
            assert there.served.node == format_account(serving.account)
            assert there.served.checked == "yes"
            assert there.served.cost == price.of(2, here.tokens) > ATL // 2
            owed = there.served.cost
            if any(info.kind == "language" for info in asking.answers.models()):
                stream = asking.answers.remotely().chat("smollm2-135m", [Message("user", "Hello!")], Sampling(8, 0.0))
                text = "".join([piece.text async for piece in stream])
                at_home = asking.answers.chat("smollm2-135m", [Message("user", "Hello!")], Sampling(8, 0.0))
                assert text == "".join([piece.text async for piece in at_home])
                assert stream.served.checked == "yes"
                owed += stream.served.cost
            await asking.serving.asker.close()
            before = serving.view.balances.get(serving.account, 0)
            assert await serving.serving.answering.redeem([asking.account]) == owed
            await until(lambda: serving.view.redeemed.get((asking.account, serving.account)) == owed)
            assert serving.view.balances[serving.account] - before == owed
            assert asking.serving.record()["servers"][0]["paid"] == str(owed)
        finally:
            for one in (asking, serving):
                one.stop()
            await asyncio.gather(*tasks)

    asyncio.run(scene())
