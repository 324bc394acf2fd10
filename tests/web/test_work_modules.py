"""Units, fixed point, updates, comparisons and samples in the browser, bit for bit those of Python."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from atoll.errors import Refused
from atoll.graph.archive import pack
from atoll.graph.fixed import decode_state, encode_state
from atoll.graph.manifest import Data, Manifest, Policy
from atoll.graph.spec import Input, JobSpec, Target, Tensor
from atoll.graph.zoo import NAMES, load_zoo
from atoll.training.compare import compare_segment, within
from atoll.training.data.samples import DataSet
from atoll.training.quantize import dequantise, quantise, update_of
from atoll.training.unit import UnitSpec, assign_units, batches, commit_hash, shards_of, states_root
from atoll.wire.hashing import Domain
from tests.graph.test_manifest import example

from .modules import Modules, Named, NotTaken

TRAINING = json.loads((Path(__file__).parents[1] / "vectors" / "training.json").read_text("utf-8"))
DOMAIN = Domain(31337, bytes(range(20)))
JS_DOMAIN = {"chainId": DOMAIN.chain_id, "registry": DOMAIN.registry}
RNG = np.random.default_rng(4)
SPEC = load_zoo("mlp").spec


def there(modules: Modules, name: str, *arguments: Any) -> Any:
    """The module's answer, or the reason of its refusal."""
    try:
        return modules.call(name, *arguments)
    except NotTaken as error:
        return error.reason


# Units
def test_units_shards_and_batches(modules: Modules) -> None:
    for workers, shards, count in ((1, 1, 1), (3, 2, 11), (7, 5, 1_000), (4, 9, 33)):
        job, beacon, root = (RNG.bytes(32) for _ in range(3))
        accounts = [RNG.bytes(20) for _ in range(workers)]
        expected = assign_units(DOMAIN, job, 7, beacon, accounts, shards, [2] * workers)
        found = modules.call("units.assignUnits", JS_DOMAIN, job, 7, beacon, accounts, shards)
        assert [each["id"] for each in found] == [unit.id for unit in expected]
        assert [each["shard"] for each in found] == [unit.shard for unit in expected]
        assert [modules.call("units.seedOf", unit.id) for unit in expected] == [unit.seed for unit in expected]
        for partition in ("shuffled", "ordered"):
            parts = shards_of(root, count, shards, partition) if shards <= count else []  # type: ignore[arg-type]
            if parts:
                mine = modules.call("units.shardsOf", root, count, shards, partition)
                assert [part.tolist() for part in mine] == [part.tolist() for part in parts]
        if parts:
            unit, shard = expected[0], parts[expected[0].shard].astype("<u4")
            rows = modules.call("units.batches", beacon, unit.id, shard, 20, 8)
            assert rows.tolist() == batches(unit, parts[unit.shard], 20, 8).reshape(-1).tolist()


def test_golden_units(modules: Modules) -> None:
    case = TRAINING["unit"]
    domain = {"chainId": case["chain_id"], "registry": bytes.fromhex(case["registry"])}
    job, beacon = bytes.fromhex(case["job"]), bytes.fromhex(case["beacon"])
    workers = [bytes.fromhex(each) for each in case["workers"]]
    found = modules.call("units.assignUnits", domain, job, case["round"], beacon, workers, case["shards"])
    assert [each["id"].hex() for each in found] == case["ids"]
    assert [each["shard"] for each in found] == case["dealt"]


def test_commitments(modules: Modules) -> None:
    job, unit, update, salt = (RNG.bytes(32) for _ in range(4))
    account, states = RNG.bytes(20), [RNG.bytes(32) for _ in range(3)]
    root = states_root(states)
    assert modules.call("units.statesRoot", states) == root
    expected = commit_hash(DOMAIN, job, 9, unit, account, root, update, salt)
    assert modules.call("units.commitHash", JS_DOMAIN, job, 9, unit, account, root, update, salt) == expected


