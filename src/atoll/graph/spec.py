"""What a job computes: graphs, tensors, shapes, hyper-parameters, in one small canonical JSON document.

It is the `manifest.json` of a job file, and its BLAKE3 hash is the job file's id. `atoll.graph.manifest` adds what a
posted job has besides: data, rounds, prices. Whatever is read from outside must be exactly the canonical encoding of a
document within the limits below.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal, Self

import msgspec

from atoll.errors import Refused
from atoll.wire.canonical import read_canonical
from atoll.wire.hashing import blob_id
from atoll.wire.reasons import Reason

SCHEMA = 2
MAX_MANIFEST_BYTES = 256 * 1024
MAX_TENSORS = 1_024
MAX_METRICS = 8
MAX_RANK = 8
MAX_ELEMENTS = 1 << 28  # elements of one tensor, and of all tensors together
MAX_SEGMENTS = 200  # a reveal names every state, and has to fit into 8 KiB
BLOCK = 256

# Names that graphs use for themselves; a tensor of the model may not take one.
RESERVED_NAMES = frozenset({"x", "y", "step", "seed", "learning_rate", "loss", "count", "scores"})
RESERVED_PREFIXES = ("next.", "metric.")
TENSOR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,127}")
METRIC_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
JOB_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_BLOB = re.compile(r"[0-9a-f]{64}")

Role = Literal["parameter", "aggregate", "reset", "frozen"]
ROLES: tuple[Role, ...] = ("parameter", "aggregate", "reset", "frozen")
DType = Literal["uint8", "float32", "int64"]
STORED_BYTES = {"uint8": 1, "float32": 4, "int64": 4}  # integers are kept as int32


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A float32 tensor of the model or of the optimizer.

    `role`: `parameter` is trained and its change travels; `aggregate` is certified like a parameter (running
    statistics); `reset` is zero at the start of every unit (momentum) and never leaves the worker's states; `frozen`
    never changes and comes with the job.
    `bits`: fractional bits of the int32 fixed-point grid on which parameter and aggregate tensors are certified.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    bits: int = 24

    @property
    def size(self) -> int:
        """Number of elements (1 for a scalar)."""
        return math.prod(self.shape)


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One sample as the graph takes it: shape without the batch dimension, and element type."""

    shape: tuple[int, ...]
    dtype: DType

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample's `x` as an array of that type."""
        return math.prod(self.shape) * {"uint8": 1, "float32": 4, "int64": 8}[self.dtype]


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a sample should give: shape without the batch dimension (empty: one label a sample), and element type."""

    shape: tuple[int, ...] = ()
    dtype: Literal["int64", "float32"] = "int64"


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the model answers for one sample: shape without the batch dimension.

    `meaning`: `probabilities` of classes along the last dimension, or plain `values`.
    """

    shape: tuple[int, ...]
    meaning: Literal["probabilities", "values"] = "probabilities"


