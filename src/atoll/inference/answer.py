"""Running a trained model: inputs are checked against its manifest, its graph against the allow-list."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atoll.errors import Refused
from atoll.graph.archive import ModelFile, unpack_model
from atoll.graph.check import Limits, check_graph
from atoll.graph.session import Frozen
from atoll.graph.signatures import ports_of, signature_of
from atoll.graph.spec import MAX_RANK
from atoll.inference.messages import Predict, Scores
from atoll.wire.reasons import Reason

Floats = NDArray[np.float32]


class Predictor(Protocol):
    """What runs a predict graph (atoll.graph.engine.Engine)."""

    async def predict(
        self, graph: bytes, tensors: dict[str, Floats], x: NDArray[Any], batch: int, frozen: Frozen | None
    ) -> Floats:
        """Scores [n, ...] of inputs x [n, ...]."""


def open_model(data: bytes, limits: Limits | None = None) -> ModelFile:
    """Read a model file and check its graph; raises Refused with the reason."""
    model = unpack_model(data)
    check_graph(model.predict, signature_of(model.manifest, "predict"), limits)
    return model


def read_inputs(model: ModelFile, request: Predict) -> NDArray[Any]:
    """The inputs as the graph takes them, [count, ...]; raises Refused(MALFORMED) on a wrong length."""
    form = model.manifest.input
    if len(request.inputs) != request.count * form.sample_bytes:
        expected = request.count * form.sample_bytes
        raise Refused(Reason.MALFORMED, f"{len(request.inputs)} bytes for {request.count} inputs, expected {expected}")
    return np.frombuffer(request.inputs, form.dtype).reshape(request.count, *form.shape)


async def scores(model: ModelFile, x: NDArray[Any], predictor: Predictor) -> Floats:
    """Run the model on inputs x [n, ...]; float32 [n, ...]."""
    batch = ports_of(model.manifest).evaluate_batch
    return await predictor.predict(model.predict, model.tensors, x, batch, model.frozen)


def encode_scores(values: Floats) -> Scores:
    """Scores as they cross the network."""
    return Scores(values.shape[1:], np.ascontiguousarray(values, "<f4").tobytes())


def decode_scores(answer: Scores, count: int) -> Floats:
    """Scores from a peer, [count, ...]; raises Refused(MALFORMED) unless they are finite numbers."""
    if len(answer.shape) > MAX_RANK or len(answer.values) != 4 * math.prod(answer.shape) * count:
        raise Refused(Reason.MALFORMED, f"{len(answer.values)} bytes of scores for {count} inputs")
    values = np.frombuffer(answer.values, "<f4").reshape(count, *answer.shape)
    if not np.isfinite(values).all():
        raise Refused(Reason.MALFORMED, "the scores are not finite numbers")
    return values
