"""Ready jobs, shipped as job files: models that learn well with the hyper-parameters that they carry.

`python -m atoll.graph.zoo.make` (with the extra `torch`) regenerates the files.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from atoll.errors import BadInput
from atoll.graph.archive import JobFile, unpack

NAMES = ("cnn", "depthwise", "gpt", "gru", "logistic", "mlp", "motion", "softmax", "table")


@cache
def load_zoo(name: str) -> JobFile:
    """Load a job of the zoo by name (one of `NAMES`); raises BadInput for another name."""
    if name not in NAMES:
        raise BadInput(f"No model is called {name!r}: the zoo has {', '.join(NAMES)}.")
    return unpack((resources.files(__name__) / f"{name}.atoll").read_bytes())
