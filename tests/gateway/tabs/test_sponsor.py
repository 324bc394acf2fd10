"""Registrations and enlistments that a gateway pays for, on the real contracts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from atoll.config import Settings
from atoll.errors import Refused
from atoll.gateway.tabs.frames import Enlist, Register
from atoll.gateway.tabs.limits import SPONSORED_EACH_BURST
from atoll.gateway.tabs.sponsor import Sponsor
from atoll.ledger import events
from atoll.ledger.chain import Chain
from atoll.node.book import Book
from atoll.node.daemon import Node
from atoll.node.view import View
from atoll.wire.eip712 import ENLIST, REGISTRATION
from atoll.wire.hashing import Domain, keccak
from atoll.wire.identity import AccountKey, EndpointKey, binding_digest, verify_endpoint
from atoll.wire.reasons import Reason
from tests.ledger.local_network import COIN, LocalNetwork, account_of, key_of

DOOR = EndpointKey(keccak(b"door"))
HINTS = "10.0.0.7:4242"
TAB = AccountKey(keccak(b"tab"))
TIP = keccak(b"tip")


class House:
    """A gateway's side of a chain in this process: its view takes in what its own transactions brought about."""

    def __init__(self, folder: Path) -> None:
        self.network = LocalNetwork(folder)
        self.chain = self.network.newcomer("gateway")
        self.reader = Chain.connect(self.network.request, self.network.registry, None)
        self.view = View()
        self.account = account_of(self.chain)
        self.keys = SimpleNamespace(account=key_of(self.chain), endpoint=DOOR)
        self.settings = replace(Settings(), advertise=(HINTS,))
        self.domain = Domain(self.chain.addresses.chain_id, self.network.registry)
        self.settler = SimpleNamespace(book=Book())
        self.sent: list[str] = []
        self.sponsor = Sponsor(cast(Node, self))
        self.developer = self.network.newcomer("developer")
        deadline = self.developer.head().timestamp + 100_000
        manifest = keccak(b"manifest")
        self.job, tx = self.developer.open(manifest, 100 * COIN, 3, deadline, account_of(self.developer))
        self.view.fold(event for event in tx.events if isinstance(event, events.Opened))

    async def read(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)

    async def send(self, work: Callable[..., Any], *arguments: Any) -> Any:
        self.sent.append(work.__name__)
        tx = work(*arguments)
        self.view.fold(tx.events)
        return tx

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        work.close()

    # -- what a tab signs --------------------------------------------------------------------------------------------
    def register(self, roles: int = 33, nonce: int = 0, **changes: Any) -> Register:
        values = {
            "account": TAB.address,
            "endpointId": DOOR.public,
            "roles": roles,
            "hints": keccak(HINTS.encode()),
            "nonce": nonce,
            **changes,
        }
        digest = REGISTRATION.digest(self.chain.verifier("registry"), values)
        return Register(id="r", roles=roles, signature=TAB.sign_digest(digest).hex())  # type: ignore[arg-type]

    def enlist(self, job: bytes | None = None, signer: AccountKey = TAB) -> Enlist:
        name = job or self.job
        digest = ENLIST.digest(self.chain.verifier("jobs"), {"job": name, "account": TAB.address, "tip": TIP})
        return Enlist(id="e", job=name.hex(), tip=TIP.hex(), signature=signer.sign_digest(digest).hex())

    def asks(self, frame: Register | Enlist, address: str = "10.1.1.1") -> None:
        work = self.sponsor.register if isinstance(frame, Register) else self.sponsor.enlist
        asyncio.run(work(TAB.address, address, frame))  # type: ignore[arg-type]

    def refuses(self, frame: Register | Enlist, address: str = "10.1.1.1") -> Reason:
        with pytest.raises(Refused) as caught:
            self.asks(frame, address)
        return Reason(caught.value.reason)


def test_a_tab_without_coins_registers_and_enlists(tmp_path: Path) -> None:
    house = House(tmp_path)
    assert house.chain.coins(TAB.address) == 0
    before = house.sponsor.standing(TAB.address, 0, house.sponsor.hints())
    assert (before.registered, before.roles, before.hints) == (False, 0, HINTS)
    house.asks(house.register(roles=33))
    entry = house.reader.node(TAB.address)
    assert (entry.endpoint_id, entry.roles, entry.hints) == (DOOR.public, 33, HINTS)
    registered = house.view.nodes[TAB.address]
    assert verify_endpoint(DOOR.public, binding_digest(house.domain, TAB.address, DOOR.public), registered.binding)
    assert house.sponsor.standing(TAB.address, 1, house.sponsor.hints()).registered
    assert asyncio.run(house.sponsor.nonce(TAB.address)) == 1
    house.asks(house.enlist())
    assert [one.account for one in house.reader.enlisted(house.job)] == [TAB.address]
    assert house.view.jobs[house.job].enlisted[TAB.address].roles == 33
    assert house.chain.coins(TAB.address) == 0
    # Once more costs nothing; other roles are another registration, under the next nonce.
    house.asks(house.register(roles=33))
    house.asks(house.enlist())
    assert house.sent == ["register_for", "enlist_for"]
    house.asks(house.register(roles=1, nonce=1))
    assert house.reader.node(TAB.address).roles == 1


def test_nothing_is_sent_that_the_account_did_not_sign(tmp_path: Path) -> None:
    house = House(tmp_path)
    wrong: list[dict[str, Any]] = [
        {"nonce": 1},
        {"hints": keccak(b"10.9.9.9:1")},
        {"endpointId": keccak(b"another door")},
        {"account": AccountKey(keccak(b"another")).address},
    ]
    for changes in wrong:
        assert house.refuses(house.register(**changes)) is Reason.BAD_SIGNATURE
    assert house.refuses(house.enlist()) is Reason.UNKNOWN_ACCOUNT  # it is not registered
    house.asks(house.register())
    assert house.refuses(house.enlist(signer=AccountKey(keccak(b"another")))) is Reason.BAD_SIGNATURE
    assert house.refuses(house.enlist(job=keccak(b"no job"))) is Reason.NOT_FOUND
    assert house.sent == ["register_for"]


def test_what_a_gateway_pays_for_is_limited(tmp_path: Path) -> None:
    """One address flips its roles until its share is used up; another still gets its turn."""
    house = House(tmp_path)
    for nonce in range(int(SPONSORED_EACH_BURST)):
        house.asks(house.register(roles=33 if nonce % 2 == 0 else 1, nonce=nonce))
    last = house.register(roles=33, nonce=int(SPONSORED_EACH_BURST))
    assert house.refuses(last) is Reason.BUSY
    house.asks(last, address="10.2.2.2")
