"""From a function of tensors to an ONNX graph: recorded as core ATen with a symbolic batch, exported, made canonical.

Needs torch. `make_fx` runs the function on fake tensors (shapes without values) and notes each operation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import onnx_ir
import torch
from onnx_ir.passes import common
from onnxscript.optimizer._constant_folding import FoldConstantsPass
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import LocalSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.onnx import OnnxExporterError

from atoll.errors import BadInput
from atoll.graph.check import ALLOWED
from atoll.graph.signatures import BATCH, Signature
from atoll.graph.tracing import blame, decompose
from atoll.graph.tracing.blame import Watch
from atoll.graph.tracing.decompose import inplace
from atoll.graph.tracing.decompose.recurrent import Rewriting
from atoll.graph.tracing.tidy import tidy

OPSET = 18
MAX_BATCH = 65_536
_FOLD = 64  # elements of a constant that is computed while exporting, at most
MAX_CONSTANT_BYTES = 64 * 1024
_INSTEAD = "Write it with other operations; docs/jobs.md says what can be traced"
_SIZES = (37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103)
_TRIED = (2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 36, 64, 100, 128, 256, 1_000, MAX_BATCH)


def batch_for(tensors: Iterable[Tensor]) -> int:
    """A size for the batch while tracing that no dimension of `tensors` has, so that nothing fits it by chance."""
    taken = {length for value in tensors for length in value.shape}
    return next((size for size in _SIZES if size not in taken), _SIZES[0])


class Shadows:
    """Fake tensors: shapes without values, whose first dimension may be the symbolic batch."""

    def __init__(self) -> None:
        self.shapes = ShapeEnv(duck_shape=True, allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)
        self.mode = FakeTensorMode(shape_env=self.shapes, allow_non_fake_inputs=True)
        self._count = 0

    def of(self, value: Tensor, *, batched: bool = False) -> Tensor:
        """The shadow of a tensor."""
        sizes = [DimDynamic.STATIC] * value.dim()
        if batched:
            sizes[0] = DimDynamic.DUCK
        context = StatelessSymbolicContext(dynamic_sizes=sizes)
        self._count += 1
        source = LocalSource(f"a{self._count}")
        made: Tensor = self.mode.from_tensor(value, symbolic_context=context, source=source)
        return made

    def watch(self, kept: Sequence[Tensor] = ()) -> Watch:
        """A watch over what is run on these shadows."""
        return Watch(self.shapes, tuple(kept))

    def check(self) -> None:
        """Raise BadInput where the user's lines decide by the size of the batch."""
        if self.shapes.replacements:
            raise blame.bad(blame.of_shapes(self.shapes), blame.BATCH)
        for guard in self.shapes.guards:
            place = blame.of_frame(guard.sloc.framework_loc)
            if place is not None and not all(_holds(guard.expr, size) for size in _TRIED):
                raise blame.bad(place, blame.BATCH)


def _holds(condition: Any, size: int) -> bool:
    """Whether a condition on the batch holds for that size."""
    return bool(condition.subs(dict.fromkeys(condition.free_symbols, size)))


class _Wrapped(nn.Module):  # type: ignore[misc]  # torch is untyped here
    def __init__(self, recorded: GraphModule) -> None:
        super().__init__()
        self.recorded = recorded

    def forward(self, *flat: Tensor) -> Any:
        return self.recorded(*flat)


def record(function: Callable[..., Any], arguments: Sequence[Tensor], batched: int, kept: slice) -> GraphModule:
    """Core ATen of `function`; the first `batched` arguments share one symbolic first dimension.

    The arguments in `kept` may not be changed in place. Raises BadInput with the user's line.
    """
    shadows = Shadows()
    shadow = [shadows.of(value, batched=index < batched) for index, value in enumerate(arguments)]

    def run(*flat: Tensor) -> Any:
        return blame.watched(shadows.watch(flat[kept]), function, *flat)

    with shadows.mode, enable_python_dispatcher(), Rewriting(), blame.explained():
        maker = partial(make_fx, decomposition_table=decompose.table())
        recorded = maker(run)(*shadow)
        if inplace.changes_parts(recorded):
            recorded = inplace.without(recorded, shadow, maker)
    shadows.check()
    recorded.graph.eliminate_dead_code()
    recorded.recompile()
    _check_recorded(recorded)
    return recorded


