"""Opening a trained model: the file's manifest, and its graph against the allow-list."""

from __future__ import annotations

from atoll.graph.archive import ModelFile, unpack_model
from atoll.graph.check import Limits, check_graph
from atoll.graph.signatures import signature_of


def open_model(data: bytes, limits: Limits | None = None) -> ModelFile:
    """Read a model file and check its graph; raises Refused with the reason."""
    model = unpack_model(data)
    check_graph(model.predict, signature_of(model.manifest, "predict"), limits)
    return model
