"""Atoll: an open network where people's own devices train, store and serve small AI models together.

A node needs nothing from here. Who writes models has the front door: `atoll.job` makes a job file of a PyTorch model,
the other names are what it takes. They need the extra `torch` and are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from atoll.errors import UserError

if TYPE_CHECKING:
    from atoll.graph.tracing.adapters import freeze, low_rank
    from atoll.graph.tracing.job import Job, job
    from atoll.graph.tracing.losses import contrastive, cross_entropy
    from atoll.graph.tracing.metrics import accuracy, mean_absolute_error, metric, top5
    from atoll.graph.tracing.optimizers import SGD, Adam, AdamW
    from atoll.graph.tracing.schedules import cosine, linear, step_decay
    from atoll.graph.tracing.weights import load_weights

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Job",
    "__version__",
    "accuracy",
    "contrastive",
    "cosine",
    "cross_entropy",
    "freeze",
    "job",
    "linear",
    "load_weights",
    "low_rank",
    "mean_absolute_error",
    "metric",
    "step_decay",
    "top5",
]

_PLACES = {
    "adapters": ("freeze", "low_rank"),
    "job": ("Job", "job"),
    "losses": ("contrastive", "cross_entropy"),
    "metrics": ("accuracy", "mean_absolute_error", "metric", "top5"),
    "optimizers": ("SGD", "Adam", "AdamW"),
    "schedules": ("cosine", "linear", "step_decay"),
    "weights": ("load_weights",),
}
_MODULES = {name: f"atoll.graph.tracing.{module}" for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load what is asked for; raises UserError where PyTorch is not installed."""
    if name not in _MODULES:
        raise AttributeError(f"module 'atoll' has no attribute {name!r}")
    try:
        module = import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("torch", "onnxscript"):
            raise
        raise UserError(f"atoll.{name} needs PyTorch, which is not installed: pip install 'atoll[torch]'") from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
