"""The manifest: canonical bytes, derived sizes, and refusal of everything outside its limits."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from atoll.errors import Refused
from atoll.graph.manifest import Data, Manifest, Policy
from atoll.graph.spec import Hyper, Input, JobSpec, Output, Target, Tensor
from atoll.wire.reasons import Reason

ROOT = "0x" + "12" * 32


def example(**changes: Any) -> Manifest:
    manifest = Manifest(
        name="two-layer",
        step="a" * 64,
        evaluate="b" * 64,
        predict="c" * 64,
        params="f" * 64,
        initial="d" * 64,
        tensors=(
            Tensor(name="w", shape=(3, 200), role="parameter"),
            Tensor(name="mean", shape=(), role="aggregate", bits=16),
            Tensor(name="momentum.w", shape=(3, 200), role="reset"),
        ),
        input=Input(shape=(1, 28, 28), dtype="uint8"),
        output=Output(shape=(10,)),
        metrics=("accuracy",),
        data=Data(root=ROOT, count=5, held_out_root=ROOT, held_out_count=3, card="e" * 64),
        hyper=Hyper(learning_rate=0.1),
        rounds=3,
        policy=Policy(unit_price=3 * 10**30, audit_price=1, validator_price=0),
    )
    return msgspec.structs.replace(manifest, **changes)


def refusal(data: bytes) -> str:
    with pytest.raises(Refused) as caught:
        Manifest.from_bytes(data)
    assert caught.value.reason == Reason.BAD_MANIFEST
    return caught.value.detail


def edited(**changes: Any) -> bytes:
    """Canonical JSON of the example with some top-level fields changed, made without our encoder."""
    plain = json.loads(example().to_bytes()) | changes
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def test_bytes_are_sorted_json_without_spaces_and_come_back() -> None:
    data = example().to_bytes()
    assert data == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode()
    assert Manifest.from_bytes(data) == example()
    assert example().id == blake3(data).digest()


def test_amounts_beyond_64_bits_travel_as_decimal_strings() -> None:
    assert json.loads(example().to_bytes())["policy"]["unit_price"] == "3000000000000000000000000000000"
    assert Manifest.from_bytes(example().to_bytes()).policy.unit_price == 3 * 10**30


def test_sizes_that_follow() -> None:
    manifest = example()
    assert (manifest.vector_length, manifest.reset_length) == (601, 600)
    assert manifest.offsets == {"w": (0, 600), "mean": (600, 601), "momentum.w": (0, 600)}
    assert manifest.model_bytes == 2404
    assert manifest.state_bytes == 2404 + 2400
    assert manifest.update_bytes == 3 + 601  # three blocks of 256
    assert manifest.segments == 2
    assert manifest.input.sample_bytes == 784
    assert manifest.sample_bytes == 784 + 4  # the label as int32


def test_frozen_tensors_are_counted_apart() -> None:
    manifest = example(tensors=(*example().tensors, Tensor(name="encoder", shape=(7, 9), role="frozen")))
    assert [tensor.name for tensor in manifest.frozen_tensors] == ["encoder"]
    assert (manifest.vector_length, manifest.reset_length) == (601, 600)
    assert manifest.offsets["encoder"] == (0, 63)
    assert manifest.model_bytes == 2404
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


def test_stored_bytes_of_samples() -> None:
    tokens = example(input=Input(shape=(64,), dtype="int64"), target=Target(shape=(64,), dtype="int64"))
    assert tokens.sample_bytes == 4 * 64 + 4 * 64  # both as int32
    signal = example(input=Input(shape=(6, 100), dtype="float32"), target=Target(shape=(2,), dtype="float32"))
    assert signal.sample_bytes == 2400 + 8


def test_a_posted_job_is_a_job_with_more() -> None:
    manifest = example()
    spec = manifest.spec
    assert type(spec) is JobSpec
    assert JobSpec.from_bytes(spec.to_bytes()) == spec
    assert Manifest.post(spec, manifest.data, manifest.rounds, manifest.policy) == manifest
    assert spec.id == blake3(spec.to_bytes()).digest() != manifest.id
    with pytest.raises(Refused):
        JobSpec.from_bytes(manifest.to_bytes())
    with pytest.raises(Refused):
        Manifest.from_bytes(spec.to_bytes())


def test_edited_helper_gives_a_manifest_that_is_accepted() -> None:
    assert Manifest.from_bytes(edited()) == example()


TENSOR = {"name": "w", "shape": [2], "role": "parameter", "bits": 24}
POLICY = json.loads(example().to_bytes())["policy"]
DATA = json.loads(example().to_bytes())["data"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"schema": 1}, "schema"),
        ({"schema": 3}, "schema"),
        ({"name": "Bad Name"}, "name"),
        ({"name": 5}, "str"),
        ({"step": "A" * 64}, "step"),
        ({"initial": "a" * 63}, "initial"),
        ({"extra": 1}, "extra"),
        ({"tensors": []}, "tensors"),
        ({"tensors": [TENSOR] * 2}, "twice"),
        ({"tensors": [TENSOR | {"name": "x"}]}, "reserved"),
        ({"tensors": [TENSOR | {"name": "next.w"}]}, "next."),
        ({"tensors": [TENSOR | {"name": "a/b"}]}, "a/b"),
        ({"tensors": [TENSOR | {"role": "reset"}]}, "parameter"),
        ({"tensors": [TENSOR | {"role": "other"}]}, "role"),
        ({"tensors": [TENSOR | {"shape": [0]}]}, "dimension"),
        ({"tensors": [TENSOR | {"shape": [-1]}]}, "dimension"),
        ({"tensors": [TENSOR | {"shape": [1 << 20, 1 << 20]}]}, "elements"),
        ({"tensors": [TENSOR | {"shape": [1] * 9}]}, "dimensions"),
        ({"tensors": [TENSOR | {"bits": 31}]}, "bits"),
        ({"tensors": [TENSOR | {"name": f"w{i}", "shape": [1 << 27]} for i in range(3)]}, "all tensors"),
        ({"input": {"shape": [2], "dtype": "string"}}, "dtype"),
        ({"target": {"shape": [0], "dtype": "int64"}}, "target"),
        ({"target": {"shape": [], "dtype": "uint8"}}, "dtype"),
        ({"output": {"shape": [], "meaning": "probabilities"}}, "classes"),
        ({"output": {"shape": [10], "meaning": "truth"}}, "meaning"),
        ({"metrics": ["Accuracy"]}, "metrics"),
        ({"metrics": ["a", "a"]}, "twice"),
        ({"metrics": [f"m{i}" for i in range(9)]}, "more than"),
        ({"params": "ab"}, "params"),
        ({"data": DATA | {"partition": "by-name"}}, "partition"),
        ({"data": DATA | {"card": "0x" + "e" * 64}}, "card"),
        ({"data": DATA | {"root": "ab"}}, "root"),
        ({"data": DATA | {"count": 0}}, "count"),
        ({"hyper": {"learning_rate": 0.0}}, "learning_rate"),
        ({"hyper": {"learning_rate": 1e9}}, "learning_rate"),
        ({"batch": 0}, "batch"),
        ({"batch": True}, "bool"),
        ({"batch": 1.5}, "float"),
        ({"steps": 0}, "steps"),
        ({"segment": 7}, "multiple"),
        ({"rounds": 0}, "rounds"),
        ({"update": {"bits": 4, "block": 256}}, "update"),
        ({"policy": POLICY | {"unit_price": 5}}, "unit_price"),
        ({"policy": POLICY | {"unit_price": "-5"}}, "unit_price"),
        ({"policy": POLICY | {"unit_price": "05"}}, "unit_price"),
        ({"policy": POLICY | {"unit_price": "9" * 39}}, "unit_price"),
        ({"policy": POLICY | {"audit_rate_floor": 10_001}}, "audit_rate_floor"),
        ({"policy": POLICY | {"unit_tolerance": {"part": 1, "whole": 0}}}, "whole"),
        ({"policy": POLICY | {"unit_tolerance": {"part": 2, "whole": 1}}}, "part"),
        ({"policy": POLICY | {"train_seconds": 0}}, "train_seconds"),
        ({"policy": "free"}, "policy"),
    ],
)
def test_refused(changes: dict[str, Any], word: str) -> None:
    assert word in refusal(edited(**changes))


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b'{"name":NaN}'])
def test_nonsense_is_refused(data: bytes) -> None:
    refusal(data)


def test_other_spellings_of_the_same_manifest_are_refused() -> None:
    data = example().to_bytes()
    assert "canonical" in refusal(data + b" ")
    assert "canonical" in refusal(json.dumps(json.loads(data), sort_keys=True).encode())
    short = json.loads(data)
    del short["batch"]  # the default would be filled in
    assert "canonical" in refusal(json.dumps(short, sort_keys=True, separators=(",", ":")).encode())


def test_oversized_is_refused_before_parsing() -> None:
    assert "at most" in refusal(b" " * 300_000)
