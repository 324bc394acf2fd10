"""Answers of a trained model: what goes in and comes out is checked, and so is the model file."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from atoll.errors import Refused
from atoll.graph.archive import ModelFile, pack_model
from atoll.graph.check import Limits
from atoll.graph.manifest import Data, Manifest, Policy
from atoll.graph.params import write_params
from atoll.graph.session import Frozen, LocalEngine
from atoll.graph.signatures import EVALUATE_BATCH
from atoll.graph.spec import Hyper, Input, Output, Tensor
from atoll.inference.answer import decode_scores, encode_scores, open_model, read_inputs, scores
from atoll.inference.messages import Predict, Scores
from atoll.wire.hashing import blob_id
from atoll.wire.reasons import Reason
from tests.graph.hostile import CORPUS
from tests.graph.hostile import model as graph_of

W = np.array([[1, 0, 0.5], [0, 2, 0], [0, 0, -1], [1, 1, 1]], np.float32)
BITS = 4  # so that 0.5 is 8
MODEL = b"".join(round(float(value) * 16).to_bytes(4, "little", signed=True) for value in W.reshape(-1))
PREDICT = graph_of().SerializeToString()
HASH = "ab" * 32
PORTS = "(float[batch,4] x, float[3] bias, float[4,3] w) => (float[batch,3] scores)"
FROZEN = write_params({"w": W.astype(np.float16), "bias": np.zeros(3, np.float32)})


def manifest(predict: bytes, dtype: Any = "float32", shape: tuple[int, ...] = (4,), params: str = HASH) -> Manifest:
    return Manifest(
        name="tiny",
        step=HASH,
        evaluate=HASH,
        predict=blob_id(predict).hex(),
        params=params,
        initial=HASH,
        tensors=(Tensor(name="w", shape=(4, 3), role="parameter", bits=BITS),),
        input=Input(shape=shape, dtype=dtype),
        output=Output(shape=(3,), meaning="values"),
        data=Data(root="0x" + HASH, count=1, held_out_root="0x" + HASH, held_out_count=1, card=HASH),
        hyper=Hyper(learning_rate=0.1),
        rounds=1,
        policy=Policy(unit_price=1, audit_price=1, validator_price=1),
    )


def packed(predict: bytes = PREDICT) -> bytes:
    return pack_model(ModelFile({"job": "tiny"}, predict, MODEL, manifest(predict)))


def request(count: int, inputs: bytes) -> Predict:
    return Predict(bytes(32), count, inputs)


class Local:
    """The engine of this process behind the asynchronous interface."""

    async def predict(self, graph: bytes, tensors: dict[str, Any], x: Any, batch: int, frozen: Frozen | None) -> Any:
        return LocalEngine().predict(graph, tensors, x, batch, frozen)


def test_a_model_file_answers() -> None:
    model = open_model(packed())
    x = np.array([[1, 2, 3, 4], [0, 0, 2, 0]], np.float32)
    found = asyncio.run(scores(model, read_inputs(model, request(2, x.tobytes())), Local()))
    # 1*1 + 4*1, 2*2 + 4*1, 0.5 - 3 + 4; and -2 in the last place
    assert found.tolist() == [[5, 8, 1.5], [0, 0, -2]]
    assert found.dtype == np.float32
    assert decode_scores(encode_scores(found), 2).tolist() == found.tolist()


def test_a_model_file_with_frozen_tensors_answers() -> None:
    document = manifest(PREDICT, params=blob_id(FROZEN).hex())
    trained = Tensor(name="bias", shape=(3,), role="parameter", bits=BITS)
    frozen = Tensor(name="w", shape=(4, 3), role="frozen")
    graph = graph_of("p = MatMul(x, w) scores = Add(p, bias)", ports=PORTS).SerializeToString()
    document = replace(document, tensors=(trained, frozen), predict=blob_id(graph).hex())
    bias = b"".join(number.to_bytes(4, "little") for number in (16, 0, 8))
    model = open_model(pack_model(ModelFile({}, graph, bias, document, FROZEN)))
    x = np.array([[1, 2, 3, 4]], np.float32)
    assert asyncio.run(scores(model, read_inputs(model, request(1, x.tobytes())), Local())).tolist() == [[6, 8, 2]]


@pytest.mark.parametrize("length", [0, 1, 15, 17, 31, 33, 64])
def test_inputs_of_a_wrong_length(length: int) -> None:
    model = open_model(packed())
    with pytest.raises(Refused) as caught:
        read_inputs(model, request(2, bytes(length)))
    assert caught.value.reason == Reason.MALFORMED
    assert "expected 32" in caught.value.detail


@pytest.mark.parametrize(
    ("dtype", "data", "expected"),
    [
        ("uint8", bytes(range(250, 256)), [250, 251, 252, 253, 254, 255]),
        ("float32", b"\x00\x00\x80\x3f" * 5 + b"\x00\x00\x00\xc0", [1, 1, 1, 1, 1, -2]),
        (
            "int64",
            b"".join((-number).to_bytes(8, "little", signed=True) for number in range(6)),
            [0, -1, -2, -3, -4, -5],
        ),
    ],
)
def test_inputs_have_the_shape_and_type_of_the_manifest(dtype: Any, data: bytes, expected: list[float]) -> None:
    model = ModelFile({}, b"", b"", manifest(b"", dtype, (1, 3)))
    found = read_inputs(model, request(2, data))
    assert found.shape == (2, 1, 3)
    assert found.dtype == np.dtype(dtype)
    assert found.reshape(-1).tolist() == expected


def test_scores_on_the_wire() -> None:
    answer = encode_scores(np.array([[1, -2, 0.5]], np.float32))
    assert answer == Scores((3,), bytes.fromhex("0000803f" + "000000c0" + "0000003f"))
    turned = np.array([[1, 2], [3, 4]], np.float32).T  # not in C order in memory
    assert decode_scores(encode_scores(turned), 2).tolist() == [[1, 3], [2, 4]]
    tokens = np.arange(12, dtype=np.float32).reshape(1, 4, 3)
    assert decode_scores(encode_scores(tokens), 1).tolist() == tokens.tolist()
    plain = np.array([0.5, 2], np.float32)  # one number a sample
    assert decode_scores(encode_scores(plain), 2).tolist() == [0.5, 2]


@pytest.mark.parametrize(
    ("shape", "values", "count"),
    [
        ((3,), bytes(11), 1),
        ((3,), bytes(13), 1),
        ((3,), bytes(12), 2),
        ((3,), bytes(36), 2),
        ((3,), b"", 1),
        ((2, 3), bytes(12), 1),
        ((1,) * 9, bytes(4), 1),
        ((1 << 60,), bytes(12), 1),
    ],
)
def test_scores_of_a_wrong_length(shape: tuple[int, ...], values: bytes, count: int) -> None:
    with pytest.raises(Refused) as caught:
        decode_scores(Scores(shape, values), count)
    assert caught.value.reason == Reason.MALFORMED


@pytest.mark.parametrize("word", ["0000c07f", "0000807f", "000080ff", "0100807f"])
def test_scores_that_are_no_numbers(word: str) -> None:
    with pytest.raises(Refused) as caught:
        decode_scores(Scores((2,), bytes(4) + bytes.fromhex(word)), 1)
    assert caught.value.reason == Reason.MALFORMED
    assert "finite" in caught.value.detail


@pytest.mark.parametrize(
    "name",
    [
        "randomness",
        "operator_that_does_not_exist",
        "endless_loop",
        "local_function",
        "python_operator",
        "external_path",
        "ten_gigabytes_by_constant_of_shape",
        "output_that_lies_about_its_shape",
        "truncated",
        "not_a_protobuf",
        "too_many_bytes",
    ],
)
def test_hostile_graphs_in_a_model_file_are_refused(name: str) -> None:
    make, reason = CORPUS[name]
    made = make()
    graph = made if isinstance(made, bytes) else made.SerializeToString()
    with pytest.raises(Refused) as caught:
        open_model(packed(graph))
    assert caught.value.reason == reason


def test_a_graph_beyond_this_nodes_limits_is_refused() -> None:
    open_model(packed(), Limits(flops=2 * EVALUATE_BATCH * 4 * 3))
    with pytest.raises(Refused) as caught:
        open_model(packed(), Limits(flops=2 * EVALUATE_BATCH * 4 * 3 - 1))
    assert caught.value.reason == Reason.TOO_MUCH_COMPUTE


def test_a_model_file_that_was_tampered_with_is_refused() -> None:
    good = packed()
    for data in (b"", b"junk", good[:-1], good + b"\x00", good.replace(b"tiny", b"tony")):
        with pytest.raises(Refused) as caught:
            open_model(data)
        assert caught.value.reason in (Reason.BAD_ARCHIVE, Reason.BAD_MANIFEST)
    with pytest.raises(Refused) as caught:
        pack_model(ModelFile({}, PREDICT, MODEL, manifest(b"another graph")))
    assert caught.value.reason == Reason.BAD_ARCHIVE
