"""The gate: what a graph must be before a node runs it.

Everything is refused that is not plain tensor arithmetic with the announced inputs and outputs, with every shape
known and bounded, within the node's own limits on memory and compute. The checks go from cheap to dear: bytes,
structure, operators, attributes, shapes, cost. Nothing is executed.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # comes with onnx, without types
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from atoll.errors import Refused
from atoll.graph import cost
from atoll.graph.shapes import ITEM_BYTES, Shaped, Walk
from atoll.graph.signatures import BATCH, Kind, Port, Signature, signature_of
from atoll.graph.spec import JobSpec
from atoll.wire.hashing import blob_id
from atoll.wire.reasons import Reason

OPSETS = range(18, 21)
IR_VERSIONS = range(8, 11)

# Operators that are arithmetic on tensors of known shapes: no control flow, no randomness, no strings, no sequences,
# nothing whose work or result's size depends on values.
_ALLOWED = """
    Abs Add And ArgMax ArgMin AveragePool BitwiseAnd BitwiseXor Cast Ceil Clip Concat Constant
    ConstantOfShape Conv ConvTranspose Cos CumSum Div Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements
    Gelu Gemm GlobalAveragePool Greater GreaterOrEqual HardSigmoid HardSwish Identity LayerNormalization LeakyRelu
    Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Min Mod Mul Neg Not Or Pad Pow Reciprocal ReduceL2 ReduceMax
    ReduceMean ReduceMin ReduceSum ReduceSumSquare Relu Reshape Round ScatterElements ScatterND Shape Sigmoid Sign Sin
    Slice Softmax Softplus Split Sqrt Squeeze Sub Tanh Tile Transpose Trilu Unsqueeze Where Xor
"""
ALLOWED = frozenset(_ALLOWED.split())
CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_ATTRIBUTE_TYPES = frozenset(
    {
        AttributeProto.FLOAT,
        AttributeProto.INT,
        AttributeProto.STRING,
        AttributeProto.TENSOR,
        AttributeProto.FLOATS,
        AttributeProto.INTS,
    }
)
_GRAPH_TYPES = frozenset({AttributeProto.GRAPH, AttributeProto.GRAPHS})
_NAME = re.compile(r"[!-~]{1,256}")  # printable ASCII: a name may stand in a log or on a terminal
_MAX_ATTRIBUTE_ITEMS = 64
_MAX_ATTRIBUTE_INT = (1 << 31) - 1
# Attributes that say yes or no: ONNX takes any number but 0 for yes, ONNX Runtime only 1.
_FLAG_NAMES = """
    allowzero ceil_mode count_include_pad exclusive fmod keepdims noop_with_empty_axes reverse select_last_index
    storage_order transA transB upper
"""
_FLAGS = frozenset(_FLAG_NAMES.split())
_OPEN_ENDED = frozenset({"end", "start"})  # Shape's bounds, which may be beyond any rank


@dataclass(frozen=True)
class Limits:
    """What a node accepts: sizes of a graph, and what one run of it may cost by our estimate."""

    graph_bytes: int = 1 << 20
    nodes: int = 4_096
    constant_bytes: int = 1 << 19
    tensor_elements: int = 1 << 26
    memory_bytes: int = 1 << 30
    flops: int = 200_000_000_000


@dataclass(frozen=True)
class GraphFacts:
    """What the check found: operators and how often each, length of the model's vector, cost of one run."""

    ops: dict[str, int]
    parameters: int
    flops: int
    memory_bytes: int