class Hyper(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Hyper-parameters that enter the graph as inputs; the others are constants inside it."""

    learning_rate: float


class Update(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How an update is quantised: bits of a value, values in a block with a common power-of-two scale."""

    bits: int = 8
    block: int = BLOCK


class JobSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a job computes.

    `step`, `evaluate`, `predict` (graphs) and `params` (a safetensors file with the first values of all parameter,
    aggregate and frozen tensors) are blob ids in hex; `initial` is the id of the first model as fixed-point MODEL
    BYTES, which follow from `params`. `tensors` are sorted by role: parameter, aggregate, reset, frozen. `metrics`
    names what `evaluate` sums up besides the loss. A unit of work is `steps` steps of `batch` samples, in segments
    of `segment` steps.
    """

    schema: int = SCHEMA
    name: str
    step: str
    evaluate: str
    predict: str
    params: str
    initial: str
    tensors: tuple[Tensor, ...]
    input: Input
    target: Target = Target()
    output: Output
    metrics: tuple[str, ...] = ()
    hyper: Hyper
    batch: int = 32
    steps: int = 20
    segment: int = 10
    update: Update = Update()

    @property
    def vector_tensors(self) -> tuple[Tensor, ...]:
        """Tensors that are certified (parameter and aggregate), in manifest order."""
        return tuple(tensor for tensor in self.tensors if tensor.role in ("parameter", "aggregate"))

    @property
    def reset_tensors(self) -> tuple[Tensor, ...]:
        """Tensors that are zero at the start of a unit, in manifest order."""
        return tuple(tensor for tensor in self.tensors if tensor.role == "reset")

    @property
    def frozen_tensors(self) -> tuple[Tensor, ...]:
        """Tensors that never change, in manifest order."""
        return tuple(tensor for tensor in self.tensors if tensor.role == "frozen")

    @property
    def vector_length(self) -> int:
        """P: elements of the certified vector."""
        return sum(tensor.size for tensor in self.vector_tensors)

    @property
    def reset_length(self) -> int:
        """R: elements of all reset tensors."""
        return sum(tensor.size for tensor in self.reset_tensors)

    @property
    def offsets(self) -> dict[str, tuple[int, int]]:
        """Where each tensor lies: [start, stop) in the vector, or among the reset or the frozen tensors."""
        found: dict[str, tuple[int, int]] = {}
        for group in (self.vector_tensors, self.reset_tensors, self.frozen_tensors):
            start = 0
            for tensor in group:
                found[tensor.name] = (start, start + tensor.size)
                start += tensor.size
        return found

    @property
    def model_bytes(self) -> int:
        """Length of MODEL BYTES: the vector as int32."""
        return 4 * self.vector_length

    @property
    def state_bytes(self) -> int:
        """Length of STATE BYTES: the vector as int32, then the reset tensors as float32."""
        return self.model_bytes + 4 * self.reset_length

    @property
    def update_bytes(self) -> int:
        """Length of UPDATE BYTES: one exponent a block, then one int8 a value."""
        return -(-self.vector_length // self.update.block) + self.vector_length

    @property
    def segments(self) -> int:
        """Segments of a unit; each ends with a state that is committed to."""
        return self.steps // self.segment

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample as it is kept and sent: x, then y, integers as int32 (atoll.training.samples)."""
        x = math.prod(self.input.shape) * STORED_BYTES[self.input.dtype]
        return x + math.prod(self.target.shape) * STORED_BYTES[self.target.dtype]

    def check(self) -> None:
        """Raise Refused(BAD_MANIFEST) when a field lies outside its limits."""
        check_spec(self)

    def to_bytes(self) -> bytes:
        """Canonical bytes: JSON, UTF-8, keys sorted, no spaces. Raises Refused(BAD_MANIFEST) as `check` does."""
        self.check()
        return msgspec.json.encode(self.to_plain(), order="sorted")

    def to_plain(self) -> dict[str, Any]:
        """The document as plain values, as they stand in the JSON."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    @classmethod
    def from_plain(cls, plain: Any) -> Any:
        """Undo what `to_plain` does besides, before types are checked."""
        return plain

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a document; raises Refused(BAD_MANIFEST) unless `data` is the canonical encoding of a valid one."""
        return read_canonical(data, MAX_MANIFEST_BYTES, cls._parse, Reason.BAD_MANIFEST)

    @classmethod
    def _parse(cls, data: bytes) -> Self:
        return msgspec.convert(cls.from_plain(msgspec.json.decode(data)), cls, strict=True)

    @property
    def id(self) -> bytes:
        """BLAKE3 of the canonical bytes: the document's blob id."""
        return blob_id(self.to_bytes())


def need(condition: bool, detail: str) -> None:
    """Raise Refused(BAD_MANIFEST) unless `condition` holds."""
    if not condition:
        raise Refused(Reason.BAD_MANIFEST, detail)


def within(name: str, value: int, low: int, high: int) -> None:
    """Raise Refused(BAD_MANIFEST) unless `low` <= `value` <= `high`."""
    need(low <= value <= high, f"{name} is {value}, expected {low} to {high}")


def check_spec(spec: JobSpec) -> None:
    """Raise Refused(BAD_MANIFEST) when a field of a `JobSpec` lies outside its limits."""
    need(spec.schema == SCHEMA, f"schema {spec.schema}, this version reads {SCHEMA}")
    need(bool(JOB_NAME.fullmatch(spec.name)), "name must be 1-64 of a-z 0-9 . _ -")
    for key in ("step", "evaluate", "predict", "params", "initial"):
        need(bool(_BLOB.fullmatch(getattr(spec, key))), f"{key} must be 64 lowercase hex digits")
    _check_tensors(spec)
    for name, port in (("input", spec.input), ("target", spec.target), ("output", spec.output)):
        _check_shape(name, port.shape)
    need(spec.output.meaning == "values" or bool(spec.output.shape), "probabilities need a dimension of classes")
    need(len(spec.metrics) <= MAX_METRICS, f"more than {MAX_METRICS} metrics")
    need(len(set(spec.metrics)) == len(spec.metrics), "a metric is named twice")
    need(all(METRIC_NAME.fullmatch(name) for name in spec.metrics), "metrics must be 1-32 of a-z 0-9 _")
    rate = spec.hyper.learning_rate
    need(math.isfinite(rate) and 0 < rate <= 1_000, "hyper.learning_rate must be positive and at most 1000")
    within("batch", spec.batch, 1, 65_536)
    within("steps", spec.steps, 1, 100_000)
    within("segment", spec.segment, 1, spec.steps)
    need(spec.steps % spec.segment == 0, "steps must be a multiple of segment")
    within("segments (steps / segment)", spec.segments, 1, MAX_SEGMENTS)
    need(spec.update == Update(), f"update must be {Update().bits} bits in blocks of {BLOCK}")


def _check_tensors(spec: JobSpec) -> None:
    within("number of tensors", len(spec.tensors), 1, MAX_TENSORS)
    seen = set(RESERVED_NAMES)
    for tensor in spec.tensors:
        need(bool(TENSOR_NAME.fullmatch(tensor.name)), f"tensor name {tensor.name[:140]!r}")
        need(not tensor.name.startswith(RESERVED_PREFIXES), f"tensor name {tensor.name!r}: the prefix is for outputs")
        need(tensor.name not in seen, f"tensor name {tensor.name!r} is taken twice or reserved")
        seen.add(tensor.name)
        _check_shape(f"tensor {tensor.name}", tensor.shape)
        within(f"bits of {tensor.name}", tensor.bits, 0, 30)
    roles = [ROLES.index(tensor.role) for tensor in spec.tensors]
    need(roles == sorted(roles), "tensors must be sorted by role: parameter, aggregate, reset, frozen")
    need(spec.tensors[0].role == "parameter", "no tensor has the role parameter")
    total = sum(tensor.size for tensor in spec.tensors)
    need(total <= MAX_ELEMENTS, f"{total} elements in all tensors, at most {MAX_ELEMENTS}")


def _check_shape(what: str, shape: tuple[int, ...]) -> None:
    need(len(shape) <= MAX_RANK, f"{what}: more than {MAX_RANK} dimensions")
    for length in shape:
        within(f"{what}: a dimension", length, 1, MAX_ELEMENTS)
    need(math.prod(shape) <= MAX_ELEMENTS, f"{what}: more than {MAX_ELEMENTS} elements")
