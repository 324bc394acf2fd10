"""Scenarios: what a simulated network goes through and what must come of it, in a small TOML file.

Each `[[scenario]]` is played once for each of its seeds. Money is part of it: certificates become receipts and epochs
as in a node, and what is paid must add up.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from atoll.errors import AtollError, BadInput, InternalError
from atoll.graph.manifest import Data, Manifest, Policy
from atoll.graph.zoo import load_zoo
from atoll.ledger.epoch import PublishedEpoch, post_of
from atoll.ledger.rewards import Prices, budget_per_round
from atoll.ledger.statement import ChainEpoch, ChainView, explain, explanation_text
from atoll.node.book import Book, JobAccount
from atoll.sim.faults import Faults
from atoll.sim.network import DOMAIN, Material, Network, Options
from atoll.training.audit import REPLICAS
from atoll.training.committee import AUDIT, REPLICA, UNIT, VALIDATION, CertifyPayload
from atoll.training.context import light_accounts
from atoll.training.data import bundled_mnist
from atoll.training.events import Finished
from atoll.training.verdict import GUILTY
from atoll.wire.eip712 import Verifier

TOKEN = 10**18
SETTLEMENT = b"\x33" * 20
PRICES = Policy(unit_price=TOKEN, audit_price=TOKEN // 2, validator_price=TOKEN // 100, epoch_rounds=2)


class Expect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What must come of a scenario: which nodes are convicted, how many units of the others are not accepted at most,
    and whether the job is finished in `seconds` of simulated time (else it must not be)."""

    rejected: tuple[int, ...] = ()
    honest_refused: int = 0
    finished: bool = True


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One scenario. `seeds` lists what it is played with; `committee` and `room` bound the committee and the roster,
    `light` are the numbers of the light workers."""

    name: str
    nodes: int = 6
    rounds: int = 3
    model: Literal["softmax", "mlp", "cnn"] = "softmax"
    seeds: tuple[int, ...] = (1,)
    committee: int = 7
    room: int = 256
    light: tuple[int, ...] = ()
    seconds: float = 3600.0
    faults: Faults = Faults()
    expect: Expect = Expect()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    scenario: tuple[Scenario, ...]


@dataclass(frozen=True)
class Outcome:
    """How one play of a scenario ended; `failures` says what was not as expected."""

    scenario: Scenario
    seed: int
    rounds: int
    simulated: float
    messages: int
    refused: int
    paid: int
    wall: float
    failures: tuple[str, ...]


def load(path: Path) -> tuple[Scenario, ...]:
    """The scenarios of a TOML file; raises BadInput."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=_File).scenario
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} holds no scenarios: {error}. See examples/scenarios.toml for the form.") from error


def material(model: str, rounds: int) -> Material:
    """A job on the bundled images with a model of the zoo."""
    train, held_out = bundled_mnist()
    zoo = load_zoo(model)
    roots = ("0x" + train.root.hex(), "0x" + held_out.root.hex())
    data = Data(root=roots[0], count=len(train), held_out_root=roots[1], held_out_count=len(held_out), card="00" * 32)
    manifest = Manifest.post(zoo.spec, data, rounds, PRICES)
    images = train.x.reshape(len(train), *manifest.input.shape)
    return Material(manifest, zoo.step, zoo.model, images, train.y)


def play(scenario: Scenario, seed: int, on: Material | None = None) -> Outcome:
    """Play a scenario with one seed."""
    on = on or material(scenario.model, scenario.rounds)
    began = time.perf_counter()
    options = Options(committee_size=scenario.committee, room=scenario.room, light=scenario.light)
    network = Network(on, scenario.nodes, scenario.faults, seed, options)
    failures: list[str] = []
    try:
        network.play(scenario.seconds)
    except InternalError as error:
        failures.append(str(error))
    history = [network.history[number] for number in sorted(network.history)]
    refused, found = _judged(scenario, network, history)
    failures += found
    paid = 0
    try:
        paid = settle(network, history)
    except AtollError as error:
        failures.append(str(error))
    wall = time.perf_counter() - began
    sums = (len(history), network.clock.now, network.messages, refused, paid, wall)
    return Outcome(scenario, seed, *sums, tuple(failures))


