"""Which character comes next? A GRU and a small GPT on Shakespeare's plays, where each device has some of the speakers.

All plays: examples/data/shakespeare.py. Eight speakers are here:

    atoll data add shakespeare examples/data/extracts/speakers --group file --held-out 0.2 \\
        --tokens examples/data/characters.json --licence "public domain"

The file of characters holds those of all the plays, so that a model fits every part of them. `--group file` keeps
what one character says together, and holds out whole speakers. Then:

    atoll job make examples/shakespeare.py:gpt --out gpt.atoll
    atoll train gpt.atoll --data shakespeare --rounds 50
"""

from __future__ import annotations

import torch
from torch import nn

import atoll
from atoll.graph.zoo.texts import GPT, GRU, WINDOW

EXAMPLE = (torch.zeros(16, WINDOW, dtype=torch.int64), torch.zeros(16, WINDOW, dtype=torch.int64))


def gru() -> atoll.Job:
    """One recurrent layer of 128: 75,249 parameters."""
    return text_job(GRU(), atoll.SGD(lr=1.0, momentum=0.9), "gru")


def gpt() -> atoll.Job:
    """Two transformer blocks of width 128: 414,592 parameters.

    Adam's `eps` is larger than usual, so that rounding in tiny gradients does not drive honest devices apart.
    """
    return text_job(GPT(), atoll.Adam(lr=0.001, eps=1e-5), "gpt")


def text_job(model: nn.Module, optimizer: atoll.SGD | atoll.Adam, name: str) -> atoll.Job:
    """The job that trains `model`; accuracy is the share of characters that are guessed right."""
    return atoll.job(model, nn.CrossEntropyLoss(), optimizer, EXAMPLE, metrics=[atoll.accuracy], name=name)
