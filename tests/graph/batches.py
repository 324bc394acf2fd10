"""Random samples for any job, from its document alone: the right shapes, dtypes and ranges, the same every time.

Where samples have one class each, every class has its own pattern under the noise: there is something to learn, and
training goes downhill, where runtimes that round differently stay together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from atoll.graph.spec import JobSpec

Array = npt.NDArray[Any]


def batches(spec: JobSpec, steps: int, batch: int = 0, seed: int = 0) -> tuple[Array, Array]:
    """`x` [steps, batch, ...] and `y` [steps, batch, ...]; the batch is the job's own where none is given."""
    rng = np.random.default_rng(seed)
    lead = (steps, batch or spec.batch)
    classes = spec.output.shape[-1] if spec.output.shape else 2
    y = rng.integers(0, classes if spec.target.dtype == "int64" else 2, (*lead, *spec.target.shape), dtype=np.int64)
    pattern = rng.random((classes, *spec.input.shape))[y] if not spec.target.shape else np.array(0.5)
    x: Array
    match spec.input.dtype:
        case "uint8":
            x = (156 * pattern + 100 * rng.random((*lead, *spec.input.shape))).astype(np.uint8)
        case "float32":
            x = (2 * pattern - 1 + rng.standard_normal((*lead, *spec.input.shape)) / 2).astype(np.float32)
        case "int64":  # tokens: every vocabulary has as many as the model has classes, or at least two
            known = classes if spec.target.shape == spec.input.shape else 2
            x = rng.integers(0, known, (*lead, *spec.input.shape), dtype=np.int64)
    return x, y if spec.target.dtype == "int64" else y.astype(np.float32)  # 0 and 1 are probabilities and values


def first_tensors(spec: JobSpec, values: dict[str, Array]) -> dict[str, Array]:
    """What the step graph changes, as a unit starts: first values, and zeros for the reset tensors."""
    found = {tensor.name: values[tensor.name] for tensor in spec.vector_tensors}
    return found | {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in spec.reset_tensors}
