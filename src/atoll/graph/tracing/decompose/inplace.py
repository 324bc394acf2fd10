"""Changes in place, written as new tensors: the exporter would make scatters with tables of indices of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functionalize
from torch.fx import GraphModule, Interpreter, Node

aten = torch.ops.aten


def changes_parts(recorded: GraphModule) -> bool:
    """Whether something is changed in place that is not just a copy of a whole tensor (running statistics)."""
    return any(_changes(node) for node in recorded.graph.nodes)


def without(recorded: GraphModule, arguments: Sequence[Tensor], record: Callable[..., Any]) -> GraphModule:
    """The same computation without changes in place; `record` is `make_fx` with its table."""
    found: GraphModule = record(functionalize(Interpreter(recorded).run))(*arguments)
    return found


def _changes(node: Node) -> bool:
    if node.op != "call_function" or not getattr(getattr(node.target, "_schema", None), "is_mutable", False):
        return False
    changed = node.args[0]
    return node.target != aten.copy_.default or not isinstance(changed, Node) or changed.target != aten.clone.default