def check_job(
    manifest: JobSpec, step: bytes, evaluate: bytes, predict: bytes, limits: Limits | None = None
) -> dict[Kind, GraphFacts]:
    """Check the three graphs of a job against its manifest, and what a unit takes; raises Refused with the reason."""
    most = (limits or Limits()).memory_bytes
    samples = manifest.steps * manifest.batch * manifest.sample_bytes
    if samples > most:
        raise Refused(Reason.TOO_MUCH_MEMORY, f"{samples} bytes of samples a unit, this node lends {most}")
    graphs: dict[Kind, bytes] = {"step": step, "evaluate": evaluate, "predict": predict}
    facts: dict[Kind, GraphFacts] = {}
    for kind, data in graphs.items():
        if blob_id(data).hex() != getattr(manifest, kind):
            raise Refused(Reason.WRONG_HASH, f"{kind} graph is not the one that the manifest names")
        facts[kind] = check_graph(data, signature_of(manifest, kind), limits)
    return facts


def check_graph(data: bytes, expected: Signature, limits: Limits | None = None) -> GraphFacts:
    """Check one graph; raises Refused with the reason of the first thing found wrong."""
    limits = limits or Limits()
    if len(data) > limits.graph_bytes:
        raise Refused(Reason.GRAPH_TOO_LARGE, f"{len(data)} bytes, at most {limits.graph_bytes}")
    try:
        model = ModelProto.FromString(data)
    except DecodeError as error:
        raise Refused(Reason.BAD_GRAPH, "not a protobuf of an ONNX model") from error
    opset = _check_model(model)
    graph = model.graph
    _check_nodes(graph, opset, limits)
    _check_constants(graph, limits)
    _check_ports(graph, expected)
    _check_order(graph)
    shapes = _check_shapes(graph, opset, expected, limits)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise Refused(Reason.BAD_GRAPH, " ".join(str(error).split())[:300]) from error
    return _check_cost(graph, shapes, expected, limits)


def _check_model(model: ModelProto) -> int:
    """Things outside the graph; returns the opset."""
    for entry in model.opset_import:
        if entry.domain:
            raise Refused(Reason.CUSTOM_DOMAIN, f"domain {entry.domain[:80]!a}")
    if len(model.opset_import) != 1 or model.opset_import[0].version not in OPSETS:
        found = [entry.version for entry in model.opset_import[:8]]
        raise Refused(Reason.BAD_OPSET, f"opset {found}, expected one of {OPSETS.start} to {OPSETS.stop - 1}")
    if model.ir_version not in IR_VERSIONS:
        raise Refused(Reason.BAD_OPSET, f"IR version {model.ir_version}")
    if model.functions or model.training_info:
        raise Refused(Reason.NESTED_GRAPH, "local functions or training graphs")
    if model.graph.sparse_initializer or model.graph.quantization_annotation or model.graph.value_info:
        raise Refused(Reason.BAD_GRAPH, "sparse constants, quantisation notes or declared inner shapes")
    return int(model.opset_import[0].version)


def _check_nodes(graph: GraphProto, opset: int, limits: Limits) -> None:
    if not 0 < len(graph.node) <= limits.nodes:
        raise Refused(Reason.GRAPH_TOO_LARGE, f"{len(graph.node)} nodes, expected 1 to {limits.nodes}")
    for node in graph.node:
        if node.domain:
            raise Refused(Reason.CUSTOM_DOMAIN, f"{node.op_type[:80]!a} of domain {node.domain[:80]!a}")
        if node.op_type in CONTROL_FLOW or any(
            item.type in _GRAPH_TYPES or item.HasField("g") for item in node.attribute
        ):
            raise Refused(Reason.NESTED_GRAPH, f"{node.op_type[:80]!a} holds a graph")
        if node.op_type not in ALLOWED or not onnx.defs.has(node.op_type, opset, ""):
            raise Refused(Reason.FORBIDDEN_OP, f"{node.op_type[:80]!a} at opset {opset}")
        _check_node(node, opset)


