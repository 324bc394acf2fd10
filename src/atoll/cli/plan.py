"""What `atoll up` trains: a model of the zoo on a data set, put together and priced before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atoll.errors import BadInput
from atoll.graph.engine import Engine
from atoll.graph.manifest import Data, Manifest, Policy
from atoll.graph.zoo import ZooModel, load_zoo
from atoll.ledger.receipts import amount_from_text
from atoll.ledger.rewards import Prices, budget_per_round, check_affordable
from atoll.training.audit import REPLICAS
from atoll.training.data import DataSet, bundled_card, bundled_mnist, card_bytes, data_card, load_directory
from atoll.training.unit import shards_of
from atoll.wire.generator import Generator
from atoll.wire.hashing import blob_id

COIN = 10**18
UNIT_PRICE, AUDIT_PRICE, VALIDATOR_PRICE = COIN, COIN // 2, COIN // 100
COMMITTEE = 7


@dataclass(frozen=True)
class JobPlan:
    """A job that can be posted: manifest, budget in base units, and all its parts as bytes."""

    model: ZooModel
    train: DataSet
    held_out: DataSet
    manifest: Manifest
    budget: int
    parts: tuple[bytes, ...]


def plan_job(model_name: str, data_name: str, rounds: int, budget: str | None, nodes: int) -> JobPlan:
    """Put a job together; `data_name` is "mnist" or a directory, `budget` in tokens (None: the worst case).

    A budget that cannot pay all rounds gives fewer rounds. Raises EmptyBudget if it cannot pay one, BadInput.
    """
    model = load_zoo(model_name)
    train, held_out = bundled_mnist() if data_name == "mnist" else load_directory(Path(data_name))
    _check_fit(model, train)
    card = card_bytes(bundled_card() if data_name == "mnist" else _card(data_name, train, held_out))
    policy = Policy(unit_price=UNIT_PRICE, audit_price=AUDIT_PRICE, validator_price=VALIDATOR_PRICE)
    prices = Prices(UNIT_PRICE, AUDIT_PRICE, VALIDATOR_PRICE)
    worst = budget_per_round(prices, nodes, nodes, REPLICAS * nodes, min(nodes, COMMITTEE))
    units = worst * rounds if budget is None else amount_from_text(budget)
    data = Data(
        root="0x" + train.root.hex(),
        count=len(train),
        held_out_root="0x" + held_out.root.hex(),
        held_out_count=len(held_out),
        card=blob_id(card).hex(),
    )
    manifest = model.manifest(data, check_affordable(units, worst, rounds), policy)
    parts = (manifest.to_bytes(), model.step, model.evaluate, model.predict, model.initial_model, card)
    return JobPlan(model, train, held_out, manifest, units, parts)


def _card(name: str, train: DataSet, held_out: DataSet) -> dict[str, Any]:
    return data_card(Path(name).resolve().name, train, held_out, "as stated by its owner", "a directory of this device")


def _check_fit(model: ZooModel, train: DataSet) -> None:
    size, expected = int(np.prod(train.shape)), int(np.prod(model.card.input.shape))
    if size != expected or train.classes > model.card.classes:
        raise BadInput(
            f"The data has samples of {size} values in {train.classes} classes; the model {model.name!r} takes "
            f"{expected} values and tells {model.card.classes} classes apart. Choose another --data or --model."
        )


async def train_alone(plan: JobPlan, shards: int) -> float:
    """Accuracy on the held-out data of the model trained on shard 0 alone, with as many steps as a worker does."""
    card, train, held_out = plan.model.card, plan.train, plan.held_out
    shard = shards_of(train.root, len(train), max(1, shards))[0]
    generator = Generator(train.root, b"baseline")
    tensors = plan.model.first_tensors()
    shape = card.input.shape
    async with Engine() as engine:
        for number in range(plan.manifest.rounds):
            wanted = card.steps * card.batch
            order = np.concatenate([shard[generator.permutation(len(shard))] for _ in range(-(-wanted // len(shard)))])
            rows = order[:wanted].reshape(card.steps, card.batch)
            x = train.images[rows.reshape(-1)].reshape(*rows.shape, *shape)
            y = train.labels[rows].astype(np.int64)
            first = number * card.steps
            result = await engine.train(plan.model.step, tensors, x, y, first, card.learning_rate)
            zeros = {t.name: np.zeros(t.shape, np.float32) for t in card.tensors if t.role == "reset"}
            tensors = {**result.tensors, **zeros}
        certified = {t.name: tensors[t.name] for t in card.tensors if t.role != "reset"}
        images = held_out.images.reshape(len(held_out), *shape)
        found = await engine.evaluate(plan.model.evaluate, certified, images, held_out.labels.astype(np.int64))
    return found.accuracy
