# ruff: noqa: E402  # whether torch is there decides before the other imports
"""`atoll.job`: what is written into the job file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

torch = pytest.importorskip("torch", reason="tracing needs the extra `torch`")

from torch import nn

import atoll
from atoll.errors import BadInput, MachineError
from atoll.graph.archive import unpack
from atoll.graph.session import LocalEngine

from .models import MLP
from .training import Recipe, compared

EXAMPLE = (torch.zeros(6, 4, 5), torch.zeros(6, dtype=torch.int64))


def build() -> nn.Module:
    torch.manual_seed(3)
    model = MLP()
    model.first.requires_grad_(False)
    return model


def make(**options: Any) -> atoll.Job:
    optimizer = atoll.AdamW(lr=2e-3, schedule=atoll.cosine(100, warmup=5))
    return atoll.job(build(), nn.CrossEntropyLoss(), optimizer, example=EXAMPLE, metrics=[atoll.accuracy], **options)


@cache
def made() -> atoll.Job:
    return make()


def test_saved_files_can_be_read_and_are_the_same_each_time(tmp_path: Path) -> None:
    path = tmp_path / "digits.atoll"
    for job in (made(), make()):
        job.save(path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["digits.atoll"]
        assert unpack(path.read_bytes()) == made().file
        assert job.id == unpack(path.read_bytes()).id


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="could not be written"):
        made().save(tmp_path / "missing" / "a.atoll")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MachineError):
        made().save(tmp_path / "folder")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_defaults() -> None:
    spec = made().file.spec
    assert (spec.name, spec.batch, spec.steps, spec.segment) == ("mlp", 6, 20, 10)
    assert (spec.hyper.learning_rate, spec.metrics) == (2e-3, ("accuracy",))
    assert (spec.input.shape, spec.input.dtype) == ((4, 5), "float32")
    assert (spec.target.shape, spec.target.dtype) == ((), "int64")
    assert (spec.output.shape, spec.output.meaning) == ((7,), "probabilities")
    assert [(tensor.name, tensor.role) for tensor in spec.tensors] == [
        ("second.weight", "parameter"),
        ("second.bias", "parameter"),
        ("adam.correction1", "reset"),
        ("adam.correction2", "reset"),
        ("moment1.second.weight", "reset"),
        ("moment2.second.weight", "reset"),
        ("moment1.second.bias", "reset"),
        ("moment2.second.bias", "reset"),
        ("first.weight", "frozen"),
        ("first.bias", "frozen"),
    ]


def test_options() -> None:
    job = make(name="mine", batch=4, steps=6, segment=3, output="values", store="float16")
    spec = job.file.spec
    assert (spec.name, spec.batch, spec.steps, spec.segment) == ("mine", 4, 6, 3)
    stored = safetensors.numpy.load(job.file.params)
    assert {name: value.dtype.name for name, value in stored.items()} == {
        "first.weight": "float16",
        "first.bias": "float16",
        "second.weight": "float32",
        "second.bias": "float32",
    }
    x = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    scores = LocalEngine().predict(job.file.predict, job.file.values, x, 3)
    np.testing.assert_allclose(scores, build()(torch.tensor(x)).detach().numpy(), atol=2e-3)


def test_the_schedule_follows_the_step() -> None:
    def warmed(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: float(atoll.cosine(100, warmup=5)(torch.tensor(step)))
        )

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 9, 4, 5)).astype(np.float32), rng.integers(0, 7, (20, 9))
    recipe = Recipe(lambda given: torch.optim.AdamW(given, lr=2e-3), nn.CrossEntropyLoss(), schedule=warmed)
    apart, moved = compared(made().file, build(), recipe, x, y)
    assert apart <= 1e-5 < moved


def test_values_as_targets() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    example = (torch.zeros(1, 3), torch.zeros(1, 2))
    job = atoll.job(model, nn.BCEWithLogitsLoss(), atoll.SGD(lr=0.1), example, [atoll.accuracy])
    spec = job.file.spec
    assert (spec.batch, spec.name) == (32, "sequential")
    assert (spec.target.shape, spec.target.dtype, spec.output.meaning) == ((2,), "float32", "values")
    x = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    y = (x[:, :2] > 0).astype(np.float32)
    found = LocalEngine().evaluate(job.file.evaluate, job.file.values, x, y, 4)
    scores = model(torch.tensor(x)).detach()
    assert found.count == 9
    assert found.loss == pytest.approx(
        float(nn.functional.binary_cross_entropy_with_logits(scores, torch.tensor(y))), rel=1e-5
    )
    assert found.metrics["accuracy"] == pytest.approx(float(((scores > 0) == torch.tensor(y > 0)).float().mean()))
    chances = LocalEngine().predict(job.file.predict, job.file.values, x, 5)
    np.testing.assert_allclose(chances, scores.sigmoid().numpy(), atol=1e-6)


def test_contrastive_learning_of_embeddings() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    example = (torch.zeros(8, 5), torch.zeros(8, dtype=torch.int64))
    loss = atoll.contrastive(0.2)
    job = atoll.job(model, loss, atoll.SGD(lr=0.5), example)
    assert job.file.spec.output.meaning == "values"
    rng = np.random.default_rng(0)
    for batch in (2, 33):
        x, y = rng.normal(size=(20, batch, 5)).astype(np.float32), rng.integers(0, 3, (20, batch))
        recipe = Recipe(lambda given: torch.optim.SGD(given, lr=0.5), loss)
        assert compared(job.file, model, recipe, x, y)[0] <= 1e-5


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"output": "classes"}, "output"),
        ({"store": "int8"}, "store"),
        ({"clip": 0.0}, "clip"),
        ({"colour": 1}, "colour"),
        ({"name": "Big Job"}, "name"),
        ({"steps": 7, "segment": 2}, "multiple"),
        ({"batch": 0}, "batch"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        make(**options)


@pytest.mark.parametrize(
    ("example", "word"),
    [
        (torch.zeros(3), "batch"),
        ((torch.zeros(3, 4, 5), torch.zeros(2, dtype=torch.int64)), "3 samples in x and 2 in y"),
        ((torch.zeros(3, 4, 5).double(), torch.zeros(3, dtype=torch.int64)), r"\.float\(\)"),
        ((torch.zeros(3, 4, 5), torch.zeros(3, dtype=torch.int32)), r"\.long\(\)"),
        ((torch.zeros(0, 4, 5), torch.zeros(0, dtype=torch.int64)), "at least one"),
    ],
)
def test_bad_examples_are_refused(example: Any, word: str) -> None:
    with pytest.raises(BadInput, match=word):
        atoll.job(build(), nn.CrossEntropyLoss(), atoll.SGD(lr=0.1), example)


def test_parameters_that_learn_nothing_are_named() -> None:
    model = build()
    model.spare = nn.Linear(2, 2)
    with pytest.raises(BadInput, match=r"spare\.weight, spare\.bias"):
        atoll.job(model, nn.CrossEntropyLoss(), atoll.SGD(lr=0.1), EXAMPLE)
    with pytest.raises(BadInput, match="no parameter"):
        atoll.job(build().requires_grad_(False), nn.CrossEntropyLoss(), atoll.SGD(lr=0.1), EXAMPLE)


def test_a_model_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match="function"):
        atoll.job(lambda x: x, nn.CrossEntropyLoss(), atoll.SGD(lr=0.1), EXAMPLE)  # type: ignore[arg-type]
