"""The developer of `atoll up`: prepares a job from the zoo and a data set, pays for it, and has it settled."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from atoll.errors import BadInput, MachineError
from atoll.graph.engine import Engine
from atoll.graph.manifest import Data, Manifest, Policy
from atoll.graph.zoo import ZooModel, load_zoo
from atoll.ledger.chain import Chain
from atoll.ledger.receipts import amount_from_text
from atoll.ledger.records import JobRecord
from atoll.ledger.rewards import Prices, budget_per_round, check_affordable
from atoll.training.audit import REPLICAS
from atoll.training.data import DataSet, bundled_card, bundled_mnist, card_bytes, data_card, load_directory
from atoll.training.unit import shards_of
from atoll.wire.generator import Generator
from atoll.wire.hashing import blob_id
from atoll.wire.identity import parse_account
from atoll.wire.keystore import create_keys, has_keys, load_keys

COIN = 10**18
UNIT_PRICE, AUDIT_PRICE, VALIDATOR_PRICE = COIN, COIN // 2, COIN // 100
COMMITTEE = 7
JOB_SECONDS = 7 * 24 * 3600
ENLIST_SECONDS = 60.0
SETTLE_SECONDS = 120.0


@dataclass(frozen=True)
class JobPlan:
    """What to train: a model of the zoo, "mnist" or a directory, rounds, a budget in tokens (None: what is needed)."""

    model: str
    data: str
    rounds: int
    budget: str | None


class Developer:
    """One account that posts jobs. All chain calls run in a thread, one after the other."""

    def __init__(self, home: Path, chain: Chain) -> None:
        self.home, self.chain = home, chain
        self.baseline_accuracy: float | None = None
        self.first_epoch = 0
        self._manifest: Manifest | None = None
        self._budget = 0
        self._data: tuple[DataSet, DataSet] | None = None
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, home: Path, network: dict[str, Any]) -> Developer:
        """Load or make the developer's keys and connect; on an embedded chain, take the newcomer's gift."""
        home.mkdir(parents=True, exist_ok=True)
        passphrase = os.environ.get("ATOLL_PASSPHRASE")
        if not has_keys(home):
            create_keys(home, passphrase)
        keys, _ = load_keys(home, passphrase)
        registry = parse_account(network["registry"])
        chain = await asyncio.to_thread(Chain.connect, network["rpc"], registry, None, keys.account)
        found = cls(home, chain)
        if await found.call(chain.coins, keys.account.address) == 0:
            await found.call(chain.fund, keys.account.address)
        found.first_epoch = await found.call(chain.next_epoch)
        return found

    async def call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """A chain call in a thread."""
        async with self._turn:
            return await asyncio.to_thread(work, *arguments)

    # -- the job ---------------------------------------------------------------------------------------------------
    async def find_unfinished(self) -> str:
        """A job of this account that was started and is not yet settled ("" if there is none)."""
        for job in await self.call(self.chain.jobs):
            record: JobRecord = await self.call(self.chain.job, job)
            if record.developer == self.chain.account and record.started_at and not record.closed:
                return "0x" + job.hex()
        return ""

    def prepare(self, plan: JobPlan, nodes: int) -> list[Path]:
        """Write the job's parts as files and return them; raises EmptyBudget, BadInput."""
        model, (train, held_out) = load_zoo(plan.model), self._load(plan)
        card = card_bytes(bundled_card() if plan.data == "mnist" else _card(plan.data, train, held_out))
        _check_fit(model, train)
        policy = Policy(unit_price=UNIT_PRICE, audit_price=AUDIT_PRICE, validator_price=VALIDATOR_PRICE)
        prices = Prices(UNIT_PRICE, AUDIT_PRICE, VALIDATOR_PRICE)
        worst = budget_per_round(prices, nodes, nodes, REPLICAS * nodes, min(nodes, COMMITTEE))
        self._budget = worst * plan.rounds if plan.budget is None else amount_from_text(plan.budget)
        rounds = check_affordable(self._budget, worst, plan.rounds)
        data = Data(
            root="0x" + train.root.hex(),
            count=len(train),
            held_out_root="0x" + held_out.root.hex(),
            held_out_count=len(held_out),
            card=blob_id(card).hex(),
        )
        self._manifest = model.manifest(data, rounds, policy)
        parts = (self._manifest.to_bytes(), model.step, model.evaluate, model.predict, model.initial_model, card)
        paths = []
        for content in parts:
            path = self.home / f"{blob_id(content).hex()}.part"
            path.write_bytes(content)
            paths.append(path)
        return paths

    def _load(self, plan: JobPlan) -> tuple[DataSet, DataSet]:
        if self._data is None:
            self._data = bundled_mnist() if plan.data == "mnist" else load_directory(Path(plan.data))
        return self._data

    async def post(self, seed: str) -> str:
        """Open the job on the chain with its budget in escrow; returns its id."""
        if self._manifest is None:
            raise MachineError("no job was prepared")
        deadline = int(time.time()) + JOB_SECONDS
        terms = (self._manifest.id, self._budget, self._manifest.rounds, deadline, parse_account(seed))
        job, _ = await self.call(self.chain.open, *terms)
        return "0x" + job.hex()

    async def start_when(self, job: str, count: int, say: Callable[[str], None]) -> None:
        """Start the job when so many nodes have enlisted; after a minute with those that have."""
        name, end = bytes.fromhex(job[2:]), time.monotonic() + ENLIST_SECONDS
        while True:
            enlisted = await self.call(self.chain.enlisted, name)
            if len(enlisted) >= count or (enlisted and time.monotonic() > end):
                break
            await asyncio.sleep(0.3)
        members = sorted(one.account for one in enlisted)
        order = Generator(name, b"first committee")
        order.shuffle(members)
        await self.call(self.chain.start, name, members[:COMMITTEE])
        say(f"{len(enlisted)} nodes have enlisted; training starts")

    # -- afterwards ------------------------------------------------------------------------------------------------
    async def settle(self, job: str, accounts: Callable[[], Sequence[str]]) -> None:
        """Wait until everything earned is paid, then take the rest of the budget back."""
        name, end = bytes.fromhex(job[2:]), time.monotonic() + SETTLE_SECONDS
        while not await self.call(self.chain.is_settled, name) or await self._unpaid(name):
            if time.monotonic() > end:
                raise MachineError(f"Job {job} was not settled within {SETTLE_SECONDS:g} s; see the nodes' logs.")
            await asyncio.sleep(0.3)
        if not (await self.call(self.chain.job, name)).closed:
            await self.call(self.chain.refund, name)

    async def _unpaid(self, job: bytes) -> bool:
        """Whether the settlement still holds tokens that somebody earned."""
        return bool(await self.call(self.chain.balance, self.chain.addresses.settlement) > await self._bonds())

    async def _bonds(self) -> int:
        """Bonds that the settlement holds: all that is left there once every account has claimed."""
        nodes = await self.call(self.chain.nodes)
        free = [await self.call(self.chain.bond, node.account) for node in nodes]
        terms = await self.call(self.chain.terms)
        count = await self.call(self.chain.next_epoch)
        epochs = [await self.call(self.chain.epoch, number) for number in range(count)]
        return int(sum(free) + sum(terms.bond for epoch in epochs if epoch.bond_held))

    async def baseline(self, plan: JobPlan, shards: int) -> None:
        """How good the same model gets alone: as many steps, on one worker's shard of the data."""
        train, held_out = self._load(plan)
        model = load_zoo(plan.model)
        self.baseline_accuracy = await train_alone(model, train, held_out, plan.rounds, max(1, shards))

    def question(self, path: Path) -> tuple[Path, int]:
        """A held-out picture as a file, and what it shows."""
        if self._data is None:
            raise MachineError("no data was loaded")
        held_out = self._data[1]
        image = held_out.images[0].reshape(held_out.images.shape[-2:])
        Image.fromarray(image).save(path)
        return path, int(held_out.labels[0])