def _check_node(node: NodeProto, opset: int) -> None:
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    if not schema.min_input <= len(node.input) <= schema.max_input or len(node.input) > 1_024:
        raise Refused(Reason.BAD_GRAPH, f"{node.op_type} with {len(node.input)} inputs")
    if not schema.min_output <= len(node.output) <= schema.max_output or len(node.output) > 1_024:
        raise Refused(Reason.BAD_GRAPH, f"{node.op_type} with {len(node.output)} outputs")
    if not node.output[0] or any(not name for name in node.input[: schema.min_input]):
        raise Refused(Reason.BAD_GRAPH, f"{node.op_type} lacks an input or output")
    names = [item.name for item in node.attribute]
    if len(set(names)) != len(names):
        raise Refused(Reason.BAD_ATTRIBUTE, f"{node.op_type} has an attribute twice")
    for item in node.attribute:
        if item.name not in schema.attributes:
            raise Refused(Reason.BAD_ATTRIBUTE, f"{node.op_type} has no attribute {item.name[:80]!a}")
        if item.type != schema.attributes[item.name].type.value:
            raise Refused(Reason.BAD_ATTRIBUTE, f"{node.op_type}.{item.name} is of type {item.type}")
        _check_attribute(f"{node.op_type}.{item.name}", item)


def _check_attribute(where: str, item: AttributeProto) -> None:
    stray = item.HasField("g") or item.graphs or item.tensors or item.HasField("sparse_tensor") or item.HasField("tp")
    if item.type not in _ATTRIBUTE_TYPES or item.ref_attr_name or stray:
        raise Refused(Reason.BAD_ATTRIBUTE, f"{where} is of type {item.type}")
    if max(len(item.ints), len(item.floats), len(item.s)) > _MAX_ATTRIBUTE_ITEMS:
        raise Refused(Reason.BAD_ATTRIBUTE, f"{where} has more than {_MAX_ATTRIBUTE_ITEMS} items")
    if item.name not in _OPEN_ENDED and any(abs(value) > _MAX_ATTRIBUTE_INT for value in (item.i, *item.ints)):
        raise Refused(Reason.BAD_ATTRIBUTE, f"{where} is beyond {_MAX_ATTRIBUTE_INT}")
    if item.name in _FLAGS and item.i not in (0, 1):
        raise Refused(Reason.BAD_ATTRIBUTE, f"{where} is {item.i}, expected 0 or 1")
    if not all(math.isfinite(value) for value in (item.f, *item.floats)):
        raise Refused(Reason.BAD_ATTRIBUTE, f"{where} is not a finite number")
    if item.type == AttributeProto.TENSOR and _check_tensor(where, item.t) > 8 * _MAX_ATTRIBUTE_ITEMS:
        raise Refused(Reason.BAD_ATTRIBUTE, f"{where} holds more than {8 * _MAX_ATTRIBUTE_ITEMS} bytes")


def _check_tensor(where: str, tensor: TensorProto) -> int:
    """Check a constant for completeness; returns its bytes."""
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise Refused(Reason.EXTERNAL_DATA, where)
    if tensor.data_type not in ITEM_BYTES or tensor.HasField("segment") or tensor.string_data:
        raise Refused(Reason.BAD_GRAPH, f"{where}: constant of element type {tensor.data_type}")
    if len(tensor.dims) > 8 or not all(0 <= length <= _MAX_ATTRIBUTE_INT for length in tensor.dims):
        raise Refused(Reason.BAD_SHAPE, f"{where}: constant of shape {list(tensor.dims[:16])}")
    elements = math.prod(tensor.dims)
    typed = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    size: int = elements * ITEM_BYTES[tensor.data_type]
    filled = [len(part) for part in typed if part]
    if (filled or len(tensor.raw_data) != size) and (tensor.raw_data or filled != [elements]):
        raise Refused(Reason.BAD_GRAPH, f"{where}: the data do not fill shape {list(tensor.dims)}")
    return size


def _check_constants(graph: GraphProto, limits: Limits) -> None:
    if len(graph.initializer) > limits.nodes:
        raise Refused(Reason.GRAPH_TOO_LARGE, f"{len(graph.initializer)} constants, at most {limits.nodes}")
    total = 0
    for tensor in graph.initializer:
        total += _check_tensor(ascii(tensor.name[:80]), tensor)
        if total > limits.constant_bytes:
            raise Refused(Reason.GRAPH_TOO_LARGE, f"constants of more than {limits.constant_bytes} bytes")


