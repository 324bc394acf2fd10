"""The whole rule: vectors, plain integers, byzfl, the properties it promises, and the same bits on any BLAS."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import Refused
from atoll.training.aggregate import aggregate, apply, rule_for
from atoll.training.quantize import dequantise, quantise

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "training.json").read_text())["aggregate"]
LARGE = 2**32 - 1


def _updates(count: int, length: int, seed: int, spread: float = 1e6) -> list[bytes]:
    generator = np.random.default_rng(seed)
    direction = generator.normal(0, spread, length)
    rows = direction + generator.normal(0, spread, (count, length))
    return [quantise(np.rint(row).astype(np.int64)) for row in rows]


@pytest.mark.parametrize(
    ("count", "faulty", "mixed"),
    [
        *[(0, 0, False), (1, 0, False), (4, 0, False), (5, 1, False), (8, 1, False), (9, 2, False)],
        *[(10, 2, True), (11, 3, True), (15, 3, True), (16, 4, True), (25, 5, True), (64, 13, True)],
    ],
)
def test_the_rule_by_the_number_of_updates(count: int, faulty: int, mixed: bool) -> None:
    rule = rule_for(count)
    assert (rule.faulty, rule.mixed) == (faulty, mixed)
    assert rule.name.startswith("norm cap, ARC") == mixed


def test_a_job_may_ask_for_the_plain_mean() -> None:
    rows = [[100, -7], [50, -8], [0, 3], [10_000, 4], [-3, 5], *[[1, 0]] * 6]  # eleven: robust would mix
    updates = [quantise(np.array(row, dtype=np.int64)) for row in rows]
    # By hand: int8 in blocks with a power-of-two scale. 10,000 needs steps of 128 (78 of them: 9984), and -7 to 5 in
    # the same block of that update becomes 0; all others fit in steps of 1.
    sums = (100 + 50 + 0 + 9984 - 3 + 6, -7 - 8 + 3 + 0 + 5)
    assert aggregate(updates, 2, aggregation="mean").tolist() == [round(total / 11) for total in sums]
    assert abs(aggregate(updates, 2)).max() < 100


@pytest.mark.parametrize("vector", VECTORS)
def test_vectors(vector: dict) -> None:
    change = aggregate([bytes.fromhex(update) for update in vector["updates"]], vector["length"])
    assert change.tolist() == vector["change"]
    assert apply(bytes.fromhex(vector["model"]), change).hex() == vector["next_model"]


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 14), length=st.integers(1, 20), bits=st.integers(0, 32), data=st.data())
def test_against_plain_integers(plain: ModuleType, count: int, length: int, bits: int, data: st.DataObject) -> None:
    values = st.integers(-(2**bits) + 1, 2**bits - 1)
    rows = data.draw(st.lists(st.lists(values, min_size=length, max_size=length), min_size=count, max_size=count))
    updates = [quantise(np.array(row, dtype=np.int64)) for row in rows]
    assert aggregate(updates, length).tolist() == plain.aggregate(updates, length)


@pytest.mark.parametrize("count", [10, 25, 50])
def test_the_chain_against_byzfl(byzfl: ModuleType, count: int) -> None:
    """ARC, NNM and the trimmed mean of byzfl in floats: our three roundings move a value by less than a step each."""
    updates = _updates(count, 600, seed=count)
    faulty = rule_for(count).faulty
    for i in range(faulty):
        updates[i] = quantise(-9 * dequantise(updates[i], 600))
    floats = [dequantise(update, 600).astype(np.float64) for update in updates]
    expected = byzfl.TrMean(faulty)(byzfl.NNM(faulty)(np.array(byzfl.ARC(faulty)(floats))))
    assert np.abs(aggregate(updates, 600) - expected).max() < 2


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 16), same=st.integers(0, 3), seed=st.integers(0, 1000))
def test_the_order_of_updates_does_not_matter(count: int, same: int, seed: int) -> None:
    updates = _updates(count, 40, seed, spread=3)  # few distinct values: many equal distances
    updates[:same] = updates[:1] * min(same, count)
    shuffled = random.Random(seed).sample(updates, len(updates))
    assert aggregate(shuffled, 40).tolist() == aggregate(updates, 40).tolist()


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 16), seed=st.integers(0, 1000))
def test_the_result_lies_between_the_updates_and_zero(count: int, seed: int) -> None:
    updates = _updates(count, 40, seed)
    rows = np.array([dequantise(update, 40) for update in updates])
    result = aggregate(updates, 40)
    bounds = np.vstack([rows, np.zeros((1, 40), np.int64)]) if rule_for(count).mixed else rows  # clipping shrinks
    assert (bounds.min(axis=0) <= result).all()
    assert (result <= bounds.max(axis=0)).all()


@settings(max_examples=20, deadline=None)
@given(count=st.integers(5, 9), seed=st.integers(0, 1000), outlier=st.integers(-LARGE, LARGE))
def test_one_liar_among_five_to_nine_stays_inside_the_honest_range(count: int, seed: int, outlier: int) -> None:
    honest = _updates(count - 1, 30, seed)
    rows = np.array([dequantise(update, 30) for update in honest])
    result = aggregate([*honest, quantise(np.full(30, outlier, dtype=np.int64))], 30)
    assert (rows.min(axis=0) <= result).all()
    assert (result <= rows.max(axis=0)).all()


@pytest.mark.parametrize("count", [10, 25])
def test_a_fifth_of_liars_cannot_turn_the_round(count: int) -> None:
    updates = _updates(count, 2000, seed=1)
    honest = np.mean([dequantise(update, 2000) for update in updates[count // 5 :]], axis=0)
    attack = quantise(np.rint(np.clip(-1000 * honest, -LARGE, LARGE)).astype(np.int64))
    result = aggregate([attack] * (count // 5) + updates[count // 5 :], 2000).astype(np.float64)
    cosine = result @ honest / np.linalg.norm(result) / np.linalg.norm(honest)
    assert cosine > 0.9
    plain_mean = np.mean([dequantise(u, 2000) for u in [attack] * (count // 5) + updates[count // 5 :]], axis=0)
    assert plain_mean @ honest < 0


@pytest.mark.parametrize("count", [1, 4, 9, 10, 30])
def test_extremes_do_not_overflow(count: int) -> None:
    length = 5000
    top = quantise(np.full(length, LARGE, dtype=np.int64))
    assert (aggregate([top] * count, length) == 2**32).all()
    bottom = quantise(np.full(length, -LARGE, dtype=np.int64))
    assert (aggregate([bottom] * count, length) == -(2**32)).all()


def test_identical_zero_updates_change_nothing() -> None:
    assert not aggregate([quantise(np.zeros(300, np.int64))] * 12, 300).any()


def test_no_update_changes_nothing() -> None:
    assert aggregate([], 7).tolist() == [0] * 7


def test_a_malformed_update_is_refused() -> None:
    with pytest.raises(Refused):
        aggregate([quantise(np.zeros(300, np.int64)), bytes(301)], 300)


def test_apply_saturates() -> None:
    model = struct.pack("<3i", 2**31 - 5, -(2**31) + 5, 7)
    assert struct.unpack("<3i", apply(model, np.array([2**33, -(2**33), -9]))) == (2**31 - 1, -(2**31), -2)
    with pytest.raises(Refused):
        apply(model, np.zeros(4, dtype=np.int64))


NUMPY_KERNELS = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR AVX2 FMA3 AVX512F AVX512_SKX"  # as numpy has named them so far
SCRIPT = """
import hashlib, sys
from atoll.training.aggregate import aggregate
raw = sys.stdin.buffer.read()
length = int(sys.argv[1])
size = length + -(-length // 256)
updates = [raw[i : i + size] for i in range(0, len(raw), size)]
print(hashlib.sha256(aggregate(updates, length).tobytes()).hexdigest())
"""


@pytest.mark.parametrize("core", ["", "Prescott", "Haswell"])
@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_same_bits_on_any_blas_kernel_and_thread_count(core: str, threads: str) -> None:
    length = 9000
    updates = _updates(23, length, seed=3, spread=3e8)
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    if core:
        environment |= {"OPENBLAS_CORETYPE": core, "NPY_DISABLE_CPU_FEATURES": NUMPY_KERNELS}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(length)]
    done = subprocess.run(command, input=b"".join(updates), capture_output=True, check=True, env=environment)
    assert done.stdout.decode().strip() == hashlib.sha256(aggregate(updates, length).tobytes()).hexdigest()
