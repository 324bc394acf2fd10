"""Small models that are traced in the tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class MLP(nn.Module):
    """[batch, 4, 5] -> 7 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(20, 16)
        self.second = nn.Linear(16, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x.flatten(1)).tanh())


class Normed(nn.Module):
    """A convolution and two batch norms: [batch, 3, 6, 6] -> 5 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.hidden = nn.Linear(144, 8)
        self.norm1 = nn.BatchNorm1d(8, momentum=0.3)
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu().flatten(1)
        return self.out(self.norm1(self.hidden(x)))


class Backbone(nn.Module):
    """A part to freeze and a head: [batch, 4, 5] -> 7 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(20, 16), nn.BatchNorm1d(16), nn.Tanh())
        self.head = nn.Linear(16, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class TinyGPT(nn.Module):
    """One causal block whose head is its embedding: int64 [batch, 8] -> [batch, 8, 11]."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 12)
        self.places = nn.Embedding(8, 12)
        self.before = nn.LayerNorm(12)
        self.attend = nn.Linear(12, 36, bias=False)  # keys with a bias have a gradient of zero and noise
        self.after = nn.LayerNorm(12)
        self.up = nn.Linear(12, 24)
        self.down = nn.Linear(24, 12)
        self.head = nn.Linear(12, 11, bias=False)
        self.head.weight = self.tokens.weight
        self.register_buffer("position", torch.arange(8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x) + self.places(self.position)
        query, key, value = (
            part.view(-1, 8, 2, 6).transpose(1, 2) for part in self.attend(self.before(x)).chunk(3, dim=2)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + mixed.transpose(1, 2).reshape(-1, 8, 12)
        return self.head(x + self.down(functional.gelu(self.up(self.after(x)))))