def _judged(scenario: Scenario, network: Network, history: Sequence[Finished]) -> tuple[int, list[str]]:
    """Units that were not accepted, and what differs from what was expected."""
    expect, failures = scenario.expect, []
    if (len(history) == scenario.rounds) != expect.finished:
        failures.append(f"{len(history)} of {scenario.rounds} rounds were certified")
    bad = [row for one in history for row in one.certificate.verdicts if row.kind == UNIT and row.reason]
    guilty = {network.nodes[row.account].index for row in bad if row.reason in GUILTY}
    if guilty != set(expect.rejected):
        failures.append(f"nodes {sorted(guilty)} were convicted, {sorted(expect.rejected)} should be")
    honest = sum(network.nodes[row.account].index not in expect.rejected for row in bad)
    if honest > expect.honest_refused:
        failures.append(f"{honest} honest units were not accepted")
    return len(bad), failures


def settle(network: Network, history: Sequence[Finished]) -> int:
    """Pay for the certified rounds as the nodes do; returns what was paid, raises AtollError if it does not add up.

    The sum over accounts, the job's total and the sum over verdicts times prices are worked out apart, and the offline
    check goes over the epochs as if a chain held them.
    """
    job, manifest = network.terms.job, network.material.manifest
    policy, light = manifest.policy, light_accounts(network.enlisted)
    prices = Prices(policy.unit_price, policy.audit_price, policy.validator_price, manifest.segments)
    nodes = len(network.nodes)
    budget = network.terms.rounds * budget_per_round(prices, nodes, nodes, REPLICAS * nodes, nodes)
    book = Book()
    book.open_job(job, JobAccount(prices, network.terms.rounds, policy.epoch_rounds, budget))
    for one in history:
        book.certified(job, one.round, one.certificate, light)
        spans = book.due({job: one.round + 1})
        if spans:
            book.posted(book.draft(len(book.epochs), spans))
    owed = sum(_owed(network, one.certificate) for one in history[: book.settled_rounds(job)])
    paid = sum(book.totals.accounts.values())
    total = book.totals.jobs[job].total if job in book.totals.jobs else 0
    if not paid == total == owed <= budget:
        raise InternalError(f"{paid} was paid to accounts, {total} for the job, {owed} is owed, the budget is {budget}")
    verifier = Verifier(DOMAIN.chain_id, SETTLEMENT)
    posted = tuple(_as_posted(epoch, verifier) for epoch in book.epochs)
    found = explain(book.epochs, ChainView(verifier, posted, {}, {job: budget}, {job: light}), {job: prices})
    if not found.match:
        raise InternalError(explanation_text(found))
    return paid


def _owed(network: Network, certificate: CertifyPayload) -> int:
    """What the verdicts of a round are worth: the price of each, or its part where the unit is a light worker's."""
    manifest = network.material.manifest
    policy, accepted = manifest.policy, [row for row in certificate.verdicts if row.reason == 0]
    owners = {row.unit: network.nodes[row.account].index for row in certificate.verdicts if row.kind == UNIT}
    light = {unit for unit, index in owners.items() if index in network.options.light}
    each = {UNIT: policy.unit_price, AUDIT: policy.audit_price, REPLICA: policy.audit_price}
    each[VALIDATION] = policy.validator_price
    return sum(each[row.kind] // (manifest.segments if row.unit in light else 1) for row in accepted)


def _as_posted(epoch: PublishedEpoch, verifier: Verifier) -> ChainEpoch:
    post = post_of(epoch, verifier)
    return ChainEpoch(post.epoch, post.root, post.receipts_root, post.accounts, post.receipts, epoch.jobs)