def _check_ports(graph: GraphProto, expected: Signature) -> None:
    for what, found, wanted in (("inputs", graph.input, expected.inputs), ("outputs", graph.output, expected.outputs)):
        if len(found) != len(wanted):
            raise Refused(Reason.BAD_SIGNATURE_OF_GRAPH, f"{len(found)} {what}, expected {len(wanted)}")
        for have, want in zip(found, wanted, strict=True):
            if _port(have) != want:
                raise Refused(Reason.BAD_SIGNATURE_OF_GRAPH, f"{what}: {ascii(_port(have))[:200]}, expected {want}")


def _port(value: ValueInfoProto) -> Port | None:
    """Name, element type and shape as declared; None where it is not a tensor with a full shape."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    shape: list[int | str] = []
    for dim in value.type.tensor_type.shape.dim:
        if dim.HasField("dim_value"):
            shape.append(dim.dim_value)
        else:
            shape.append(dim.dim_param)
    return str(value.name), int(value.type.tensor_type.elem_type), tuple(shape)


def _check_order(graph: GraphProto) -> None:
    """Every name is made once, before it is used."""
    made: set[str] = set()
    _declare(made, (value.name for value in graph.input))
    _declare(made, (tensor.name for tensor in graph.initializer))
    for node in graph.node:
        for name in node.input:
            if name and name not in made:
                raise Refused(Reason.BAD_GRAPH, f"{node.op_type} uses {name[:80]!a} before it is made")
        _declare(made, (name for name in node.output if name))
    for value in graph.output:
        if value.name not in made:
            raise Refused(Reason.BAD_GRAPH, f"output {value.name[:80]!a} is never made")


def _declare(made: set[str], names: Iterable[str]) -> None:
    for name in names:
        # What is not UTF-8 comes from the protobuf library as bytes.
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in made:
            raise Refused(Reason.BAD_GRAPH, f"name {name[:80]!a} is empty, too long, not printable, or made twice")
        made.add(name)


def _check_shapes(graph: GraphProto, opset: int, expected: Signature, limits: Limits) -> dict[str, Shaped]:
    walk = Walk(opset, limits.tensor_elements)
    for name, element, shape in expected.inputs:
        walk.shapes[name] = _concrete(element, shape, expected.batch)
    for tensor in graph.initializer:
        walk.constant(tensor.name, tensor)
    for node in graph.node:
        walk.step(node)
    for name, element, shape in expected.outputs:
        if walk.shapes[name] != _concrete(element, shape, expected.batch):
            raise Refused(Reason.BAD_SIGNATURE_OF_GRAPH, f"output {name} has shape {walk.shapes[name].shape}")
    return walk.shapes


def _concrete(element: int, shape: tuple[int | str, ...], batch: int) -> Shaped:
    return Shaped(element, tuple(batch if length == BATCH else int(length) for length in shape))


def _check_cost(graph: GraphProto, shapes: dict[str, Shaped], expected: Signature, limits: Limits) -> GraphFacts:
    inputs, outputs = ([port[0] for port in ports] for ports in (expected.inputs, expected.outputs))
    constants = [tensor.name for tensor in graph.initializer]
    memory = cost.memory(graph.node, shapes, inputs, constants, outputs)
    if memory > limits.memory_bytes:
        raise Refused(Reason.TOO_MUCH_MEMORY, f"about {memory} bytes, this node lends {limits.memory_bytes}")
    work = sum(cost.work(node, shapes) for node in graph.node)
    if work > limits.flops:
        raise Refused(Reason.TOO_MUCH_COMPUTE, f"about {work} operations a run, this node lends {limits.flops}")
    return GraphFacts(
        ops=dict(sorted(Counter(node.op_type for node in graph.node).items())),
        parameters=expected.parameters,
        flops=sum(cost.flops(node, shapes) for node in graph.node),
        memory_bytes=memory,
    )
