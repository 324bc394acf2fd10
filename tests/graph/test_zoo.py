"""The zoo: files that belong together, and that torch gives again byte for byte."""

from __future__ import annotations

from importlib import resources

import pytest

from atoll.errors import BadInput
from atoll.graph.check import check_job
from atoll.graph.fixed import decode_model
from atoll.graph.manifest import Data, Manifest, Policy
from atoll.graph.zoo import NAMES, load_zoo

ROOT = "0x" + "12" * 32
DATA = Data(root=ROOT, count=5, held_out_root=ROOT, held_out_count=3, card="e" * 64)


@pytest.mark.parametrize("name", NAMES)
def test_every_model_makes_a_job_that_passes_the_gate(name: str) -> None:
    zoo = load_zoo(name)
    manifest = zoo.manifest(DATA, 12, Policy(unit_price=1, audit_price=1, validator_price=1))
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    facts = check_job(manifest, zoo.step, zoo.evaluate, zoo.predict)
    assert facts["step"].parameters == manifest.vector_length == sum(value.size for value in zoo.initial.values())
    assert manifest.reset_length == manifest.vector_length  # momentum
    first = decode_model(manifest, zoo.initial_model)
    assert all(abs(first[key] - value).max() <= 2.0**-25 for key, value in zoo.initial.items())


def test_cnn_has_the_size_that_the_documents_say() -> None:
    assert sum(value.size for value in load_zoo("cnn").initial.values()) == 20_490


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(BadInput, match="cnn, mlp, softmax"):
        load_zoo("../secrets")


@pytest.mark.parametrize("name", NAMES)
def test_torch_gives_the_same_files_again(name: str) -> None:
    pytest.importorskip("torch", reason="regenerating the zoo needs the extra `torch`")
    from atoll.graph.zoo.make import make

    folder = resources.files("atoll.graph.zoo") / name
    for file, content in make(name).items():
        assert (folder / file).read_bytes() == content, file
