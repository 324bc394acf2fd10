"""Answers of a node, put together: its own models, what it serves for money, and the servers that it asks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atoll.inference import catalog
from atoll.inference.answers import MEMORY_OF_FILE, ModelInfo
from atoll.inference.local.child import ChildLimits
from atoll.inference.local.device import DeviceLimits, LocalAnswers
from atoll.inference.local.shelf import FOLDER, Shelf
from atoll.inference.vouchers import FULL_ANSWER, Price
from atoll.ledger.receipts import amount_from_text
from atoll.node.answers.answering import Answering, Shop
from atoll.node.answers.asking import Asker, Payer
from atoll.node.answers.counter import Counter
from atoll.node.answers.payments import Bank, Payments
from atoll.node.answers.routed import Market, RoutedAnswers
from atoll.training.context import GATEWAY, SERVER
from atoll.wire import rpc
from atoll.wire.reasons import Reason

if TYPE_CHECKING:
    from atoll.node.daemon import Node

MEGABYTE = 1 << 20
REDEEM_ANSWERS = 100
"""Full answers that are worth a transaction."""
STEP_SECONDS = 5.0
LOOK_SECONDS = 30.0
"""How often a gateway asks what servers offer."""


class Serving:
    """The answers of one node. `answers` is what programs of this device ask; `handle` is what peers ask."""

    def __init__(self, node: Node) -> None:
        self._node = node
        settings = node.settings
        child = ChildLimits(memory_bytes=settings.memory_mb * MEGABYTE, threads=settings.cpu_threads)
        shelf = Shelf(Path(node.home).parent / FOLDER)  # all nodes of a device share the files of models
        self.local = LocalAnswers(shelf, node.server.stored_blob, self._trained, DeviceLimits(child=child))
        self.price = Price(amount_from_text(settings.input_price), amount_from_text(settings.token_price))
        self.payments = Payments(node.journal)
        bank = Bank(node.chain.verifier("deposits"), _Cover(node), self._redeem)
        worth = REDEEM_ANSWERS * self.price.of(1, FULL_ANSWER)
        shop = Shop(node.keys.account, node.domain, self.local, self._price_of, self._payer_of, bank, worth)
        self.answering = Answering(shop, self.payments)
        self.asker = Asker(Payer(node.keys.account, node.domain, node.network.ask, bank), self.payments)
        market = Market(self.local, self._servers, _known, self._fits)
        self.answers = RoutedAnswers(market, self.asker)
        self.counter = Counter(node, self)
        self._stepped = self._looked = 0.0

    async def handle(self, peer: bytes, payload: bytes) -> bytes:
        """The response to a request of `/atoll/inference/1`."""
        if self._node.paused:
            return rpc.encode_refusal(Reason.PAUSED)
        return await self.answering.handle(peer, payload)

    async def step(self) -> None:
        """Stop what nobody collects, redeem the vouchers that are worth it; called again and again."""
        self.answering.sweep()
        self.counter.sweep()
        if time.monotonic() > self._stepped + STEP_SECONDS:
            self._stepped = time.monotonic()
            await self.answering.redeem()
        if self._node.roles & GATEWAY and time.monotonic() > self._looked + LOOK_SECONDS:
            self._looked = time.monotonic()
            self._node.spawn(self.answers.refresh())

    async def deposit(self, amount: int) -> None:
        """Lock tokens, out of which this node's answers are paid; raises ChainError."""
        await self._node.send(self._node.chain.deposit, amount)

    def record(self) -> dict[str, Any]:
        """For the dashboard: the servers that were asked, the payers that asked, and the sums (`Counter.sums`)."""
        return {"servers": self.answers.record(), "payers": self.answering.owed(), "sums": self.counter.sums()}

    async def close(self) -> None:
        """End all work and all processes."""
        await self.counter.close()
        await self.answering.close()
        await self.asker.close()
        await self.local.close()

    def _trained(self) -> list[ModelInfo]:
        """The models of this node's jobs that the network stores."""
        jobs, found = self._node.jobs, []
        for job, blob in jobs.models.items():
            manifest = jobs.materials[job].manifest
            card = {
                "name": manifest.name,
                "input": {"shape": list(manifest.input.shape), "dtype": manifest.input.dtype},
                "output": {"shape": list(manifest.output.shape), "meaning": manifest.output.meaning},
            }
            found.append(ModelInfo(blob.hex(), "classifier", blob.hex(), 0, "", card))
        return found

    def _price_of(self, _: ModelInfo) -> Price | None:
        return self.price

    def _payer_of(self, peer: bytes) -> bytes | None:
        return self._node.account if peer == b"" else self._node.directory.account_of(peer)

    def _servers(self) -> list[bytes]:
        node = self._node
        return [one for one in node.directory.with_role(SERVER) if one != node.account]

    def _fits(self, info: ModelInfo) -> bool:
        return info.bytes * MEMORY_OF_FILE <= self._node.settings.memory_mb * MEGABYTE

    async def _redeem(self, payer: bytes, cumulative: int, signature: bytes) -> None:
        node = self._node
        await node.send(node.chain.redeem, payer, node.account, cumulative, signature)


class _Cover:
    """Deposits as the chain's events tell of them."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def usable(self, payer: bytes) -> int:
        return self._node.view.deposits.get(payer, 0)

    def leaving(self, payer: bytes) -> bool:
        return payer in self._node.view.leaving

    def redeemed(self, payer: bytes, payee: bytes) -> int:
        return self._node.view.redeemed.get((payer, payee), 0)


def _known(model: str) -> ModelInfo | None:
    entry = catalog.known(model)
    return None if entry is None else entry.info
