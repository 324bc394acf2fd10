"""The zoo's models of text: which character comes next, at each place of a window of 64 (needs torch)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

CHARACTERS = 81  # different ones in all of Shakespeare's plays, as `--tokens characters` counts them
WINDOW = 64


class GRU(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """One recurrent layer of 128 over characters of 32 numbers each."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CHARACTERS, 32)
        self.gru = nn.GRU(32, 128, batch_first=True)
        self.linear = nn.Linear(128, CHARACTERS)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 64] int64 -> scores of the next character at each place [batch, 64, 81]."""
        states, _ = self.gru(self.embedding(x))
        scores: Tensor = self.linear(states)
        return scores


class Block(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Causal self-attention and a feed-forward layer, each behind a LayerNorm and beside a shortcut.

    Projections of queries and keys have no bias: that of the keys would not change anything.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.attend = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, width] -> the same shape."""
        parts = self.attend(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.project(seen.transpose(1, 2).flatten(2))
        found: Tensor = x + self.narrow(functional.gelu(self.widen(self.norm2(x))))
        return found


class GPT(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Two blocks of width 128 with four heads; characters and scores share one table."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.characters = nn.Embedding(CHARACTERS, width)
        self.places = nn.Parameter(torch.zeros(WINDOW, width))
        self.blocks = nn.Sequential(Block(width, heads=4), Block(width, heads=4))
        self.norm = nn.LayerNorm(width)
        for table in (self.characters.weight, self.places):
            nn.init.normal_(table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 64] int64 -> scores of the next character at each place [batch, 64, 81]."""
        found = self.norm(self.blocks(self.characters(x) + self.places))
        return functional.linear(found, self.characters.weight)
