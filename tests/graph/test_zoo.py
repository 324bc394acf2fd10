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
    manifest = Manifest.post(zoo.spec, DATA, 12, Policy(unit_price=1, audit_price=1, validator_price=1))
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    facts = check_job(manifest, zoo.step, zoo.evaluate, zoo.predict)
    certified = {tensor.name for tensor in manifest.vector_tensors}
    assert facts["step"].parameters == manifest.vector_length == sum(zoo.values[key].size for key in certified)
    first = decode_model(manifest, zoo.model)
    assert all(abs(value - zoo.values[tensor.name]).max() <= 2.0 ** -(tensor.bits + 1)
               for tensor, value in zip(manifest.vector_tensors, first.values(), strict=True))  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_step_graphs_are_small(name: str) -> None:
    zoo = load_zoo(name)
    ops = sum(check_job(zoo.spec, zoo.step, zoo.evaluate, zoo.predict)["step"].ops.values())
    assert len(zoo.step) < 60_000 + 200 * ops


def test_cnn_has_the_size_that_the_documents_say() -> None:
    assert load_zoo("cnn").spec.vector_length == 20_490


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(BadInput, match=", ".join(NAMES)):
        load_zoo("../secrets")


@pytest.mark.parametrize("name", NAMES)
def test_torch_gives_the_same_files_again(name: str) -> None:
    pytest.importorskip("torch", reason="regenerating the zoo needs the extra `torch`")
    from atoll.graph.zoo.make import make

    assert (resources.files("atoll.graph.zoo") / f"{name}.atoll").read_bytes() == make(name)
