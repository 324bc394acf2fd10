"""A few nodes on this machine that answer and ask, over real transports and journals, with models small enough to read.

`SmallModels` is a whole set of runtimes: a linear classifier, an embedding of letters, and a language model that picks
the next letter from the last one. Each is honest; a liar is one with other weights, or one that tampers with what comes
out. `Vault` keeps deposits as the contract does.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.errors import BadInput, ChainError, UnknownModel
from atoll.inference.answers import (
    LOCAL,
    Candidate,
    Embedded,
    Message,
    ModelInfo,
    Piece,
    Sampling,
    Served,
    Stream,
    TokenLogprob,
)
from atoll.inference.messages import ALPN, Voucher, amount_bytes
from atoll.inference.vouchers import Price, check_voucher
from atoll.node.answers.answering import Answering, Shop
from atoll.node.answers.asking import Asker, Payer
from atoll.node.answers.payments import Bank, Payments
from atoll.node.answers.routed import Market, RoutedAnswers
from atoll.node.journal import Journal
from atoll.node.network import Network
from atoll.node.peers import Directory
from atoll.node.transport import Transport
from atoll.training.context import SERVER
from atoll.wire.eip712 import Verifier
from atoll.wire.hashing import Domain, blob_id
from atoll.wire.identity import AccountKey, EndpointKey, make_binding

DOMAIN = Domain(77, b"\x21" * 20)
VERIFIER = Verifier(77, b"\x25" * 20)
LETTERS = "abcdefghijklmnopqrstuvwxyz .,"
MODELS = (
    ModelInfo(
        "digits", "classifier", blob_id(b"digits").hex(), 1000, "", {"input": {"dtype": "float32", "shape": [4]}}
    ),
    ModelInfo("letters", "embedding", blob_id(b"letters").hex(), 1000, "", {}, 256),
    ModelInfo("parrot", "language", blob_id(b"parrot").hex(), 1000, "", {}, 2048),
)


class SmallModels:
    """Three models that any test can check by hand; `seed` makes the weights, `drift` what another CPU would add."""

    def __init__(self, seed: int = 1, drift: float = 0.0, models: Sequence[ModelInfo] = MODELS) -> None:
        generator = np.random.default_rng(seed)
        self._models, self._drift = models, drift
        self._noise = np.random.default_rng(99)
        self.weights = generator.normal(size=(4, 3)).astype(np.float32)
        self.letters = generator.normal(size=(len(LETTERS), 8)).astype(np.float32)
        self.logits = 2 * generator.normal(size=(len(LETTERS), len(LETTERS)))
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def models(self) -> Sequence[ModelInfo]:
        return self._models

    def _know(self, model: str) -> None:
        self.asked += 1
        if not any(model in (info.id, info.blob) for info in self._models):
            raise UnknownModel(model)

    def drifted(self, values: NDArray[Any]) -> NDArray[np.float32]:
        return (values * (1 + self._drift * self._noise.uniform(-1, 1, values.shape))).astype(np.float32)

    async def classify(self, model: str, x: NDArray[Any]) -> tuple[NDArray[np.float32], Served]:
        self._know(model)
        await self.gate.wait()
        return self.drifted(x @ self.weights), LOCAL

    async def embed(self, model: str, texts: Sequence[str]) -> Embedded:
        self._know(model)
        rows = np.stack([self.letters[[LETTERS.index(letter) for letter in text]].sum(0) for text in texts])
        return Embedded(self.drifted(rows / np.linalg.norm(rows, axis=1)[:, None]), sum(map(len, texts)), LOCAL)

    def chat(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Stream:
        return Text(self, model, "".join(one.content for one in messages), sampling)

    def complete(self, model: str, prompt: str, sampling: Sampling) -> Stream:
        return Text(self, model, prompt, sampling)

    def log_probabilities(self, last: str) -> NDArray[np.float64]:
        row = self.logits[LETTERS.index(last)]
        row = row + self._drift * self._noise.uniform(-1, 1, row.shape)
        return row - math.log(np.exp(row).sum())


class Text:
    """A text of a SmallModels, a letter at a time."""

    def __init__(self, models: SmallModels, model: str, prompt: str, sampling: Sampling) -> None:
        self._models, self._model, self._prompt, self._sampling = models, model, prompt, sampling
        self.prompt_tokens = self.completion_tokens = 0
        self.served = LOCAL

    async def __aiter__(self) -> AsyncIterator[Piece]:
        self._models._know(self._model)
        if set(self._prompt) - set(LETTERS):
            raise BadInput("only small letters are read")
        self.prompt_tokens = len(self._prompt)
        generator = np.random.default_rng(self._sampling.seed or 0)
        last = self._prompt[-1]
        for number in range(1, self._sampling.max_tokens + 1):
            await self._models.gate.wait()
            await asyncio.sleep(0)
            values = self._models.log_probabilities(last)
            token = self._pick(values, generator)
            last = LETTERS[token]
            order = np.argsort(-values)[: self._sampling.top_logprobs]
            top = tuple(Candidate(int(one), LETTERS[one], float(values[one])) for one in order)
            taken = Candidate(token, last, float(values[token]))
            self.completion_tokens = number
            finish = "length" if number == self._sampling.max_tokens else ""
            yield Piece(last, (token,), (TokenLogprob(taken, top),) if top else None, finish)

    def _pick(self, values: NDArray[np.float64], generator: np.random.Generator) -> int:
        if self._sampling.temperature == 0:
            return int(values.argmax())
        order = np.argsort(-values)
        kept = order[: 1 + int((np.cumsum(np.exp(values[order])) < self._sampling.top_p).sum())]
        parts = np.exp(values[kept] / self._sampling.temperature)
        return int(generator.choice(kept, p=parts / parts.sum()))

    async def aclose(self) -> None:
        pass


@dataclass
class Vault:
    """Deposits and vouchers as the contract keeps them."""

    deposits: dict[bytes, int] = field(default_factory=dict)
    paid: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    leaves: set[bytes] = field(default_factory=set)
    down: bool = False

    def usable(self, payer: bytes) -> int:
        return self.deposits.get(payer, 0)

    def leaving(self, payer: bytes) -> bool:
        return payer in self.leaves

    def redeemed(self, payer: bytes, payee: bytes) -> int:
        return self.paid.get((payer, payee), 0)

    def bank(self, payee: bytes) -> Bank:
        async def redeem(payer: bytes, cumulative: int, signature: bytes) -> None:
            if self.down:
                raise ChainError("the chain is away")
            check_voucher(VERIFIER, payer, payee, Voucher(amount_bytes(cumulative), signature))
            value = min(cumulative - self.redeemed(payer, payee), self.deposits.get(payer, 0))
            assert value > 0
            self.deposits[payer] -= value
            self.paid[payer, payee] = self.redeemed(payer, payee) + value

        return Bank(VERIFIER, self, redeem)


class Party:
    """One node's answers: what it serves, what it asks, what it writes down. `stop` and `start` are a restart."""

    def __init__(self, town: Town, number: int, models: Any, prices: dict[str, Price]) -> None:
        self.key = AccountKey(bytes([number]) * 32)
        self.endpoint = EndpointKey(bytes([100 + number]) * 32)
        self.account = self.key.address
        self.models, self.prices = models, prices
        self.home = town.folder / str(number)
        self.lost: Callable[[bytes], bool] = lambda _: False  # whether a response is lost on its way
        self._town = town

    async def start(self) -> None:
        town = self._town
        self.journal = Journal.open(self.home)
        self.payments = Payments(self.journal)
        bank = town.vault.bank(self.account)
        shop = Shop(
            self.key,
            DOMAIN,
            self.models,
            lambda info: self.prices.get(info.id),
            town.directory.account_of,
            bank,
            redeem_at=10**9,
        )
        self.answering = Answering(shop, self.payments)
        self.network = Network(self.account, town.directory, {ALPN: self._handle})
        self.transport = await Transport.start(self.endpoint.private, "127.0.0.1:0", {ALPN: self._handle})
        self.network.attach(self.transport)
        town.register(self)
        self.asker = Asker(Payer(self.key, DOMAIN, self.network.ask, bank), self.payments)
        servers = lambda: [one for one in town.directory.with_role(SERVER) if one != self.account]  # noqa: E731
        self.market = Market(self.models, servers, dice=town.dice)
        self.routed = RoutedAnswers(self.market, self.asker).remotely()

    async def _handle(self, peer: bytes, payload: bytes) -> bytes:
        response = await self.answering.handle(peer, payload)
        if self.lost(payload):
            await asyncio.Event().wait()
        return response

    async def stop(self) -> None:
        """As at kill -9: what is not on disk is gone. (The process itself must stay.)"""
        await self.answering.close()
        await self.transport.close()
        self.journal.close()


class Town:
    """Parties who know one another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vault = Vault()
        self.directory = Directory(DOMAIN)
        self.parties: list[Party] = []
        self._throws = 0

    def dice(self) -> bytes:
        self._throws += 1
        return self._throws.to_bytes(32, "big")

    def register(self, party: Party) -> None:
        binding = make_binding(DOMAIN, party.key, party.endpoint)
        hints = ",".join(party.transport.addresses())
        role = SERVER if party.prices else 1
        assert self.directory.registered(party.account, party.endpoint.public, role, hints, binding.endpoint_signature)

    async def add(self, models: Any, deposit: int = 0, **prices: Price) -> Party:
        party = Party(self, len(self.parties) + 1, models, prices)
        self.vault.deposits[party.account] = deposit
        self.parties.append(party)
        await party.start()
        return party


@contextlib.asynccontextmanager
async def town(folder: Path) -> AsyncIterator[Town]:
    """A town that is closed at the end."""
    made = Town(folder)
    try:
        yield made
    finally:
        for party in made.parties:
            await party.asker.close()
            await party.stop()
