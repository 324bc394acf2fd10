"""Models that cannot be traced. The line that is the cause ends with a comment `<- NAME: WORD`, WORD of the message."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)


class BranchOnValue(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        if y.sum() > 0:  # <- BranchOnValue: torch.where
            y = -y
        return y


class Item(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y * y.max().detach().item()  # <- Item: torch.where


class InAHelper(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.scaled(self.linear(x))

    def scaled(self, y: Tensor) -> Tensor:
        return y / float(y.detach().std())  # <- InAHelper: keep numbers as tensors


class BooleanIndex(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y - y[y > 0].mean()  # <- BooleanIndex: multiply by a mask


class Unique(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y + torch.unique(y).sum()  # <- Unique: Sizes must follow from shapes


class ViewOfFixedBatch(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).view(8, 4) * 2  # <- ViewOfFixedBatch: batch size


class ZerosOfFixedBatch(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + torch.zeros(8, 4)  # <- ZerosOfFixedBatch: batch size


class BranchOnBatch(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        if x.shape[0] > 16:  # <- BranchOnBatch: every batch size
            return y
        return y * 2


class LoopOverBatch(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        for _ in range(int(x.shape[0])):  # <- LoopOverBatch: batch size is fixed here
            y = y + 1
        return y


class Complex(Base):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(self.linear(x)).abs()  # <- Complex: real and the imaginary


class InPlace(Base):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.linear.weight.clamp_(-1, 1)  # <- InPlace: in place
        return self.linear(x)


class Numpy(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y + torch.tensor(y.detach().numpy())  # <- Numpy: use torch operations


class Dictionary(Base):
    def forward(self, x: Tensor) -> Any:  # <- Dictionary: expected one tensor
        return {"scores": self.linear(x)}


class Summed(Base):
    def forward(self, x: Tensor) -> Tensor:  # <- Summed: one answer a sample
        return self.linear(x).sum(0)


class WrongSizes(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) @ torch.zeros(5, 4)  # <- WrongSizes: same reduction dim


class NoOnnx(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y @ torch.linalg.inv(y.t() @ y + torch.eye(4))  # <- NoOnnx: linalg_inv


class ForbiddenOperator(Base):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sort(self.linear(x), 1)[0]  # <- ForbiddenOperator: operator TopK


class Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return torch.tensor(grad.numpy())  # <- CustomGradient: use torch operations


class CustomGradient(Base):
    def forward(self, x: Tensor) -> Tensor:
        return Through.apply(self.linear(x))


class LargeConstant(Base):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.randn(4, 5000)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) @ self.table  # <- LargeConstant: register_buffer


def vector_loss(scores: Tensor, y: Tensor) -> Tensor:  # <- vector_loss: expected one float number
    return functional.cross_entropy(scores, y, reduction="none")


def branching_loss(scores: Tensor, y: Tensor) -> Tensor:
    loss = functional.cross_entropy(scores, y)
    return loss if loss < 5 else 5 + 0 * loss  # <- branching_loss: torch.where
