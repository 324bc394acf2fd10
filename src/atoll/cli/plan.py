"""A job that is about to be posted: a job file on a data set, put together and priced before anything starts."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from atoll.errors import BadInput
from atoll.graph.archive import JobFile
from atoll.graph.engine import Engine
from atoll.graph.manifest import Aggregation, Data, Manifest, Policy
from atoll.graph.params import frozen_of
from atoll.graph.session import Pace
from atoll.graph.signatures import ports_of
from atoll.ledger.receipts import amount_from_text
from atoll.ledger.rewards import Prices, budget_per_round, check_affordable
from atoll.training.audit import REPLICAS
from atoll.training.data import Source
from atoll.training.data.fit import fit
from atoll.training.unit import shards_of
from atoll.wire.generator import Generator
from atoll.wire.hashing import blob_id

COIN = 10**18
UNIT_PRICE, AUDIT_PRICE, VALIDATOR_PRICE = COIN, COIN // 2, COIN // 100
POLICY = Policy(unit_price=UNIT_PRICE, audit_price=AUDIT_PRICE, validator_price=VALIDATOR_PRICE)
COMMITTEE = 7


@dataclass(frozen=True)
class JobPlan:
    """A job that can be posted: manifest, budget in base units, and all its parts as bytes."""

    job: JobFile
    source: Source
    manifest: Manifest
    budget: int
    parts: tuple[bytes, ...]


@dataclass(frozen=True)
class Seats:
    """For how many nodes a job is planned, and for how many that come later, as browser tabs do, it keeps money."""

    nodes: int
    guests: int = 0


def worst_case(nodes: int) -> int:
    """Base units that a round of so many nodes costs at most."""
    prices = Prices(UNIT_PRICE, AUDIT_PRICE, VALIDATOR_PRICE)
    return budget_per_round(prices, nodes, nodes, REPLICAS * nodes, min(nodes, COMMITTEE))


def plan_job(
    job: JobFile, source: Source, rounds: int, budget: str | None, seats: Seats, aggregation: Aggregation = "robust"
) -> JobPlan:
    """Put a job together; `budget` is in tokens (None: the worst case with all guests).

    A budget that cannot pay all rounds gives fewer rounds. Raises EmptyBudget if it cannot pay one, and BadInput when
    data and job do not fit.
    """
    fit(job.spec, source)
    if len(source.train) < seats.nodes:
        raise BadInput(f"The data set has {len(source.train)} train samples for {seats.nodes} nodes: add more data.")
    worst = worst_case(seats.nodes)
    whole = worst_case(seats.nodes + seats.guests) * rounds
    units = whole if budget is None else amount_from_text(budget)
    policy = msgspec.structs.replace(POLICY, aggregation=aggregation)
    card = source.card_bytes
    data = Data(
        root="0x" + source.train.root.hex(),
        count=len(source.train),
        held_out_root="0x" + source.held_out.root.hex(),
        held_out_count=len(source.held_out),
        card=blob_id(card).hex(),
        partition=source.partition,
    )
    manifest = Manifest.post(job.spec, data, check_affordable(units, worst, rounds), policy)
    parts = (manifest.to_bytes(), job.step, job.evaluate, job.predict, job.params, card)
    return JobPlan(job, source, manifest, units, parts)


async def train_alone(plan: JobPlan, shards: int) -> dict[str, float]:
    """Loss and metrics on the held-out data of the model trained on shard 0 alone, as many steps as a worker does."""
    spec, train, held_out = plan.job.spec, plan.source.train, plan.source.held_out
    shard = shards_of(train.root, len(train), max(1, shards), plan.manifest.data.partition)[0]
    generator = Generator(train.root, b"baseline")
    frozen = frozen_of(plan.job.params, spec.tensors)
    tensors = {tensor.name: plan.job.values[tensor.name] for tensor in spec.vector_tensors}
    zeros = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in spec.reset_tensors}
    async with Engine() as engine:
        for number in range(plan.manifest.rounds):
            wanted = spec.steps * spec.batch
            order = np.concatenate([shard[generator.permutation(len(shard))] for _ in range(-(-wanted // len(shard)))])
            rows = order[:wanted].reshape(spec.steps, spec.batch)
            x = train.x[rows.reshape(-1)].reshape(*rows.shape, *spec.input.shape)
            pace = Pace(number * spec.steps, number, spec.hyper.learning_rate)
            result = await engine.train(plan.job.step, {**tensors, **zeros}, x, train.y[rows], pace, frozen)
            tensors = {name: result.tensors[name] for name in tensors}
        x = held_out.x.reshape(len(held_out), *spec.input.shape)
        found = await engine.evaluate(plan.job.evaluate, tensors, x, held_out.y, ports_of(spec).evaluate_batch, frozen)
    return {"loss": found.loss, **found.metrics}
