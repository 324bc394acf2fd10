"""Two oracles: the rules in plain Python integers (`tests/vectors/make_training.py`), and byzfl's in floats."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).parents[2] / "vectors" / "make_training.py"


@pytest.fixture(scope="session")
def plain() -> ModuleType:
    """Functions `quantise`, `dequantise`, `trimmed_mean`, `clipped`, `mixed`, `aggregate`, `apply` on lists of ints."""
    spec = importlib.util.spec_from_file_location("make_training", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def byzfl() -> ModuleType:
    """byzfl's aggregators (`ARC`, `NNM`, `TrMean`).

    The package's own `__init__` also imports its benchmarks and with them torchvision, which these tests do not need
    and which breaks where it was not built for the torch at hand; an empty package in its place leaves that out.
    """
    spec = importlib.util.find_spec("byzfl")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("the oracle byzfl is not installed: run `make test`, which installs it")
    pytest.importorskip("torch", reason="the oracle byzfl needs torch: run `make test`, which installs it")
    if "byzfl" not in sys.modules:
        package = ModuleType("byzfl")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["byzfl"] = package
    rules = ModuleType("rules")
    for part in ("aggregators", "preaggregators"):
        rules.__dict__.update(vars(importlib.import_module(f"byzfl.aggregators.{part}")))
    return rules
