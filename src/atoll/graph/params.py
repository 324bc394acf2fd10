"""`params.safetensors`: the first values of a job's parameter and aggregate tensors, and its frozen tensors.

Written with sorted names, so that equal values give equal bytes. Frozen tensors may be stored as float16; every
value is float32 once read.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from atoll.errors import Refused
from atoll.graph.fixed import encode_vector
from atoll.graph.session import Frozen
from atoll.graph.spec import Tensor
from atoll.wire.hashing import blob_id
from atoll.wire.reasons import Reason

Floats = npt.NDArray[np.float32]

MAX_HEADER = 1 << 19  # bytes: enough for MAX_TENSORS with the longest names and shapes


def write_params(values: Mapping[str, npt.NDArray[np.float32] | npt.NDArray[np.float16]]) -> bytes:
    """The file's bytes; arrays keep their dtype (float32 or float16)."""
    solid = {name: np.ascontiguousarray(values[name]) for name in sorted(values)}
    return bytes(safetensors.numpy.save(solid))


def read_params(data: bytes, tensors: tuple[Tensor, ...]) -> dict[str, Floats]:
    """All tensors but the reset ones by name, float32, from a file that holds exactly these.

    Raises Refused(BAD_PARAMS) for other names, shapes, dtypes, or values that are not finite numbers.
    """
    wanted = {tensor.name: tensor for tensor in tensors if tensor.role != "reset"}
    if int.from_bytes(data[:8], "little") > MAX_HEADER:
        raise Refused(Reason.BAD_PARAMS, f"a header of more than {MAX_HEADER} bytes")
    try:
        found = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise Refused(Reason.BAD_PARAMS, f"not a safetensors file: {str(error)[:200]}") from error
    if set(found) != set(wanted):
        different = sorted(set(found) ^ set(wanted))[:3]
        raise Refused(Reason.BAD_PARAMS, f"{len(found)} tensors, expected {len(wanted)}; different: {different}")
    return {name: _checked(tensor, found[name]) for name, tensor in wanted.items()}


def _checked(tensor: Tensor, value: npt.NDArray[np.generic]) -> Floats:
    allowed = ("float32", "float16") if tensor.role == "frozen" else ("float32",)
    if value.dtype.name not in allowed or value.shape != tensor.shape:
        detail = f"{tensor.name} is {value.dtype}{list(value.shape)}, expected {allowed[0]}{list(tensor.shape)}"
        raise Refused(Reason.BAD_PARAMS, detail)
    if not np.isfinite(value).all():
        raise Refused(Reason.BAD_PARAMS, f"{tensor.name} holds values that are not finite")
    return np.ascontiguousarray(value, np.float32)


def first_model(values: Mapping[str, Floats], tensors: tuple[Tensor, ...]) -> bytes:
    """The first model as MODEL BYTES."""
    certified = tuple(tensor for tensor in tensors if tensor.role in ("parameter", "aggregate"))
    return encode_vector(certified, values)


def frozen_of(data: bytes, tensors: tuple[Tensor, ...]) -> Frozen | None:
    """What of the file's tensors never changes, as the engine takes it; None when nothing is frozen.

    Raises Refused(BAD_PARAMS) as `read_params` does.
    """
    names = [tensor.name for tensor in tensors if tensor.role == "frozen"]
    if not names:
        return None
    values = read_params(data, tensors)
    return Frozen(blob_id(data), {name: values[name] for name in names})
