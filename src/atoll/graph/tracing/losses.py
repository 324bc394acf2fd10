"""What a loss means to the graphs: its mean for training, its sum for evaluation, how a score becomes an answer.

`objective(loss)` reads torch's loss modules and functions, `contrastive`, `cross_entropy`, or any function
`(scores, y) -> mean`. Needs torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from atoll.errors import BadInput

IGNORED = -100  # torch's default `ignore_index`: no label has this number
Kind = Literal["classes", "chances", "logits", "values"]
Mean = Callable[[Tensor, Tensor], Tensor]

_ADVICE = (
    "use torch.nn.CrossEntropyLoss, MSELoss, L1Loss, SmoothL1Loss, BCELoss, BCEWithLogitsLoss, "
    "atoll.contrastive(), or a function (scores, y) -> mean"
)


@dataclass(frozen=True)
class Classes:
    """Scores over classes with everything counted laid out flat: `scores` [n, classes], `labels` [n] int64.

    `counted` [n] bool marks the targets that are not ignored.
    """

    scores: Tensor
    labels: Tensor
    counted: Tensor


@dataclass(frozen=True)
class Objective:
    """A loss that the tracer understands.

    `kind`: what the scores are: `classes` (before the softmax), `logits` or `chances` of yes or no (before or after
    the sigmoid), or plain `values`. `mean(scores, y)` is the loss that training follows, a scalar. `ignore` is the
    label that does not count; `dimension` says where the classes are (1 or -1), None: as the shapes tell.
    """

    kind: Kind
    mean: Mean
    ignore: int | None = None
    dimension: int | None = None

    def total(self, scores: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the losses over the counted targets (float32), and how many they are (int64), both scalars."""
        count = self.count(scores, y)
        return self.mean(scores, y) * count.to(torch.float32), count

    def count(self, scores: Tensor, y: Tensor) -> Tensor:
        """Targets that count: labels that are not ignored, or samples where there are no labels (int64 scalar)."""
        if self.kind != "classes" or y.dtype != torch.int64:
            return torch.ones_like(y.reshape(y.shape[0], -1)[:, 0], dtype=torch.int64).sum()
        return self.counted(y).to(torch.int64).sum()

    def counted(self, y: Tensor) -> Tensor:
        """Which labels count: bool, of the shape of `y`."""
        return torch.ones_like(y, dtype=torch.bool) if self.ignore is None else y != self.ignore

    def classes(self, scores: Tensor, y: Tensor) -> Classes:
        """Scores and labels laid out flat, for `kind` `classes` and int64 labels."""
        last = classes_last(scores, y, self.dimension)
        labels = y.reshape(-1)
        return Classes(last.reshape(-1, last.shape[-1]), labels, self.counted(labels))

    def answer(self, scores: Tensor, y: Tensor, *, probabilities: bool) -> Tensor:
        """What `predict` gives: probabilities with the classes last, sigmoids for logits, or the scores themselves."""
        if probabilities:
            last = classes_last(scores, y, self.dimension) if self.kind == "classes" else scores
            return last.softmax(-1)
        return scores.sigmoid() if self.kind == "logits" else scores


