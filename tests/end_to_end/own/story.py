"""A small language model of one's own: characters in, the next character out."""

import torch
from torch import nn
from torch.nn import functional

import atoll

LENGTH, VOCABULARY, WIDTH = 32, 256, 192


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mix = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = (
            part.view(batch, length, 6, WIDTH // 6).transpose(1, 2) for part in self.mix(self.norm1(x)).chunk(3, dim=2)
        )
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + functional.dropout(self.down(functional.gelu(self.up(self.norm2(x)))), 0.1, self.training)


class Story(nn.Module):
    def __init__(self):
        super().__init__()
        self.characters = nn.Embedding(VOCABULARY, WIDTH)
        nn.init.normal_(self.characters.weight, std=0.02)
        self.places = nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x):
        x = self.norm(self.blocks(self.characters(x) + self.places))
        return (x @ self.characters.weight.T).transpose(1, 2)


torch.manual_seed(0)
example = (torch.zeros(4, LENGTH, dtype=torch.int64), torch.zeros(4, LENGTH, dtype=torch.int64))
job = atoll.job(
    Story(), nn.CrossEntropyLoss(), atoll.AdamW(lr=1e-3), example, [atoll.accuracy], name="story", steps=4, segment=2
)
