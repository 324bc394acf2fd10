"""The zoo's models of measurements: wrist sensors, and a table of cell nuclei (needs torch)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Mean and deviation of each column of the table, in its order, over the 455 tumours that are trained on when 0.2 are
# held out (docs/data.md). They are part of the graph: who trains or asks gives the measures as they are.
MEANS = (
    14.08, 19.25, 91.62, 647.5, 0.0961, 0.1042, 0.08811, 0.04854, 0.1811, 0.06283,
    0.3943, 1.217, 2.793, 38.42, 0.007008, 0.02566, 0.03224, 0.01189, 0.02058, 0.003822,
    16.14, 25.62, 106.4, 861.5, 0.1319, 0.2533, 0.2712, 0.1143, 0.2901, 0.0837,
)  # fmt: skip
DEVIATIONS = (
    3.421, 4.388, 23.62, 338.1, 0.01396, 0.05322, 0.07911, 0.03848, 0.02813, 0.007229,
    0.2561, 0.5599, 1.861, 40.32, 0.002844, 0.01841, 0.03154, 0.006182, 0.008343, 0.002785,
    4.655, 6.21, 32.39, 540.5, 0.02261, 0.1574, 0.2096, 0.06513, 0.06433, 0.01812,
)  # fmt: skip


class Standard(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Columns to mean 0 and deviation 1; a value in a wrong unit counts as 8 deviations, so that it wrecks nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 30] float32 -> the same shape."""
        return ((x - torch.tensor(MEANS)) / torch.tensor(DEVIATIONS)).clamp(-8, 8)


class Logistic(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Logistic regression: benign or malignant."""

    def __init__(self) -> None:
        super().__init__()
        self.standard = Standard()
        self.linear = nn.Linear(len(MEANS), 2)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 30] float32 -> scores [batch, 2]."""
        scores: Tensor = self.linear(self.standard(x))
        return scores


class Table(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """One hidden layer of 32: benign or malignant."""

    def __init__(self) -> None:
        super().__init__()
        self.standard = Standard()
        self.hidden = nn.Linear(len(MEANS), 32)
        self.linear = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 30] float32 -> scores [batch, 2]."""
        scores: Tensor = self.linear(self.hidden(self.standard(x)).relu())
        return scores


class Motion(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Three convolutions along time with GroupNorm, the mean over time, a linear layer: which of seven exercises.

    GroupNorm looks at one sample only, so that it works as well where each device has the movements of one person.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(6, 32, 5, padding=2)
        self.norm1 = nn.GroupNorm(4, 32)
        self.conv2 = nn.Conv1d(32, 64, 5, padding=2)
        self.norm2 = nn.GroupNorm(8, 64)
        self.conv3 = nn.Conv1d(64, 64, 5, padding=2)
        self.norm3 = nn.GroupNorm(8, 64)
        self.linear = nn.Linear(64, 7)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 6, 100] float32, two seconds of six axes at 50 Hz -> scores [batch, 7]."""
        x = functional.max_pool1d(self.norm1(self.conv1(x)).relu(), 2)
        x = functional.max_pool1d(self.norm2(self.conv2(x)).relu(), 2)
        x = self.norm3(self.conv3(x)).relu()
        scores: Tensor = self.linear(x.mean(2))
        return scores
