"""Fine-tuning: freeze parts of a model, or train low-rank adapters beside frozen layers. Needs torch.

Only parameters that are trained travel between devices; frozen ones come once, with the job.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from atoll.errors import BadInput

Module = TypeVar("Module", bound=nn.Module)


def freeze(module: Module) -> Module:
    """Never train `module`: no gradients, and its layers work as in evaluation (fixed statistics, no dropout).

    Changes and returns the module itself. Calling `.train()` on a model that holds it undoes the second part.
    """
    module.requires_grad_(False)
    module.eval()
    return module


class LowRank(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A frozen linear layer and a trained product of two thin matrices beside it (LoRA, arXiv 2106.09685).

    `down` [rank, inputs] starts at random, `up` [outputs, rank] at zero, so at first nothing changes.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        beside = functional.linear(functional.linear(x, self.down), self.up)
        found: Tensor = self.base(x) + self.scale * beside
        return found


def low_rank(model: Module, rank: int = 8, alpha: float = 16.0, targets: Sequence[str] | None = None) -> Module:
    """A copy of `model` in which everything is frozen and a low-rank adapter stands beside linear layers.

    LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685. `targets` are the last parts of layers' names (`"q_proj"`)
    or full names; default: all `nn.Linear`. What else should be trained (a head) needs `requires_grad_(True)`
    afterwards. Raises BadInput when no layer, or a layer that is not linear, has a name of `targets`.
    """
    if rank < 1 or not alpha > 0:
        raise BadInput(f"low_rank needs rank >= 1 and alpha > 0, not {rank} and {alpha}")
    found = copy.deepcopy(model)
    found.requires_grad_(False)
    chosen = [name for name, _ in found.named_modules(remove_duplicate=False) if name and _is_target(name, targets)]
    layers = [name for name in chosen if isinstance(found.get_submodule(name), nn.Linear)]
    if targets is not None:
        missing = [one for one in targets if not any(_is_target(name, [one]) for name in layers)]
        if missing:
            raise BadInput(f"no linear layer is called {', '.join(missing)}; {_linear_layers(found)}")
    if not layers:
        raise BadInput("low_rank found no nn.Linear below the model's top; put the layer into a module of its own")
    made: dict[int, LowRank] = {}  # a layer that is used in two places gets one adapter
    for name in layers:
        parent, _, last = name.rpartition(".")
        layer = found.get_submodule(name)
        made.setdefault(id(layer), LowRank(layer, rank, alpha))
        setattr(found.get_submodule(parent), last, made[id(layer)])
    return found


def _is_target(name: str, targets: Sequence[str] | None) -> bool:
    return targets is None or any(name == one or name.endswith(f".{one}") for one in targets)


def _linear_layers(model: nn.Module) -> str:
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    return f"the linear layers are {', '.join(names[:12])}{' ...' if len(names) > 12 else ''}"
