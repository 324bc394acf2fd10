"""Units, shards, batches and commitments: vectors from plain Python, and the properties that audits rely on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.training.unit import UnitSpec, assign_units, batches, commit_hash, shards_of, states_root
from atoll.wire.hashing import Domain

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "training.json").read_text())["unit"]
DOMAIN = Domain(VECTOR["chain_id"], bytes.fromhex(VECTOR["registry"]))
JOB, BEACON = bytes.fromhex(VECTOR["job"]), bytes.fromhex(VECTOR["beacon"])
WORKERS = [bytes.fromhex(worker) for worker in VECTOR["workers"]]


def _units() -> list[UnitSpec]:
    return assign_units(DOMAIN, JOB, VECTOR["round"], BEACON, WORKERS, VECTOR["shards"], [4] * len(WORKERS))


def test_vector_of_the_assignment() -> None:
    units = _units()
    assert [unit.account for unit in units] == WORKERS
    assert [unit.shard for unit in units] == VECTOR["dealt"]
    assert [unit.id.hex() for unit in units] == VECTOR["ids"]


def test_vector_of_shards_and_batches() -> None:
    parts = shards_of(bytes.fromhex(VECTOR["data_root"]), VECTOR["samples"], VECTOR["shards"])
    assert [part.tolist() for part in parts] == VECTOR["parts"]
    first = _units()[0]
    assert batches(first, parts[first.shard], 3, 4).tolist() == VECTOR["batches"]


def test_vector_of_the_commitment() -> None:
    root = states_root([bytes.fromhex(state) for state in VECTOR["states"]])
    assert root.hex() == VECTOR["states_root"]
    update, salt = bytes.fromhex(VECTOR["update"]), bytes.fromhex(VECTOR["salt"])
    unit = _units()[0]
    commit = commit_hash(DOMAIN, JOB, VECTOR["round"], unit.id, unit.account, root, update, salt)
    assert commit.hex() == VECTOR["commit"]


@pytest.mark.parametrize(
    "change",
    [
        {"domain": Domain(1, DOMAIN.registry)},
        {"domain": Domain(DOMAIN.chain_id, bytes(20))},
        {"job": bytes(32)},
        {"round": 8},
        {"index": 1},
        {"account": bytes(20)},
        {"shard": 5},
        {"beacon": bytes(32)},
    ],
)
def test_a_unit_id_binds_every_field(change: dict) -> None:
    unit = _units()[0]
    assert replace(unit, **change).id != unit.id
    assert replace(unit).id == unit.id


@settings(max_examples=40)
@given(workers=st.integers(0, 30), shards=st.integers(1, 12))
def test_shards_are_dealt_evenly(workers: int, shards: int) -> None:
    units = assign_units(DOMAIN, JOB, 0, BEACON, [bytes([i]) * 20 for i in range(workers)], shards, range(workers))
    assert [unit.segments for unit in units] == list(range(workers))
    counts = np.bincount([unit.shard for unit in units], minlength=shards)
    assert len(counts) == shards
    assert counts.max() - counts.min() <= 1
    assert len({unit.id for unit in units}) == workers


def test_another_round_deals_otherwise() -> None:
    workers = [bytes([i]) * 20 for i in range(12)]
    fours = [4] * 12
    dealt = [[u.shard for u in assign_units(DOMAIN, JOB, number, BEACON, workers, 12, fours)] for number in range(2)]
    assert dealt[0] != dealt[1]


def test_what_cannot_be_assigned() -> None:
    with pytest.raises(ValueError, match="one shard"):
        assign_units(DOMAIN, JOB, 0, BEACON, WORKERS, 0, [4] * len(WORKERS))
    with pytest.raises(ValueError, match="one unit"):
        assign_units(DOMAIN, JOB, 0, BEACON, [WORKERS[0], WORKERS[0]], 2, [4, 4])
    with pytest.raises(ValueError, match="shorter"):
        assign_units(DOMAIN, JOB, 0, BEACON, WORKERS, 2, [4])


@settings(max_examples=40)
@given(count=st.integers(1, 200), shards=st.integers(1, 20), root=st.binary(min_size=32, max_size=32))
def test_shards_part_the_data(count: int, shards: int, root: bytes) -> None:
    if shards > count:
        with pytest.raises(ValueError, match="cannot make"):
            shards_of(root, count, shards)
        return
    parts = shards_of(root, count, shards)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_ordered_shards_are_neighbours() -> None:
    parts = shards_of(bytes(32), 10, 3, "ordered")
    assert [part.tolist() for part in parts] == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
    assert parts[0].dtype == np.int64
    with pytest.raises(ValueError, match="cannot make"):
        shards_of(bytes(32), 2, 3, "ordered")


@settings(max_examples=40)
@given(size=st.integers(1, 40), steps=st.integers(0, 12), batch=st.integers(1, 16))
def test_a_sample_comes_again_only_after_all_others(size: int, steps: int, batch: int) -> None:
    shard = np.arange(100, 100 + size)
    order = batches(_units()[0], shard, steps, batch)
    assert order.shape == (steps, batch)
    flat = order.ravel().tolist()
    for start in range(0, len(flat), size):
        epoch = flat[start : start + size]
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(shard.tolist())


def test_each_unit_has_its_own_order_and_each_epoch_another() -> None:
    shard = np.arange(64)
    first, second = (batches(unit, shard, 4, 32).ravel().tolist() for unit in _units()[:2])
    assert first != second
    assert first[:64] != first[64:]


def test_an_empty_shard_is_an_error() -> None:
    with pytest.raises(ValueError, match="without samples"):
        batches(_units()[0], np.arange(0), 1, 1)


def test_a_commitment_binds_everything() -> None:
    values = [JOB, 7, b"u" * 32, b"a" * 20, b"r" * 32, b"d" * 32, b"s" * 32]
    seen = {commit_hash(DOMAIN, *values)}
    for i, value in enumerate(values):
        changed = values.copy()
        changed[i] = value + 1 if isinstance(value, int) else bytes(len(value))
        seen.add(commit_hash(DOMAIN, *changed))
    seen.add(commit_hash(Domain(1, DOMAIN.registry), *values))
    assert len(seen) == 9
