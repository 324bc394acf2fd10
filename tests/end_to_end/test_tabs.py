"""Tabs that speak the protocol of docs/protocol/tabs.md to a real gateway: registered, enlisted, verified and paid."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from atoll.ledger.chain import Chain
from atoll.wire.hashing import keccak
from atoll.wire.identity import AccountKey
from tests.gateway.tabs.tab import Tab

from .conftest import Network

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

UNITS = 3
SECONDS = 240


@pytest.fixture
def network(up: Any) -> Iterator[Network]:
    """A network with work for a long time."""
    found: Network = up("--nodes", "3", "--rounds", "300", "--model", "softmax")
    found.wait_for(lambda: "training begins" in found.output())
    yield found


async def join(tab: Tab, roles: int) -> None:
    """From nothing but a key to a place in the job."""
    told = tab.states["account"]
    assert not told["registered"] and told["balance"] == "0"
    answer = await tab.register(roles)
    assert answer["type"] == "taken", answer
    while not tab.states["account"]["registered"]:
        await tab.receive()
    while "job" not in tab.states:
        await tab.receive()
    answer = await tab.enlist(tab.states["job"]["job"])
    assert answer["type"] == "taken", answer


async def earn(where: str, name: str, roles: int) -> Tab:
    """Work until so many units are verified, then until something is paid out."""
    async with Tab(AccountKey(keccak(name.encode())), where).open(origin=f"http://{where}") as tab:
        await join(tab, roles)
        await tab.work(UNITS)
        while int(tab.states["account"]["balance"]) == 0:
            frame = await tab.receive()
            if frame["type"] == "round":
                await tab.do(frame)
        return tab


def test_tabs_are_verified_and_paid_on_the_chain(network: Network) -> None:
    status = network.wait_for(lambda: network.node("gateway", "status"))
    where = urlsplit(network.wait_for(lambda: network.node("gateway", "status")["page"])).netloc

    async def play() -> list[Tab]:
        async with asyncio.timeout(SECONDS):
            return list(await asyncio.gather(earn(where, "full tab", 1), earn(where, "light tab", 33)))

    full, light = asyncio.run(play())
    facts = status["network"]
    chain = Chain.connect(facts["rpc"], bytes.fromhex(facts["registry"][2:]), facts["chain_id"])
    for tab, price in ((full, 10**18), (light, 10**18 // 2)):
        units = [one for one in tab.verdicts if one["kind"] == "unit" and one["reason"] == "OK"]
        assert len(units) >= UNITS
        assert {int(one["amount"]) for one in units} == {price}
        assert chain.balance(tab.key.address) >= price
        assert chain.coins(tab.key.address) == 0  # it never had any
    explained = network.node("gateway", "explain")
    assert explained["explain"] == "match", explained
