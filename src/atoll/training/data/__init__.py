"""Data sets: samples with Merkle proofs, data cards, readers of files, and where data sets are kept.

The check that a data set suits a job is `atoll.training.data.fit`.
"""

from atoll.training.data.card import Card, Source, make_source
from atoll.training.data.named import BUNDLED, bundled_mnist, bundled_source, load, load_directory
from atoll.training.data.samples import DataSet, Form, read_sample, verify_sample
from atoll.training.data.store import SampleStore

__all__ = [
    "BUNDLED",
    "Card",
    "DataSet",
    "Form",
    "SampleStore",
    "Source",
    "bundled_mnist",
    "bundled_source",
    "load",
    "load_directory",
    "make_source",
    "read_sample",
    "verify_sample",
]
