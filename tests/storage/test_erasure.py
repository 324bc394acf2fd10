from __future__ import annotations

import ctypes
import json
import random
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import Refused
from atoll.storage import erasure
from atoll.storage.erasure import IsalEngine, ReedSolomon, TableEngine
from atoll.wire.reasons import Reason

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "storage.json").read_text())
ISAL = erasure.find_isal()
ENGINES = [TableEngine(), *([ISAL] if ISAL else [])]
needs_isal = pytest.mark.skipif(ISAL is None, reason="this machine has no ISA-L")


def product(a: int, b: int) -> int:
    """Multiplication in GF(2^8) digit by digit, as on paper."""
    total = 0
    for bit in range(8):
        if b >> bit & 1:
            total ^= a << bit
    for bit in range(14, 7, -1):
        if total >> bit & 1:
            total ^= 0x11D << (bit - 8)
    return total


def inverse(a: int) -> int:
    return next(b for b in range(1, 256) if product(a, b) == 1)


def parity_by_hand(k: int, n: int, data: list[bytes]) -> list[bytes]:
    rows = []
    for i in range(k, n):
        row = bytearray(len(data[0]))
        for j, shard in enumerate(data):
            for at, value in enumerate(shard):
                row[at] ^= product(inverse(i ^ j), value)
        rows.append(bytes(row))
    return rows


def shards(k: int, length: int, seed: int = 1) -> list[bytes]:
    dice = random.Random(seed)
    return [dice.randbytes(length) for _ in range(k)]


def test_products_are_those_of_the_field() -> None:
    table = erasure.products()
    assert [[int(table[a, b]) for b in range(256)] for a in range(256)] == [
        [product(a, b) for b in range(256)] for a in range(256)
    ]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: type(engine).__name__)
@pytest.mark.parametrize(("k", "n"), [(1, 1), (1, 2), (2, 3), (4, 6), (5, 5), (10, 16)])
def test_parity_is_the_cauchy_product(engine: erasure.Engine, k: int, n: int) -> None:
    data = shards(k, 70)  # above the length from which ISA-L is used
    assert ReedSolomon(k, n, engine).encode(data) == parity_by_hand(k, n, data)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: type(engine).__name__)
@pytest.mark.parametrize("case", VECTORS["erasure"], ids=lambda case: f"{case['k']}/{case['n']}")
def test_golden_parity(engine: erasure.Engine, case: dict[str, Any]) -> None:
    data = [bytes.fromhex(shard) for shard in case["data"]]
    parity = ReedSolomon(case["k"], case["n"], engine).encode(data)
    assert [shard.hex() for shard in parity] == case["parity"]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: type(engine).__name__)
def test_every_k_shards_bring_back_all_the_others(engine: erasure.Engine) -> None:
    for n in range(1, 8):
        for k in range(1, n + 1):
            code = ReedSolomon(k, n, engine)
            data = shards(k, 65, seed=n * 10 + k)
            everything = data + code.encode(data)
            for kept in combinations(range(n), k):
                rebuilt = code.rebuild({index: everything[index] for index in kept}, range(n))
                assert rebuilt == dict(enumerate(everything)), (k, n, kept)


@needs_isal
@settings(deadline=None, max_examples=150)
@given(
    code=st.integers(1, 40).flatmap(lambda k: st.tuples(st.just(k), st.integers(k, min(255, k + 30)))),
    length=st.one_of(st.integers(0, 300), st.sampled_from([4095, 8191, 32767, 32768, 32769, 70001])),
    seed=st.integers(0, 2**32),
)
def test_isal_and_tables_give_identical_bytes(code: tuple[int, int], length: int, seed: int) -> None:
    k, n = code
    data = shards(k, length, seed)
    fast, slow = ReedSolomon(k, n, ISAL), ReedSolomon(k, n, TableEngine())
    parity = fast.encode(data)  # first: unwritten memory must not happen to hold the other's result
    assert slow.encode(data) == parity
    kept = random.Random(seed).sample(range(n), k)
    have = {index: (data + parity)[index] for index in kept}
    assert fast.rebuild(have, range(n)) == slow.rebuild(have, range(n)) == dict(enumerate(data + parity))


@needs_isal
@pytest.mark.parametrize("length", [63, 64, 65, 32767, 32768, 32769, 65536, 65600])
def test_lengths_at_the_edges_of_a_block(length: int) -> None:
    data = shards(3, length)
    parity = ReedSolomon(3, 5, ISAL).encode(data)
    assert parity == ReedSolomon(3, 5, TableEngine()).encode(data)


@needs_isal
@pytest.mark.parametrize(("k", "n"), [(1, 2), (4, 6), (10, 16), (29, 80), (100, 255)])
def test_generator_is_the_one_of_isal(k: int, n: int) -> None:
    library = next(ctypes.CDLL(str(path)) for path in Path(np.__file__).parents[1].glob("pyeclib.libs/libisal*.so*"))
    matrix = ctypes.create_string_buffer(n * k)
    library.gf_gen_cauchy1_matrix(matrix, n, k)
    assert erasure.cauchy(k, n).tobytes() == matrix.raw


def test_largest_code() -> None:
    code = ReedSolomon(200, 255)
    data = shards(200, 66)
    everything = data + code.encode(data)
    have = dict(list(enumerate(everything))[55:])
    assert code.rebuild(have, range(55)) == dict(enumerate(data[:55]))


def test_buffers_of_any_kind_are_taken() -> None:
    data = shards(3, 100)
    views = [bytearray(data[0]), memoryview(data[1]), data[2]]
    assert ReedSolomon(3, 5).encode(views) == ReedSolomon(3, 5).encode(data)


def test_too_few_shards_are_refused() -> None:
    data = shards(3, 10)
    with pytest.raises(Refused, match="2 of the 3") as refusal:
        ReedSolomon(3, 5).rebuild({0: data[0], 1: data[1]}, [2])
    assert refusal.value.reason == Reason.NOT_FOUND
    # What is there needs no rebuilding, however little it is.
    assert ReedSolomon(3, 5).rebuild({0: data[0]}, [0]) == {0: data[0]}


@pytest.mark.parametrize(("k", "n"), [(0, 1), (2, 1), (1, 256), (-1, 3)])
def test_impossible_codes(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="1 <= k <= n <= 255"):
        ReedSolomon(k, n)


def test_misuse_is_named() -> None:
    code = ReedSolomon(2, 3)
    with pytest.raises(ValueError, match="expected 2 data shards, got 1"):
        code.encode([b"a"])
    with pytest.raises(ValueError, match="one length"):
        code.encode([b"a", b"bc"])
    with pytest.raises(ValueError, match="one length"):
        code.rebuild({0: b"a", 1: b"bc"}, [2])
    with pytest.raises(ValueError, match=r"0\.\.2"):
        code.rebuild({0: b"a", 3: b"b"}, [1])


def test_another_library_by_that_name_is_passed_over() -> None:
    with pytest.raises(AttributeError):
        IsalEngine(ctypes.CDLL(None))
