"""The zoo: files that belong together, that torch gives again byte for byte, and that train as torch does."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from atoll.errors import BadInput
from atoll.graph.check import check_job
from atoll.graph.fixed import decode_model
from atoll.graph.manifest import Data, Manifest, Policy
from atoll.graph.params import frozen_of
from atoll.graph.session import LocalEngine, Pace
from atoll.graph.zoo import NAMES, load_zoo
from atoll.training.data.add import read_source
from atoll.training.data.card import About
from atoll.training.data.formats.found import Options
from tests.graph.batches import batches, first_tensors

ROOT = "0x" + "12" * 32
DATA = Data(root=ROOT, count=5, held_out_root=ROOT, held_out_count=3, card="e" * 64)


# The others take up to minutes to trace; `python -m atoll.graph.zoo.make --to FOLDER` remakes them all.
QUICK = ("cnn", "logistic", "mlp", "softmax", "table")


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


def test_all_files_together_are_small() -> None:
    shipped = {path.name: len(path.read_bytes()) for path in resources.files("atoll.graph.zoo").iterdir()
               if path.name.endswith(".atoll")}  # fmt: skip
    assert sorted(shipped) == [f"{name}.atoll" for name in NAMES]
    assert sum(shipped.values()) < 6_000_000


@pytest.mark.parametrize("name", NAMES)
def test_graphs_take_a_batch_of_any_size(name: str) -> None:
    zoo = load_zoo(name)
    x, y = batches(zoo.spec, 1, batch=3)
    values = {tensor.name: zoo.values[tensor.name] for tensor in (*zoo.spec.vector_tensors, *zoo.spec.frozen_tensors)}
    engine, frozen = LocalEngine(), frozen_of(zoo.params, zoo.spec.tensors)
    trained = engine.train(zoo.step, first_tensors(zoo.spec, dict(zoo.values)), x, y, Pace(), frozen)
    assert np.isfinite(trained.losses).all()
    scores = engine.predict(zoo.predict, values, x[0], 2)  # two samples, then one
    assert scores.shape == (3, *zoo.spec.output.shape)
    assert np.allclose(scores.sum(-1), 1, atol=1e-5)  # probabilities


def test_cnn_has_the_size_that_the_documents_say() -> None:
    assert load_zoo("cnn").spec.vector_length == 20_490


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(BadInput, match=", ".join(NAMES)):
        load_zoo("../secrets")


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_trains_as_torch_does(name: str) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra `torch`")
    from atoll.graph.zoo.make import RECIPES, build

    zoo, recipe, model = load_zoo(name), RECIPES[name], build(name)
    optimizer = recipe.torch_optimizer(model.parameters())
    x, y = batches(zoo.spec, 10)
    for given, wanted in zip(x, y, strict=True):
        optimizer.zero_grad()
        recipe.loss(model(torch.tensor(given)), torch.tensor(wanted)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    start = first_tensors(zoo.spec, dict(zoo.values))
    found = LocalEngine().train(zoo.step, start, x, y, Pace(learning_rate=zoo.spec.hyper.learning_rate)).tensors
    expected = {key: value.numpy() for key, value in model.state_dict().items() if key in zoo.spec.offsets}
    assert set(expected) == {tensor.name for tensor in zoo.spec.vector_tensors}
    moved = np.sqrt(sum(float(np.square(start[key] - value).sum()) for key, value in expected.items()))
    apart = np.sqrt(sum(float(np.square(found[key] - value).sum()) for key, value in expected.items()))
    assert apart < 1e-4 * moved


def test_the_tables_are_scaled_by_the_train_part_of_the_data() -> None:
    pytest.importorskip("torch", reason="needs the extra `torch`")
    from atoll.graph.zoo.measures import DEVIATIONS, MEANS

    path = Path(__file__).parents[2] / "examples" / "data" / "extracts" / "tumours.csv"
    rows = read_source("tumours", path, Options(target="diagnosis"), About(), 0.2).train.x.astype(np.float64)
    assert len(rows) == 455
    assert np.allclose(MEANS, rows.mean(0), rtol=1e-3)
    assert np.allclose(DEVIATIONS, rows.std(0), rtol=1e-3)


@pytest.mark.parametrize("name", QUICK)
def test_torch_gives_the_same_files_again(name: str) -> None:
    pytest.importorskip("torch", reason="regenerating the zoo needs the extra `torch`")
    from atoll.graph.zoo.make import make

    assert (resources.files("atoll.graph.zoo") / f"{name}.atoll").read_bytes() == make(name)
