"""The child process of an embedding model: texts in, vectors of length 1 out.

A sentence encoder after Reimers and Gurevych (https://arxiv.org/abs/1908.10084): a BERT in ONNX, the mean of what it
says of each token, scaled to length 1. Texts of similar length run together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.graph.session import open_session
from atoll.inference.local import pipe
from atoll.inference.local.station import Station
from atoll.inference.local.wordpiece import WordPiece

TOKENS_IN_A_RUN = 2048  # of all texts that run together, padding included

Floats = NDArray[np.float32]


class Encoder:
    """A sentence encoder: an ONNX session that takes input_ids, attention_mask and token_type_ids, int64 [n, t]."""

    def __init__(self, graph: bytes, threads: int, context: int) -> None:
        self._session: Any = open_session(graph, threads)
        self._context = context
        words = resources.files("atoll.inference.local").joinpath("vocab.txt").read_text("utf-8").splitlines()
        self._pieces = WordPiece(words)

    def embed(self, texts: Sequence[str]) -> tuple[Floats, int]:
        """Vectors float32 [n, d] and the number of tokens in all texts, marks of begin and end included."""
        cut = [self._pieces.encode(text, self._context) for text in texts]
        vectors: list[Floats] = [np.empty(0, np.float32)] * len(cut)
        for group in _groups([len(tokens) for tokens in cut]):
            for index, vector in zip(group, self._run([cut[index] for index in group]), strict=True):
                vectors[index] = vector
        return np.stack(vectors), sum(map(len, cut))

    def _run(self, rows: Sequence[Sequence[int]]) -> Floats:
        longest = max(map(len, rows))
        tokens = np.zeros((len(rows), longest), np.int64)
        mask = np.zeros_like(tokens)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = row
            mask[index, : len(row)] = 1
        feed = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        said: Floats = self._session.run(["last_hidden_state"], feed)[0]  # [n, t, d]
        weights = mask[..., None].astype(np.float32)
        mean = (said * weights).sum(axis=1) / weights.sum(axis=1)
        scaled: Floats = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return scaled.astype(np.float32)


def _groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of texts that run together, shortest first."""
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and (len(group) + 1) * lengths[index] > TOKENS_IN_A_RUN:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def main() -> None:
    """Entry point of the child process."""
    station = Station()

    def load(request: pipe.Load) -> tuple[Encoder, int]:
        encoder = Encoder(Path(request.path).read_bytes(), station.threads, request.context)
        encoder.embed(["a text to warm up with"])
        return encoder, request.context

    encoder: Encoder = station.load(load)
    for request in station.requests():
        if not isinstance(request, pipe.Embed):
            station.answer(pipe.Failure("input", "an embedding model makes vectors of texts, nothing else"))
            continue
        try:
            vectors, tokens = encoder.embed(request.texts)
            count, width = vectors.shape
            station.answer(pipe.Vectors(count, width, np.ascontiguousarray(vectors, "<f4").tobytes(), tokens))
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            station.answer(pipe.Failure("model", " ".join(str(error).split())[:500]))


if __name__ == "__main__":
    main()
