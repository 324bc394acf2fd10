"""Benign or malignant? Logistic regression and a small network on 30 measures of cell nuclei.

Means and deviations of the 30 columns are constants of the graph, so that a clinic's table is used as it is. The data
(569 tumours, examples/data/breast_cancer.py) is here:

    atoll data add tumours examples/data/extracts/tumours.csv --target diagnosis --held-out 0.2 --licence CC-BY-4.0

What is trained in the public lane can be read by everyone who trains: this table is public already. Then:

    atoll job make examples/clinic.py:logistic --out clinic.atoll
    atoll train clinic.atoll --data tumours --rounds 10
"""

from __future__ import annotations

import torch
from torch import nn

import atoll
from atoll.graph.zoo.measures import Logistic, Table

EXAMPLE = (torch.zeros(32, 30), torch.zeros(32, dtype=torch.int64))


def logistic() -> atoll.Job:
    """62 parameters."""
    return table_job(Logistic(), "logistic")


def table() -> atoll.Job:
    """One hidden layer of 32: 1,058 parameters."""
    return table_job(Table(), "table")


def table_job(model: nn.Module, name: str) -> atoll.Job:
    """The job that trains `model`."""
    optimizer = atoll.SGD(lr=0.05, momentum=0.9)
    return atoll.job(model, nn.CrossEntropyLoss(), optimizer, EXAMPLE, metrics=[atoll.accuracy], name=name)
