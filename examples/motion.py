"""Which exercise is it? A convolutional network on two seconds of a wrist sensor, where each device has some people.

All recordings: examples/data/wrist.py. 560 windows of ten people are here:

    atoll data add wrist examples/data/extracts/movements.npz --group subject --held-out 0.2 --licence BSD-3-Clause

`--group subject` holds out two people whom the model never sees: their accuracy is what a new wearer can expect. Then:

    atoll job make examples/motion.py:job --out motion.atoll
    atoll train motion.atoll --data wrist --rounds 30
"""

from __future__ import annotations

import torch
from torch import nn

import atoll
from atoll.graph.zoo.measures import Motion

EXAMPLE = (torch.zeros(32, 6, 100), torch.zeros(32, dtype=torch.int64))


def job() -> atoll.Job:
    """Three convolutions along time: 32,615 parameters."""
    optimizer = atoll.SGD(lr=0.02, momentum=0.9)
    return atoll.job(Motion(), nn.CrossEntropyLoss(), optimizer, EXAMPLE, metrics=[atoll.accuracy], name="motion")