# Updates
def adversarial() -> list[NDArray[np.int64]]:
    """Ties of every exponent, both ends, block borders, lengths around a block."""
    ties = [np.arange(-260, 261) * (1 << e) + (1 << e) // 2 for e in range(1, 26)]
    edges = [
        np.array([sign * (255 * (1 << e) // 2 + off)]) for e in range(27) for off in (-1, 0, 1) for sign in (1, -1)
    ]
    ends = [np.array([2**32 - 1, -(2**32 - 1), 0, 2**31, -(2**31), 2**31 - 1])]
    lengths = [RNG.integers(-(2**32) + 1, 2**32, n) >> RNG.integers(0, 32) for n in (0, 1, 255, 256, 257, 511, 513)]
    mixed = [np.concatenate([np.zeros(256), [1], np.full(255, -127), [128] * 3]).astype(np.int64)]
    return [
        np.clip(case, -(2**32) + 1, 2**32 - 1).astype(np.int64) for case in (*ties, *edges, *ends, *lengths, *mixed)
    ]


def test_golden_updates(modules: Modules) -> None:
    for case in TRAINING["quantise"]:
        found = modules.call("quantise.quantise", np.array(case["change"], "<f8"))
        assert found.hex() == case["update"]


def test_updates_bit_for_bit(modules: Modules) -> None:
    cases = adversarial()
    for bits in range(33):
        cases.append(RNG.integers(-(1 << bits) + 1, 1 << bits, 2_000))
    for case in cases:
        expected = quantise(case)
        assert modules.call("quantise.quantise", case.astype("<f8")) == expected
        assert (
            modules.call("quantise.dequantise", expected, len(case)).tolist()
            == dequantise(expected, len(case)).tolist()
        )
    for wrong in (2.0**32, -(2.0**32), math.nan, math.inf):
        assert there(modules, "quantise.quantise", np.array([1.0, wrong], "<f8")) == "RangeError"


def test_update_of_two_states(modules: Modules) -> None:
    for _ in range(5):
        vector = RNG.integers(-(2**31), 2**31, (2, 700)).astype("<i4")
        model, state = vector[0].tobytes(), vector[1].tobytes() + RNG.bytes(40)
        assert modules.call("quantise.updateOf", state, model) == update_of(state, model, 700)
    assert there(modules, "quantise.updateOf", model[:-4], model) == "MALFORMED"
    assert there(modules, "quantise.updateOf", state + b"x", model) == "MALFORMED"


def test_foreign_updates_are_refused_alike(modules: Modules) -> None:
    good = quantise(RNG.integers(-(2**20), 2**20, 600))
    forms = [
        good[:-1],
        good + b"\x00",
        bytes([27]) + good[1:],
        bytes([255]) + good[1:],
        good[:-1] + b"\x80",
        bytes([5]) + bytes(len(good) - 1),
        bytes(len(good)),
        good,
    ]
    for form in forms:
        try:
            expected: Any = dequantise(form, 600).tolist()
        except Refused as error:
            expected = error.reason.name
        found = there(modules, "quantise.dequantise", form, 600)
        assert (found if isinstance(found, str) else found.tolist()) == expected


def test_a_million_values_take_less_than_a_tenth_of_a_second(modules: Modules) -> None:
    assert modules.call("quantise.milliseconds", 1_000_000) < 100


# Fixed point
def spec_of(*tensors: Tensor) -> JobSpec:
    return msgspec.structs.replace(SPEC, tensors=tensors)


def floats(size: int) -> NDArray[np.float32]:
    """Any float32: ties, both ends of the grid, denormals, the largest ones."""
    words = RNG.integers(0, 2**32, size, dtype=np.uint64).astype(np.uint32).view(np.float32)
    small = (RNG.integers(-(2**25), 2**25, size) / 2).astype(np.float32) * np.float32(2.0**-24)
    chosen = np.where(RNG.random(size) < 0.5, words, small)
    return np.nan_to_num(chosen, nan=0.5, posinf=1e38, neginf=-1e38).astype("<f4")


@pytest.mark.parametrize("bits", [0, 1, 23, 24, 30])
def test_state_bytes_bit_for_bit(bits: int, modules: Modules) -> None:
    spec = spec_of(
        Tensor(name="w", shape=(30, 40), role="parameter", bits=bits),
        Tensor(name="c", shape=(), role="parameter"),
        Tensor(name="a", shape=(64,), role="aggregate", bits=bits),
        Tensor(name="m", shape=(30, 41), role="reset"),
    )
    half = (np.arange(-600, 600) + 0.5).reshape(30, 40) * 2.0**-bits
    ends = np.full((30, 40), 2.0 ** (31 - bits)) * np.resize([1, -1, 1 - 2**-24, -1 - 2**-23], (30, 40))
    for w in (floats(1200).reshape(30, 40), half, ends, -ends):
        values = {
            "w": w.astype("<f4"),
            "c": floats(1)[0].reshape(()),
            "a": floats(64),
            "m": floats(1230).reshape(30, 41),
        }
        expected = encode_state(spec, values)
        flat = Named({name: np.ascontiguousarray(value).reshape(-1).astype("<f4") for name, value in values.items()})
        assert modules.call("fixed.state", spec.to_bytes(), flat) == expected
        back = modules.call("fixed.values", spec.to_bytes(), expected)
        for name, value in decode_state(spec, expected).items():
            assert np.array_equal(back[name].view("<u4"), value.reshape(-1).view("<u4")), name


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["w", "m"])
def test_what_is_not_finite_is_refused(wrong: float, name: str, modules: Modules) -> None:
    spec = spec_of(Tensor(name="w", shape=(5,), role="parameter"), Tensor(name="m", shape=(5,), role="reset"))
    values = {"w": np.ones(5, "<f4"), "m": np.ones(5, "<f4")}
    values[name][3] = wrong
    assert there(modules, "fixed.state", spec.to_bytes(), Named(values)) == "DIVERGED"
    with pytest.raises(Refused):
        encode_state(spec, values)


def test_states_of_a_wrong_length_are_refused(modules: Modules) -> None:
    for size in (0, SPEC.state_bytes - 4, SPEC.state_bytes + 1):
        assert there(modules, "fixed.values", SPEC.to_bytes(), bytes(size)) == "MALFORMED"


# Comparisons
def same_verdict(modules: Modules, state: bytes, reference: bytes, model: bytes, part: int, whole: int) -> None:
    expected = within(state, reference, model, len(model) // 4, part, whole)
    found = modules.call("compare.within", state, reference, model, {"part": part, "whole": whole})
    sums = ("distance_squared", "reference_squared", "reset_distance_squared", "reset_reference_squared")
    names = ("distanceSquared", "referenceSquared", "resetDistanceSquared", "resetReferenceSquared")
    assert [int(found[name]) for name in names] == [getattr(expected, name) for name in sums]
    assert (found["finite"], found["within"]) == (expected.finite, expected.within)
    start = model + bytes(len(state) - len(model))
    segment = modules.call(
        "compare.compareSegment", state, reference, start, len(model), {"part": part, "whole": whole}
    )
    assert segment["within"] == compare_segment(state, reference, start, len(model) // 4, part, whole).within


def test_distances_are_exact_and_verdicts_equal(modules: Modules) -> None:
    for size, reset in ((1, 0), (9_000, 10), (5_000, 9_000)):
        for scale in (1, 100, 2**20, 2**31):
            a, b, m = (RNG.integers(-scale, scale, size).astype("<i4") for _ in range(3))
            r = [floats(reset) * np.float32(10.0**power) for power in (0, 0)]
            r = [np.nan_to_num(each, posinf=1e30, neginf=-1e30).astype("<f4") for each in r]
            state, reference = a.tobytes() + r[0].tobytes(), b.tobytes() + r[1].tobytes()
            same_verdict(modules, state, reference, m.tobytes(), 1, 100)
            same_verdict(modules, reference, reference, m.tobytes(), 0, 1)
            near = (b + RNG.integers(-2, 3, size)).astype("<i4") if scale < 2**31 else b
            same_verdict(modules, near.tobytes() + r[1].tobytes(), reference, m.tobytes(), 1, 1_000)


@pytest.mark.parametrize("scale", [0.0, 2.0**-149, 2.0**-126, 1e-30, 1.0, 1e30, 2.0**127])
def test_reset_tensors_of_any_size(scale: float, modules: Modules) -> None:
    for first in ([3.0, 4.0], [3.0, 4.05], [0.0, -1.0], [math.nan, 1.0], [math.inf, 1.0]):
        with np.errstate(invalid="ignore", over="ignore"):
            states = [
                np.array([1000], "<i4").tobytes() + (np.array(r) / 4 * scale).astype("<f4").tobytes()
                for r in (first, [3.0, 4.0])
            ]
        same_verdict(modules, states[0], states[1], bytes(4), 1, 100)


def test_lengths_that_do_not_fit_are_refused(modules: Modules) -> None:
    for state, reference, model in (
        (bytes(8), bytes(12), bytes(8)),
        (bytes(4), bytes(4), bytes(8)),
        (bytes(9), bytes(9), b""),
    ):
        assert there(modules, "compare.within", state, reference, model, {"part": 1, "whole": 100}) == "MALFORMED"


# Samples, manifests, files
def posted(data: DataSet) -> Manifest:
    spec = msgspec.structs.replace(
        SPEC,
        input=Input(shape=data.form.x_shape, dtype=data.form.x_dtype),  # type: ignore[arg-type]
        target=Target(shape=data.form.y_shape, dtype=data.form.y_dtype),  # type: ignore[arg-type]
    )
    root = "0x" + data.root.hex()
    about = Data(root=root, count=len(data), held_out_root=root, held_out_count=1, card="00" * 32)
    return Manifest.post(spec, about, 3, Policy(unit_price=10**18, audit_price=5, validator_price=0))


SETS = {
    "pictures": DataSet(RNG.integers(0, 256, (9, 2, 3), dtype=np.uint8), RNG.integers(0, 10, 9)),
    "values": DataSet(RNG.standard_normal((9, 5)).astype(np.float32), RNG.standard_normal((9, 2)).astype(np.float32)),
    "texts": DataSet(RNG.integers(-5, 2**31, (9, 4)), RNG.integers(0, 2**31, (9, 4))),
}


@pytest.mark.parametrize("name", sorted(SETS))
def test_samples_are_proven_and_become_batches(name: str, modules: Modules) -> None:
    data = SETS[name]
    document = posted(data).to_bytes()
    indices = [3, 0, 8]
    answer = [(data.sample(index), data.prove(index)) for index in indices]
    packed = msgspec.msgpack.encode(answer)
    records = modules.call("samples.open", document, indices, packed)
    assert records == [data.sample(index) for index in indices]
    batch = modules.call("samples.batch", document, records)
    for port, values in (("x", data.x), ("y", data.y)):
        expected = values[indices]
        found = batch[port]["data"]
        found = list(found) if isinstance(found, list | bytes) else found.tolist()
        assert batch[port]["dims"] == list(expected.shape)
        assert (batch[port]["type"], found) == (expected.dtype.name, expected.reshape(-1).tolist())


def test_foreign_samples_are_refused(modules: Modules) -> None:
    data = SETS["pictures"]
    document = posted(data).to_bytes()
    row = (data.sample(3), data.prove(3))
    cases = {
        "OK": [row],
        "BAD_PROOF": [(data.sample(4), data.prove(3))],
        "MALFORMED": [(row[0] + b"x", row[1])],
    }
    for reason, answer in cases.items():
        found = there(modules, "samples.open", document, [3], msgspec.msgpack.encode(answer))
        assert (found if isinstance(found, str) else "OK") == reason
    for answer in ([], [row, row], [row[0]], {}, [[row[0], 7]]):
        assert there(modules, "samples.open", document, [3], msgspec.msgpack.encode(answer)) == "MALFORMED"
    assert there(modules, "samples.open", document, [2], msgspec.msgpack.encode([row])) == "BAD_PROOF"


@pytest.mark.parametrize("name", NAMES)
def test_sizes_and_first_values_of_the_zoo(name: str, modules: Modules) -> None:
    job = load_zoo(name)
    found = modules.call("manifest.readManifest", job.spec.to_bytes(), job.id)
    sizes = {
        "modelBytes": "model_bytes",
        "stateBytes": "state_bytes",
        "updateBytes": "update_bytes",
        "sampleBytes": "sample_bytes",
        "segments": "segments",
        "vectorLength": "vector_length",
    }
    assert {key: found[key] for key in sizes} == {key: getattr(job.spec, name) for key, name in sizes.items()}
    params = modules.call("archive.params", pack(job))
    assert {key: value.tobytes() for key, value in params.items()} == {k: v.tobytes() for k, v in job.values.items()}


def broken_manifests() -> list[bytes]:
    """A posted manifest with one field out of its limits each."""
    good = json.loads(example().to_bytes())
    cases: list[bytes] = [b"", b"{}", b"[]", b"\xff", b"null"]
    for path, wrong in (
        ("schema", 3),
        ("name", "Ä"),
        ("step", "xyz"),
        ("batch", 0),
        ("steps", 7.5),
        ("segment", 3),
        ("rounds", 0),
        ("tensors", []),
        ("tensors.0.name", "x"),
        ("tensors.0.name", "next.a"),
        ("tensors.0.shape", [2**29]),
        ("tensors.0.shape", [0]),
        ("tensors.0.bits", 31),
        ("tensors.0.role", "frozen"),
        ("tensors.0.role", "other"),
        ("hyper.learning_rate", 0),
        ("hyper.learning_rate", 1e4),
        ("hyper", {}),
        ("update.bits", 4),
        ("input.dtype", "str"),
        ("input.shape", [1] * 9),
        ("target.dtype", "uint8"),
        ("output.meaning", "?"),
        ("metrics", ["a", "a"]),
        ("data.root", "00" * 32),
        ("data.count", 0),
        ("data.partition", "any"),
        ("policy.unit_tolerance.whole", 0),
        ("policy.segment_tolerance.part", -1),
        ("policy.unit_price", "01"),
        ("policy", None),
    ):
        plain = json.loads(json.dumps(good))
        *parents, last = path.split(".")
        place: Any = plain
        for key in parents:
            place = place[int(key) if key.isdigit() else key]
        place[last] = wrong
        cases.append(json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
    return cases


def test_manifests_out_of_their_limits_are_refused(modules: Modules) -> None:
    good = example()
    assert modules.call("manifest.readManifest", good.to_bytes(), good.id)["id"] == good.id
    assert there(modules, "manifest.readManifest", good.to_bytes(), bytes(32)) == "WRONG_HASH"
    for case in broken_manifests():
        assert there(modules, "manifest.readManifest", case) == "BAD_MANIFEST", case[:300]
        with pytest.raises(Refused):
            Manifest.from_bytes(case)


def test_files_that_are_none_are_refused(modules: Modules) -> None:
    good = pack(load_zoo("logistic"))
    for case in (b"", good[:100], good[:-1], good[:-30] + bytes(30), good[: len(good) // 2]):
        assert there(modules, "archive.readParts", case) == "BAD_ARCHIVE"
    swapped = bytearray(good)
    swapped[good.index(b"ir_version") if b"ir_version" in good else len(good) // 3] ^= 1
    assert there(modules, "archive.readJobFile", bytes(swapped)) in ("BAD_ARCHIVE", "BAD_MANIFEST")


def test_unit_spec_and_browser_agree_on_a_units_name(modules: Modules) -> None:
    unit = UnitSpec(DOMAIN, RNG.bytes(32), 2**32 - 1, 255, RNG.bytes(20), 7, RNG.bytes(32), 1)
    fields = {
        "domain": JS_DOMAIN,
        "job": unit.job,
        "round": unit.round,
        "index": unit.index,
        "account": unit.account,
        "shard": unit.shard,
        "beacon": unit.beacon,
    }
    assert modules.call("units.unitId", fields) == unit.id
