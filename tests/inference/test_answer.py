"""A trained model is opened: its file and its graph are checked, and it answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from atoll.errors import Refused
from atoll.graph.archive import ModelFile, pack_model
from atoll.graph.check import Limits
from atoll.graph.manifest import Data, Manifest, Policy
from atoll.graph.params import write_params
from atoll.graph.session import LocalEngine
from atoll.graph.signatures import EVALUATE_BATCH, ports_of
from atoll.graph.spec import Hyper, Input, Output, Tensor
from atoll.inference.answer import open_model
from atoll.inference.answers import Floats
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


def scores(model: ModelFile, x: Floats) -> Floats:
    """What the engine of this process makes of inputs."""
    batch = ports_of(model.manifest).evaluate_batch
    return LocalEngine().predict(model.predict, model.tensors, x, batch, model.frozen)


def test_a_model_file_answers() -> None:
    model = open_model(packed())
    x = np.array([[1, 2, 3, 4], [0, 0, 2, 0]], np.float32)
    found = scores(model, x)
    # 1*1 + 4*1, 2*2 + 4*1, 0.5 - 3 + 4; and -2 in the last place
    assert found.tolist() == [[5, 8, 1.5], [0, 0, -2]]
    assert found.dtype == np.float32


def test_a_model_file_with_frozen_tensors_answers() -> None:
    document = manifest(PREDICT, params=blob_id(FROZEN).hex())
    trained = Tensor(name="bias", shape=(3,), role="parameter", bits=BITS)
    frozen = Tensor(name="w", shape=(4, 3), role="frozen")
    graph = graph_of("p = MatMul(x, w) scores = Add(p, bias)", ports=PORTS).SerializeToString()
    document = replace(document, tensors=(trained, frozen), predict=blob_id(graph).hex())
    bias = b"".join(number.to_bytes(4, "little") for number in (16, 0, 8))
    model = open_model(pack_model(ModelFile({}, graph, bias, document, FROZEN)))
    x = np.array([[1, 2, 3, 4]], np.float32)
    assert scores(model, x).tolist() == [[6, 8, 2]]


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
