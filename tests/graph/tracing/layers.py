"""Small models that hold many kinds of layers each, and two that a user might bring, none of them in the zoo."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Convolutions(nn.Module):
    """[batch, 3, 12, 10]: every kind of convolution, pools of all kinds, batch and instance normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding="same", bias=False)
        self.batch = nn.BatchNorm2d(12)
        self.depthwise = nn.Conv2d(12, 12, 3, stride=(1, 2), padding=1, groups=12)
        self.point = nn.Conv2d(12, 8, 1)
        self.instance = nn.InstanceNorm2d(8, affine=True)
        self.grouped = nn.Conv2d(8, 8, (3, 2), padding=(2, 1), dilation=(2, 1), groups=2, padding_mode="reflect")
        self.dense = nn.Conv2d(8, 6, 3, padding=1)
        self.back = nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.signal = nn.Conv1d(4, 6, 3, stride=2, padding=1)
        self.again = nn.ConvTranspose1d(6, 4, 4, stride=2)
        self.out = nn.Linear(4 * 5 + 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.batch(self.first(x)).relu()
        x = functional.max_pool2d(self.depthwise(x), 3, stride=2, padding=1)
        x = self.instance(self.point(x))
        x = self.dense(self.grouped(x).tanh())
        x = functional.avg_pool2d(x, 2, stride=1, padding=1, count_include_pad=False)
        x = functional.interpolate(self.back(x), scale_factor=2)
        far = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        x = functional.max_pool1d(self.again(self.signal(x.mean(3))), 3, stride=2)
        x = functional.adaptive_avg_pool1d(x, 5)
        scores: Tensor = self.out(torch.cat([x.flatten(1), far], 1))
        return scores


class Sequences(nn.Module):
    """[batch, 4] of int64 below 11: embeddings, recurrent layers, attention with masks, normalisations."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8, padding_idx=0)
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.cell = nn.GRUCell(8, 8)
        self.mean = nn.RMSNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.group = nn.GroupNorm(2, 4)
        self.layer = nn.LayerNorm(8)
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.words(x)
        h = h + self.gru(h)[0]
        h = h + self.lstm(self.mean(h))[0]
        later = torch.ones(4, 4, dtype=torch.bool).triu(1)
        h = h + self.attention(h, h, h, attn_mask=later, need_weights=False)[0]
        heads = self.layer(h).view(-1, 4, 2, 4).transpose(1, 2)
        seen = functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
        h = self.group(seen.transpose(1, 2).flatten(2))
        scores: Tensor = self.out(self.cell(h[:, 0], h[:, -1]))
        return scores


class Activations(nn.Module):
    """[batch, 6, 8]: activations, and functions that cut, join, turn and choose."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        smooth = [nn.ELU(), nn.SELU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Tanh(), nn.Sigmoid()]
        others = [nn.ReLU(), nn.LeakyReLU(), nn.Softplus(), nn.Hardswish(), nn.Softmax(-1), nn.LogSoftmax(-1)]
        self.all = nn.ModuleList([*smooth, *others, nn.PReLU(6)])
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        h = h + sum(activation(h) for activation in self.all) / 8
        one, two = h.chunk(2, 1)
        three, four = h.split([2, 4], 1)
        h = torch.cat([torch.stack([one, two], 1).flatten(1, 2), three.flip(1).roll(1, 2), four.cumsum(1) / 4], 1)
        h = torch.where(h > 2, h / 2, h).masked_fill(h < -2, -2.0).clamp(-1.5, 1.5)
        h = torch.einsum("bsd,btd->bst", h, functional.normalize(h, dim=-1)) @ h / 12
        h = h + functional.cosine_similarity(h, h.roll(1, 1), dim=-1)[:, :, None] + h[:, ::2].repeat(1, 2, 1)
        h = h + h.std(-1, keepdim=True) + h.var(1, keepdim=True) + h.norm(dim=-1, keepdim=True)
        h = functional.pad(h, (1, 0, 0, 1)) + functional.pad(h, (0, 1, 1, 0), mode="replicate")
        best = h.detach().abs().argmax(1, keepdim=True)
        h = h.gather(1, best)[:, 0, :8] + h[:, [0, 3, 3], 1:].amax(1) + h.select(1, 2)[:, :8]
        scores: Tensor = self.out(h)
        return scores


class Residual(nn.Module):
    """Two convolutions with batch normalisation, and a way past them."""

    def __init__(self, channels: int, wider: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, wider, 3, stride, 1, bias=False)
        self.norm_one = nn.BatchNorm2d(wider)
        self.two = nn.Conv2d(wider, wider, 3, 1, 1, bias=False)
        self.norm_two = nn.BatchNorm2d(wider)
        past = [nn.Conv2d(channels, wider, 1, stride, bias=False), nn.BatchNorm2d(wider)]
        self.past = nn.Sequential(*(past if stride != 1 or channels != wider else []))

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm_two(self.two(self.norm_one(self.one(x)).relu()))
        return (out + self.past(x)).relu()


class ResNet(nn.Module):
    """[batch, 3, 16, 16] -> 10 scores; 1,190,186 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.body = nn.Sequential(Residual(32, 64, 1), Residual(64, 320, 2))
        self.head = nn.Linear(320, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.pool(self.stem(x)))
        scores: Tensor = self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return scores


class Block(nn.Module):
    """Causal attention and a perceptron, each normalised before, with dropout after."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.project(self.before(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        rate = self.rate if self.training else 0.0
        seen = functional.scaled_dot_product_attention(*parts.unbind(0), dropout_p=rate, is_causal=True)
        x = x + self.dropout(self.join(seen.transpose(1, 2).reshape(batch, length, width)))
        return x + self.dropout(self.perceptron(self.between(x)))


class Decoder(nn.Module):
    """[batch, 24] of int64 below 300 -> [batch, 24, 300] scores; 1,283,072 parameters, one table for both ends."""

    def __init__(self, dropout: float = 0.1, width: int = 224, layers: int = 2) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(300, width), nn.Embedding(24, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, 4, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 300, bias=False)
        self.head.weight = self.words.weight
        nn.init.normal_(self.words.weight, std=0.05)

    def forward(self, x: Tensor) -> Tensor:
        h = self.dropout(self.words(x) + self.places(torch.arange(x.shape[1])))
        for block in self.blocks:
            h = block(h)
        scores: Tensor = self.head(self.norm(h))
        return scores