async def train_alone(model: ZooModel, train: DataSet, held_out: DataSet, rounds: int, shards: int) -> float:
    """Accuracy on the held-out data of the model trained on shard 0 alone, with as many steps as a worker does."""
    card = model.card
    shard = shards_of(train.root, len(train), shards)[0]
    generator = Generator(train.root, b"baseline")
    tensors = model.first_tensors()
    shape = card.input.shape
    async with Engine() as engine:
        for number in range(rounds):
            wanted = card.steps * card.batch
            order = np.concatenate([shard[generator.permutation(len(shard))] for _ in range(-(-wanted // len(shard)))])
            rows = order[:wanted].reshape(card.steps, card.batch)
            x = train.images[rows.reshape(-1)].reshape(*rows.shape, *shape)
            y = train.labels[rows].astype(np.int64)
            first = number * card.steps
            result = await engine.train(model.step, tensors, x, y, first, card.learning_rate)
            zeros = {t.name: np.zeros(t.shape, np.float32) for t in card.tensors if t.role == "reset"}
            tensors = {**result.tensors, **zeros}
        certified = {t.name: tensors[t.name] for t in card.tensors if t.role != "reset"}
        images = held_out.images.reshape(len(held_out), *shape)
        found = await engine.evaluate(model.evaluate, certified, images, held_out.labels.astype(np.int64))
    return found.accuracy


def _card(name: str, train: DataSet, held_out: DataSet) -> dict[str, Any]:
    return data_card(Path(name).resolve().name, train, held_out, "as stated by its owner", "a directory of this device")


def _check_fit(model: ZooModel, train: DataSet) -> None:
    size, expected = int(np.prod(train.shape)), int(np.prod(model.card.input.shape))
    if size != expected or train.classes > model.card.classes:
        raise BadInput(
            f"The data has samples of {size} values in {train.classes} classes; the model {model.name!r} takes "
            f"{expected} values and tells {model.card.classes} classes apart. Choose another --data or --model."
        )


