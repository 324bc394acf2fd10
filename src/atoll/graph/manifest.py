"""The job manifest: what a job is, in one small canonical JSON document whose BLAKE3 hash is the manifest's id.

The manifest names every other part of a job by hash (graphs, initial model, data), lists the tensors of the model
in the order in which they form the *vector* that is certified, and carries the policy (prices, audit rate,
tolerances). Whatever is read from outside goes through `Manifest.from_bytes`, which refuses anything that is not
exactly the canonical encoding of a manifest within the limits below.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import msgspec

from atoll.errors import Refused
from atoll.wire.hashing import blob_id
from atoll.wire.nesting import is_shallow
from atoll.wire.reasons import Reason

SCHEMA = 1
MAX_MANIFEST_BYTES = 256 * 1024
MAX_TENSORS = 1_024
MAX_RANK = 8
MAX_ELEMENTS = 1 << 28  # elements of one tensor, and of all tensors together
MAX_AMOUNT = 1 << 128
MAX_SEGMENTS = 200  # a reveal names every state, and has to fit into 8 KiB
BLOCK = 256

# Names that graphs use for themselves; a tensor of the model may not take one.
RESERVED_NAMES = frozenset({"x", "y", "step", "learning_rate", "loss", "correct", "scores"})
_TENSOR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,127}")
_JOB_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_BLOB = re.compile(r"[0-9a-f]{64}")
_ROOT = re.compile(r"0x[0-9a-f]{64}")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,38}")
_AMOUNTS = ("unit_price", "audit_price", "validator_price")

Role = Literal["parameter", "aggregate", "reset"]
DType = Literal["uint8", "float32", "int64"]


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A float32 tensor of the model or of the optimizer.

    `role`: `parameter` is trained and its change travels; `aggregate` is certified like a parameter (running
    statistics); `reset` is zero at the start of every unit (momentum) and never leaves the worker's states.
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
        """Bytes of one sample's `x`."""
        return math.prod(self.shape) * {"uint8": 1, "float32": 4, "int64": 8}[self.dtype]


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The data a job needs: Merkle roots (0x hex) and counts of the train and held-out samples, id of the card."""

    root: str
    count: int
    held_out_root: str
    held_out_count: int
    card: str


class Hyper(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Hyper-parameters that enter the graph as inputs; the others are constants inside it."""

    learning_rate: float