def _check_recorded(recorded: GraphModule) -> None:
    """Raise BadInput for large constants and for numbers that no node takes, with the user's line."""
    for node in recorded.graph.nodes:
        value = getattr(recorded, node.target, None) if node.op == "get_attr" else None
        if isinstance(value, Tensor) and value.nbytes > MAX_CONSTANT_BYTES:
            user = next(iter(node.users), node)
            text = f"a tensor {list(value.shape)} is a constant here; make it a buffer with register_buffer"
            raise blame.bad(user.meta.get(blame.USER), text)


def _check_operators(model: Any, recorded: GraphModule) -> None:
    """Raise BadInput for an operator that nodes refuse, with the line of the operation that became it."""
    for node in model.graph:
        if node.op_type not in ALLOWED and node.op_type != "Constant":
            text = f"this becomes the ONNX operator {node.op_type}, which nodes do not run. {_INSTEAD}"
            raise blame.bad(_origin(node.metadata_props.get("pkg.torch.onnx.fx_node", ""), recorded), text)


def _origin(written: str, recorded: GraphModule) -> blame.Place | None:
    """The user's line behind the operation that the exporter writes as `%name : ... target=torch.ops...](...`."""
    name = written.partition(" : ")[0].removeprefix("%")
    target = re.search(r"target=torch\.ops\.([\w.]+)", written)
    nodes = [node for node in recorded.graph.nodes if blame.USER in node.meta]
    alike = [node for node in nodes if target is not None and str(node.target) == target[1]]
    chosen = next((node for node in alike if node.name == name), alike[0] if alike else None)
    place: blame.Place | None = None if chosen is None else chosen.meta[blame.USER]
    return place


def _exported(program: Any, recorded: GraphModule) -> Any:
    """The program as an ONNX model; raises BadInput for an operation that ONNX has no words for."""
    try:
        exported = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            optimize=False,
            custom_translation_table=decompose.translations(),
        )
    except OnnxExporterError as error:
        text = str(error.__cause__ or error)
        target = re.search(r"target=torch\.ops\.([\w.]+)", text)
        said = f"torch.ops.{target[1]} cannot be written as ONNX" if target else f"no ONNX for this: {text[:300]}"
        raise blame.bad(_origin(text[text.find("%") :], recorded), f"{said}. {_INSTEAD}") from error
    if exported is None:
        raise BadInput("the exporter returned nothing")
    return exported


def export(function: Callable[..., Any], arguments: Sequence[Tensor], ports: Signature, kept: slice) -> bytes:
    """The graph of `function` as canonical ONNX with the inputs and outputs of `ports`. Raises BadInput."""
    batched = sum(BATCH in shape for _, _, shape in ports.inputs)
    recorded = record(function, arguments, batched, kept)
    batch = torch.export.Dim(BATCH, min=1, max=MAX_BATCH)
    dynamic = tuple({0: batch} if index < batched else None for index in range(len(arguments)))
    with blame.explained():
        program = torch.export.export(_Wrapped(recorded), tuple(arguments), dynamic_shapes=(dynamic,))
        exported = _exported(program, recorded)
        _fold(exported.model)
        _check_operators(exported.model, recorded)
    return tidy(exported.model_proto, ports)


def _fold(model: Any) -> None:
    """Compute what follows from constants.

    The exporter's own optimizer would do more, but it takes numbers up to 1e-8 for zero and drops the epsilon of Adam.
    """
    steps = [
        common.InlinePass(),
        FoldConstantsPass(shape_inference=True, input_size_limit=_FOLD, output_size_limit=_FOLD),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
    ]
    onnx_ir.passes.Sequential(*steps)(model)
