"""From a function of tensors to an ONNX graph: recorded as core ATen with a symbolic batch, exported, made canonical.

Needs torch. `make_fx` runs the function on fake tensors (shapes without values) and notes each operation.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
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
from torch.fx import traceback as notes
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from atoll.errors import BadInput
from atoll.graph.signatures import BATCH, Signature
from atoll.graph.tracing import blame, decompose
from atoll.graph.tracing.blame import Watch
from atoll.graph.tracing.tidy import tidy

OPSET = 18
MAX_BATCH = 65_536
_FOLD = 8_192  # elements of a constant that is computed while exporting, at most
MAX_CONSTANT_BYTES = 64 * 1024
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

    def watch(self, kept: Sequence[Tensor] = (), mark: Callable[[str], None] | None = None) -> Watch:
        """A watch over what is run on these shadows."""
        return Watch(self.shapes, tuple(kept), mark)

    def check(self) -> None:
        """Raise BadInput where the user's lines decide by the size of the batch."""
        if self.shapes.replacements:
            raise blame.bad(self._line(), blame.BATCH)
        for guard in self.shapes.guards:
            place = blame.of_frame(guard.sloc.framework_loc)
            if place is not None and not all(_holds(guard.expr, size) for size in _TRIED):
                raise blame.bad(place, blame.BATCH)

    def _line(self) -> blame.Place | None:
        places = [blame.of_frame(guard.sloc.framework_loc) for guard in self.shapes.guards]
        return next((place for place in places if place is not None), None)


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

    def mark(place: str) -> None:
        notes.get_current_meta()["stack_trace"] = place

    def run(*flat: Tensor) -> Any:
        return blame.watched(shadows.watch(flat[kept], mark), function, *flat)

    with shadows.mode, enable_python_dispatcher(), notes.preserve_node_meta(), blame.explained():
        recorded = make_fx(run, decomposition_table=decompose.table())(*shadow)
    shadows.check()
    recorded.graph.eliminate_dead_code()
    recorded.recompile()
    _check_constants(recorded)
    return recorded


def _check_constants(recorded: GraphModule) -> None:
    for node in recorded.graph.nodes:
        if node.op != "get_attr":
            continue
        value = getattr(recorded, node.target, None)
        if isinstance(value, Tensor) and value.numel() * value.element_size() > MAX_CONSTANT_BYTES:
            user = next(iter(node.users), node)
            shape = list(value.shape)
            text = f"a tensor {shape} is a constant here; make it a buffer with register_buffer, so that it comes apart"
            raise BadInput(f"{user.meta.get('stack_trace') or 'the model'}: {text}")


def export(function: Callable[..., Any], arguments: Sequence[Tensor], ports: Signature, kept: slice) -> bytes:
    """The graph of `function` as canonical ONNX with the inputs and outputs of `ports`. Raises BadInput."""
    batched = sum(BATCH in shape for _, _, shape in ports.inputs)
    recorded = record(function, arguments, batched, kept)
    batch = torch.export.Dim(BATCH, min=1, max=MAX_BATCH)
    dynamic = tuple({0: batch} if index < batched else None for index in range(len(arguments)))
    with warnings.catch_warnings(), blame.explained():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.export.export(_Wrapped(recorded), tuple(arguments), dynamic_shapes=(dynamic,))
        exported = torch.onnx.export(program, dynamo=True, verbose=False, opset_version=OPSET, optimize=False)
        if exported is None:
            raise BadInput("the exporter returned nothing")
        _fold(exported.model)
    return tidy(exported.model_proto, ports)


def _fold(model: Any) -> None:
    """Compute what follows from constants.

    The exporter's own optimizer would do more, but it takes numbers up to 1e-8 for zero and drops the epsilon of Adam.
    """
    steps = [
        common.InlinePass(),
        FoldConstantsPass(shape_inference=True, input_size_limit=_FOLD, output_size_limit=_FOLD),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
    ]
    onnx_ir.passes.Sequential(*steps)(model)