class Update(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How an update is quantised: bits of a value, values in a block with a common power-of-two scale."""

    bits: int = 8
    block: int = BLOCK


class Ratio(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A fraction of integers: `part / whole`."""

    part: int
    whole: int


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Prices and rules of a job; integers only. Prices are in base units (10^18 = 1 token).

    `audit_rate_floor` is in units per 10,000; `unit_tolerance` and `segment_tolerance` bound the relative L2
    distance between an honest result and its recomputation; `epoch_rounds` rounds are settled together;
    `train_seconds` is the time a worker has for one unit.
    """

    unit_price: int
    audit_price: int
    validator_price: int
    audit_rate_floor: int = 1_000
    unit_tolerance: Ratio = Ratio(part=1, whole=100)
    segment_tolerance: Ratio = Ratio(part=1, whole=1_000)
    epoch_rounds: int = 4
    train_seconds: int = 60


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A job. `step`, `evaluate`, `predict` and `initial` (fixed-point model bytes) are blob ids in hex."""

    schema: int = SCHEMA
    name: str
    step: str
    evaluate: str
    predict: str
    initial: str
    tensors: tuple[Tensor, ...]
    input: Input
    classes: int
    data: Data
    hyper: Hyper
    batch: int = 32
    steps: int = 20
    segment: int = 10
    rounds: int
    update: Update = Update()
    policy: Policy

    @property
    def vector_tensors(self) -> tuple[Tensor, ...]:
        """Tensors that are certified (parameter and aggregate), in manifest order."""
        return tuple(tensor for tensor in self.tensors if tensor.role != "reset")

    @property
    def reset_tensors(self) -> tuple[Tensor, ...]:
        """Tensors that are zero at the start of a unit, in manifest order."""
        return tuple(tensor for tensor in self.tensors if tensor.role == "reset")

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
        """Where each tensor lies: [start, stop) in the vector, or among the reset tensors for a reset tensor."""
        found: dict[str, tuple[int, int]] = {}
        for group in (self.vector_tensors, self.reset_tensors):
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

    def to_bytes(self) -> bytes:
        """Canonical bytes: JSON, UTF-8, keys sorted, no spaces, amounts as decimal strings.

        Raises Refused(BAD_MANIFEST) when a field lies outside its limits.
        """
        _check(self)
        plain: dict[str, Any] = msgspec.to_builtins(self)
        for key in _AMOUNTS:
            plain["policy"][key] = str(plain["policy"][key])
        return msgspec.json.encode(plain, order="sorted")

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read a manifest; raises Refused(BAD_MANIFEST) unless `data` is the canonical encoding of a valid one."""
        _need(len(data) <= MAX_MANIFEST_BYTES, f"{len(data)} bytes, at most {MAX_MANIFEST_BYTES}")
        _need(is_shallow(data), "nested too deeply")
        try:
            plain = msgspec.json.decode(data)
            manifest = msgspec.convert(_with_integer_amounts(plain), cls, strict=True)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(Reason.BAD_MANIFEST, str(error)) from error
        _need(manifest.to_bytes() == data, "not in canonical form (sorted keys, no spaces, all fields)")
        return manifest

    @property
    def id(self) -> bytes:
        """BLAKE3 of the canonical bytes: the manifest's blob id."""
        return blob_id(self.to_bytes())


def _with_integer_amounts(plain: Any) -> Any:
    policy = plain.get("policy") if isinstance(plain, dict) else None
    if not isinstance(policy, dict):
        return plain  # the schema check says what is wrong
    amounts = {}
    for key in _AMOUNTS:
        text = policy.get(key)
        if not isinstance(text, str) or not _DECIMAL.fullmatch(text):
            raise Refused(Reason.BAD_MANIFEST, f"policy.{key} must be a decimal string")
        amounts[key] = int(text)
    return {**plain, "policy": {**policy, **amounts}}


def _need(condition: bool, detail: str) -> None:
    if not condition:
        raise Refused(Reason.BAD_MANIFEST, detail)


def _within(name: str, value: int, low: int, high: int) -> None:
    _need(low <= value <= high, f"{name} is {value}, expected {low} to {high}")


def _check(manifest: Manifest) -> None:
    _need(manifest.schema == SCHEMA, f"schema {manifest.schema}, this version reads {SCHEMA}")
    _need(bool(_JOB_NAME.fullmatch(manifest.name)), "name must be 1-64 of a-z 0-9 . _ -")
    for key in ("step", "evaluate", "predict", "initial"):
        _need(bool(_BLOB.fullmatch(getattr(manifest, key))), f"{key} must be 64 lowercase hex digits")
    _check_tensors(manifest)
    _check_shape("input", manifest.input.shape)
    _within("classes", manifest.classes, 1, 1 << 20)
    _check_data(manifest.data)
    rate = manifest.hyper.learning_rate
    _need(math.isfinite(rate) and 0 < rate <= 1_000, "hyper.learning_rate must be positive and at most 1000")
    _within("batch", manifest.batch, 1, 65_536)
    _within("steps", manifest.steps, 1, 100_000)
    _within("segment", manifest.segment, 1, manifest.steps)
    _need(manifest.steps % manifest.segment == 0, "steps must be a multiple of segment")
    _within("segments (steps / segment)", manifest.segments, 1, MAX_SEGMENTS)
    _within("rounds", manifest.rounds, 1, 1_000_000)
    _need(manifest.update == Update(), f"update must be {Update().bits} bits in blocks of {BLOCK}")
    _check_policy(manifest.policy)


def _check_tensors(manifest: Manifest) -> None:
    _within("number of tensors", len(manifest.tensors), 1, MAX_TENSORS)
    seen = set(RESERVED_NAMES)
    for tensor in manifest.tensors:
        _need(bool(_TENSOR_NAME.fullmatch(tensor.name)), f"tensor name {tensor.name[:140]!r}")
        _need(not tensor.name.startswith("next."), f"tensor name {tensor.name!r}: 'next.' is for outputs")
        _need(tensor.name not in seen, f"tensor name {tensor.name!r} is taken twice or reserved")
        seen.add(tensor.name)
        _check_shape(f"tensor {tensor.name}", tensor.shape)
        _within(f"bits of {tensor.name}", tensor.bits, 0, 30)
    _need(any(tensor.role == "parameter" for tensor in manifest.tensors), "no tensor has the role parameter")
    total = sum(tensor.size for tensor in manifest.tensors)
    _need(total <= MAX_ELEMENTS, f"{total} elements in all tensors, at most {MAX_ELEMENTS}")


def _check_shape(what: str, shape: tuple[int, ...]) -> None:
    _need(len(shape) <= MAX_RANK, f"{what}: more than {MAX_RANK} dimensions")
    for length in shape:
        _within(f"{what}: a dimension", length, 1, MAX_ELEMENTS)
    _need(math.prod(shape) <= MAX_ELEMENTS, f"{what}: more than {MAX_ELEMENTS} elements")


def _check_data(data: Data) -> None:
    for key in ("root", "held_out_root"):
        _need(bool(_ROOT.fullmatch(getattr(data, key))), f"data.{key} must be 0x and 64 lowercase hex digits")
    _need(bool(_BLOB.fullmatch(data.card)), "data.card must be 64 lowercase hex digits")
    _within("data.count", data.count, 1, 1 << 32)
    _within("data.held_out_count", data.held_out_count, 1, 1 << 32)


def _check_policy(policy: Policy) -> None:
    for key in _AMOUNTS:
        _within(f"policy.{key}", getattr(policy, key), 0, MAX_AMOUNT)
    _within("policy.audit_rate_floor", policy.audit_rate_floor, 0, 10_000)
    for key in ("unit_tolerance", "segment_tolerance"):
        ratio = getattr(policy, key)
        _within(f"policy.{key}.whole", ratio.whole, 1, 1_000_000_000)
        _within(f"policy.{key}.part", ratio.part, 0, ratio.whole)
    _within("policy.epoch_rounds", policy.epoch_rounds, 1, 1_000_000)
    _within("policy.train_seconds", policy.train_seconds, 1, 86_400)