def classes_last(scores: Tensor, y: Tensor, dimension: int | None) -> Tensor:
    """Move the classes to the end: from [batch, classes, ...] (torch's layout) or [batch, ..., classes].

    `y` is [batch, ...]. Raises BadInput when the shapes fit neither, or both and `dimension` (1 or -1) is None.
    """
    if y.dtype != torch.int64:  # probabilities as targets, which have the shape of the scores
        return scores.movedim(1 if dimension is None else dimension, -1)
    rest = list(y.shape[1:])
    second = scores.dim() >= 2 and list(scores.shape[2:]) == rest
    last = scores.dim() >= 2 and list(scores.shape[1:-1]) == rest
    shapes = f"scores [batch, {', '.join(map(str, scores.shape[1:]))}] and y [batch{''.join(f', {n}' for n in rest)}]"
    if not second and not last:
        raise BadInput(
            f"{shapes} do not fit: labels [batch, ...] need scores [batch, classes, ...] or [batch, ..., classes]"
        )
    if second and last and rest and dimension is None:
        raise BadInput(
            f"{shapes}: the classes can be either dimension. Say which with loss=atoll.cross_entropy(classes=-1), "
            "or 1 for torch's layout."
        )
    here = dimension if dimension is not None else (1 if second else -1)
    if not (second if here == 1 else last):
        raise BadInput(f"{shapes} do not have the classes at dimension {here}")
    return scores.movedim(1, -1) if here == 1 else scores


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy over classes, as `torch.nn.functional.cross_entropy`; a batch without counted targets costs 0.

    `y` is int64 labels [batch, ...], or float32 probabilities of the shape of the scores.
    """

    label_smoothing: float = 0.0
    ignore_index: int = IGNORED
    classes: int | None = None
    weight: Tensor | None = None

    def __call__(self, scores: Tensor, y: Tensor) -> Tensor:
        """Mean over the counted targets, weighted where there are weights of the classes."""
        last = classes_last(scores, y, self.classes)
        flat = last.reshape(-1, last.shape[-1])
        if y.dtype != torch.int64:
            target = y.movedim(1 if self.classes is None else self.classes, -1).reshape(-1, last.shape[-1])
            return functional.cross_entropy(flat, target, self.weight, label_smoothing=self.label_smoothing)
        labels = y.reshape(-1)
        total = functional.cross_entropy(
            flat,
            labels,
            self.weight,
            ignore_index=self.ignore_index,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        counted = labels != self.ignore_index
        if self.weight is None:
            return total / counted.to(torch.float32).sum().clamp(min=1)
        shares = self.weight[torch.where(counted, labels, 0)] * counted.to(torch.float32)
        return total / shares.sum().clamp(min=1e-12)


def cross_entropy(
    *, label_smoothing: float = 0.0, ignore_index: int = IGNORED, classes: int | None = None
) -> CrossEntropy:
    """Cross-entropy that says where the classes are: `classes` is 1 ([batch, classes, ...]) or -1 (last).

    Only needed where the shapes leave it open; otherwise give `torch.nn.CrossEntropyLoss`.
    """
    if classes not in (None, 1, -1):
        raise BadInput(f"classes is {classes}, expected 1 (scores [batch, classes, ...]) or -1 (classes last)")
    return CrossEntropy(label_smoothing, ignore_index, classes)


@dataclass(frozen=True)
class Contrastive:
    """Supervised contrastive loss; see `contrastive`."""

    temperature: float

    def __call__(self, scores: Tensor, y: Tensor) -> Tensor:
        """Mean over the anchors that have a positive; `scores` [batch, size], `y` int64 [batch]."""
        if scores.dim() != 2 or y.dim() != 1 or y.dtype != torch.int64:
            raise BadInput("atoll.contrastive needs scores [batch, size] and one int64 label a sample")
        unit = scores / scores.square().sum(1, keepdim=True).clamp(min=1e-12).sqrt()
        place = torch.ones_like(y).cumsum(0)  # 1, 2, 3, ... without the batch size as a value
        same = (place[:, None] == place[None, :]).to(scores.dtype)
        alike = (unit @ unit.t()) / self.temperature - same * 1e9  # a sample is never its own partner
        odds = alike - alike.logsumexp(1, keepdim=True)
        positive = (y[:, None] == y[None, :]).to(scores.dtype) * (1 - same)
        partners = positive.sum(1)
        each = -(positive * odds).sum(1) / partners.clamp(min=1)
        return each.sum() / (partners > 0).to(scores.dtype).sum().clamp(min=1)


def contrastive(temperature: float = 0.1) -> Contrastive:
    """Supervised contrastive loss (Khosla et al. 2020, https://arxiv.org/abs/2004.11362, the sum outside the log).

    The model gives an embedding [batch, size], scaled to length 1 in the loss; samples with equal labels `y` [batch]
    attract, all others repel. For pairs of views (InfoNCE), give both views of a sample the same label.
    """
    if not temperature > 0:
        raise BadInput(f"temperature is {temperature}, expected a positive number")
    return Contrastive(float(temperature))


def objective(loss: Any) -> Objective:
    """Read a loss. Raises BadInput for what is not one, and for settings that have no meaning here."""
    if isinstance(loss, CrossEntropy):
        return Objective("classes", loss, loss.ignore_index, loss.classes)
    if isinstance(loss, Contrastive):
        return Objective("values", loss)
    if isinstance(loss, nn.Module):
        return _module(loss)
    if isinstance(loss, functools.partial) and not loss.args and loss.func in _FUNCTIONS:
        return _module(_FUNCTIONS[loss.func](**loss.keywords))
    if callable(loss) and not isinstance(loss, type):
        found = _FUNCTIONS.get(loss)
        return _module(found()) if found else Objective("values", loss)
    raise BadInput(f"the loss is a {type(loss).__name__}: {_ADVICE}")


def fitted(found: Objective, scores: Tensor, y: Tensor) -> Objective:
    """The objective for these shapes: a function of the user's over labels counts labels, and knows classes."""
    if found.kind == "values" and y.dtype == torch.int64 and not isinstance(found.mean, Contrastive):
        try:
            classes_last(scores, y, None)
        except BadInput:
            return found
        return replace(found, kind="classes")
    return found


_FUNCTIONS: dict[Any, Callable[..., nn.Module]] = {
    functional.cross_entropy: nn.CrossEntropyLoss,
    functional.mse_loss: nn.MSELoss,
    functional.l1_loss: nn.L1Loss,
    functional.smooth_l1_loss: nn.SmoothL1Loss,
    functional.huber_loss: nn.HuberLoss,
    functional.binary_cross_entropy: nn.BCELoss,
    functional.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
}
_SAME_SHAPE: dict[type, Kind] = {
    nn.MSELoss: "values",
    nn.L1Loss: "values",
    nn.SmoothL1Loss: "values",
    nn.HuberLoss: "values",
    nn.BCELoss: "chances",
    nn.BCEWithLogitsLoss: "logits",
}


def _module(loss: nn.Module) -> Objective:
    if getattr(loss, "reduction", "mean") != "mean":
        raise BadInput(f"the loss has reduction={loss.reduction!r}: training follows the mean; leave it out")
    if isinstance(loss, nn.CrossEntropyLoss):
        weight = None if loss.weight is None else loss.weight.detach().float().cpu()
        return objective(CrossEntropy(float(loss.label_smoothing), int(loss.ignore_index), None, weight))
    kind = _SAME_SHAPE.get(type(loss))
    if kind is None:
        return Objective("values", loss)
    return Objective(kind, _Alike(loss))


@dataclass(frozen=True)
class _Alike:
    """A loss between scores and targets of one shape, which torch would otherwise broadcast."""

    loss: nn.Module

    def __call__(self, scores: Tensor, y: Tensor) -> Tensor:
        if y.dtype != torch.float32:
            raise BadInput(f"{type(self.loss).__name__} compares with float32 targets: give y.float()")
        if scores.dim() != y.dim() or list(scores.shape[1:]) != list(y.shape[1:]):
            raise BadInput(
                f"scores [batch{_tail(scores)}] and y [batch{_tail(y)}] must have one shape for "
                f"{type(self.loss).__name__}: end the model with .squeeze(-1), or give y.unsqueeze(-1)"
            )
        found: Tensor = self.loss(scores, y)
        return found


def _tail(value: Tensor) -> str:
    return "".join(f", {length}" for length in value.shape[1:])
