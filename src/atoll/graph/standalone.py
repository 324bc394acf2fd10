"""A predict graph with its values inside: one ONNX file that any runtime opens, for those who take a model away."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Floats = npt.NDArray[np.float32]


def standalone(predict: bytes, tensors: Mapping[str, Floats]) -> bytes:
    """`predict` with the inputs that `tensors` names turned into constants: x in, scores out.

    Raises onnx.checker.ValidationError when the result is not valid ONNX.
    """
    model = onnx.ModelProto.FromString(predict)
    kept = [value for value in model.graph.input if value.name not in tensors]
    used = {value.name for value in model.graph.input} - {value.name for value in kept}
    del model.graph.input[:]
    model.graph.input.extend(kept)
    for name in sorted(used):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(tensors[name], np.float32), name))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
