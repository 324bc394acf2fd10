"""Running graphs in this process: against the same training written out by hand in numpy."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest

from atoll.errors import EngineFailed
from atoll.graph import frames
from atoll.graph.archive import JobFile
from atoll.graph.fixed import decode_state, encode_state
from atoll.graph.frames import Array, Header
from atoll.graph.params import frozen_of
from atoll.graph.session import Frozen, LocalEngine, Pace, answer, serve
from atoll.graph.zoo import NAMES, load_zoo

from .batches import batches, first_tensors
from .graphs import FROZEN, FROZEN_STEP, by_hand

STEPS, BATCH = 20, 32


def samples(seed: int = 0) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Random pictures whose label shows: class k has its own random pattern under the noise."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).integers(0, 156, (10, 1, 28, 28))
    y = rng.integers(0, 10, (STEPS, BATCH))
    x = (patterns[y] + rng.integers(0, 100, (STEPS, BATCH, 1, 28, 28))).astype(np.uint8)
    return x, y.astype(np.int64)


def start(zoo: JobFile) -> dict[str, Array]:
    return first_tensors(zoo.spec, dict(zoo.values))


def frozen(zoo: JobFile) -> Frozen | None:
    return frozen_of(zoo.params, zoo.spec.tensors)


def softmax_by_hand(
    weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64], rate: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[float]]:
    """Logistic regression with momentum 0.9 and gradient norm at most 1, in float64."""
    x_all, y_all = samples()
    velocity_w, velocity_b = np.zeros_like(weight), np.zeros_like(bias)
    losses = []
    for x, y in zip(x_all, y_all, strict=True):
        pixels = (x.reshape(BATCH, 784).astype(np.float64) - 33.3184) / 78.5675
        scores = pixels @ weight.T + bias
        odds = np.exp(scores - scores.max(1, keepdims=True))
        chances = odds / odds.sum(1, keepdims=True)
        losses.append(float(-np.log(chances[np.arange(BATCH), y]).mean()))
        error = (chances - np.eye(10)[y]) / BATCH
        gradient_w, gradient_b = error.T @ pixels, error.sum(0)
        norm = np.sqrt((gradient_w**2).sum() + (gradient_b**2).sum())
        scale = min(1.0, 1.0 / (norm + 1e-6))
        velocity_w = 0.9 * velocity_w + scale * gradient_w
        velocity_b = 0.9 * velocity_b + scale * gradient_b
        weight, bias = weight - rate * velocity_w, bias - rate * velocity_b
    return weight, bias, losses


def relative(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_twenty_steps_are_those_written_by_hand() -> None:
    zoo = load_zoo("softmax")
    rate = zoo.spec.hyper.learning_rate
    x, y = samples()
    result = LocalEngine().train(zoo.step, start(zoo), x, y, Pace(learning_rate=rate))
    first = {name: value.astype(np.float64) for name, value in zoo.values.items()}
    weight, bias, losses = softmax_by_hand(first["linear.weight"], first["linear.bias"], rate)
    assert relative(result.tensors["linear.weight"], weight) < 1e-6
    assert relative(result.tensors["linear.bias"], bias) < 1e-5
    np.testing.assert_allclose(result.losses, losses, rtol=1e-5)
    assert losses[-1] < losses[0] / 2


def test_evaluation_and_prediction_are_those_written_by_hand() -> None:
    zoo = load_zoo("softmax")
    x, y = samples()
    x, y = x.reshape(-1, 1, 28, 28), y.reshape(-1)
    pixels = (x.reshape(len(x), 784) - 33.3184) / 78.5675
    scores = pixels @ zoo.values["linear.weight"].T + zoo.values["linear.bias"]
    odds = np.exp(scores - scores.max(1, keepdims=True))
    chances = odds / odds.sum(1, keepdims=True)
    engine = LocalEngine()
    found = engine.evaluate(zoo.evaluate, zoo.values, x, y, batch=100)  # 640: the last batch is not full
    correct = int((scores.argmax(1) == y).sum())
    assert found.sums == {"accuracy": correct}
    assert found.count == 640
    assert found.loss_sum == pytest.approx(float(-np.log(chances[np.arange(640), y]).sum()), rel=1e-5)
    assert found.metrics == {"accuracy": correct / 640}
    assert found.loss == found.loss_sum / 640
    np.testing.assert_allclose(engine.predict(zoo.predict, zoo.values, x, batch=99), chances, rtol=1e-3, atol=1e-6)


def test_step_seed_rate_and_frozen_tensors_enter_the_graph() -> None:
    w, scale = np.array([1.0, 2.0], np.float32), np.array([0.5, 3.0], np.float32)
    x = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    y = np.ones((3, 2), np.float32)
    fixed = Frozen(b"f" * 32, {FROZEN: scale})
    pace = Pace(first_step=40, seed=7, learning_rate=0.25)
    found = LocalEngine().train(FROZEN_STEP, {"w": w}, x, y, pace, fixed)
    expected, losses = by_hand(w, scale, x, y, pace)
    np.testing.assert_array_equal(found.tensors["w"], expected)  # sums of few binary digits: exact
    np.testing.assert_array_equal(found.losses, losses)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_inputs_give_the_same_bytes(name: str) -> None:
    zoo = load_zoo(name)
    x, y = batches(zoo.spec, 5)
    before = {key: value.copy() for key, value in start(zoo).items()}
    results = [LocalEngine().train(zoo.step, before, x, y, Pace(), frozen(zoo)) for _ in range(2)]
    assert all(value.tobytes() == results[1].tensors[key].tobytes() for key, value in results[0].tensors.items())
    assert all(np.array_equal(before[key], value) for key, value in start(zoo).items())  # inputs untouched


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_are_one_run(name: str) -> None:
    zoo = load_zoo(name)
    x, y = batches(zoo.spec, 7)
    engine, fixed = LocalEngine(), frozen(zoo)
    whole = engine.train(zoo.step, start(zoo), x, y, Pace(seed=5), fixed)
    first = engine.train(zoo.step, start(zoo), x[:4], y[:4], Pace(seed=5), fixed)
    second = engine.train(zoo.step, first.tensors, x[4:], y[4:], Pace(first_step=4, seed=5), fixed)
    assert all(np.array_equal(whole.tensors[key], second.tensors[key]) for key in whole.tensors)
    assert np.array_equal(whole.losses, np.concatenate([first.losses, second.losses]))


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_state_is_all_that_the_next_segment_needs(name: str) -> None:
    """A worker keeps its engine and its state's bytes; an auditor has the bytes alone: both get the same bytes."""
    zoo = load_zoo(name)
    x, y = batches(zoo.spec, 10)
    worker, fixed, rate = LocalEngine(), frozen(zoo), zoo.spec.hyper.learning_rate
    first = worker.train(zoo.step, start(zoo), x[:5], y[:5], Pace(20, 9, rate), fixed)
    state = encode_state(zoo.spec, first.tensors)
    ends = []
    for engine in (worker, LocalEngine()):
        result = engine.train(zoo.step, decode_state(zoo.spec, state), x[5:], y[5:], Pace(25, 9, rate), fixed)
        ends.append(encode_state(zoo.spec, result.tensors))
    assert ends[0] == ends[1]
    whole = worker.train(zoo.step, start(zoo), x, y, Pace(20, 9, rate), fixed)
    certified = [decode_state(zoo.spec, data) for data in (ends[0], encode_state(zoo.spec, whole.tensors))]
    for key, value in certified[1].items():  # rounding to the grid on the way costs next to nothing
        assert np.linalg.norm(certified[0][key] - value) <= 1e-3 * np.linalg.norm(value) + 1e-6


def test_the_learning_rate_is_an_input() -> None:
    zoo = load_zoo("softmax")
    x, y = samples()
    still = LocalEngine().train(zoo.step, start(zoo), x[:2], y[:2], Pace(learning_rate=0.0))
    assert all(np.array_equal(still.tensors[key], zoo.values[key]) for key in zoo.values)


@pytest.mark.parametrize("name", NAMES)
def test_any_batch_size_runs(name: str) -> None:
    zoo = load_zoo(name)
    for batch in (1, 3):
        x, y = batches(zoo.spec, 1, batch)
        assert np.isfinite(LocalEngine().train(zoo.step, start(zoo), x, y, Pace(), frozen(zoo)).losses).all()


def test_wrong_inputs_fail_with_a_sentence() -> None:
    zoo = load_zoo("softmax")
    tensors = start(zoo)
    short = {key: value for key, value in tensors.items() if key != "linear.bias"}
    wrong_shape = {**tensors, "linear.bias": np.zeros(3, np.float32)}
    y = np.zeros((1, 2), np.int64)
    for given, width in ((short, 28), (wrong_shape, 28), (tensors, 5)):
        with pytest.raises(EngineFailed, match="could not be run"):
            LocalEngine().train(zoo.step, given, np.zeros((1, 2, 1, 28, width), np.uint8), y, Pace())
    with pytest.raises(EngineFailed, match="could not be run"):
        LocalEngine().predict(b"no graph", {}, np.zeros((1, 784), np.uint8), 1)


def test_frozen_tensors_are_kept_under_their_id() -> None:
    engine = LocalEngine()
    assert engine.kept(b"") is None
    with pytest.raises(EngineFailed, match="handed over"):
        engine.kept(b"a")
    engine.keep(Frozen(b"a", {}))
    engine.keep(Frozen(b"b", {}))
    assert engine.kept(b"b") == Frozen(b"b", {})
    with pytest.raises(EngineFailed, match="handed over"):
        engine.kept(b"a")  # one set at a time


def test_serving_answers_frame_by_frame_until_the_input_ends() -> None:
    zoo = load_zoo("softmax")
    x, _ = samples()
    requests = [
        frames.encode(Header(method="start"), {}),
        frames.encode(Header(method="predict", graph=zoo.predict, batch=10), {"x": x[0], **zoo.values}),
        frames.encode(Header(method="predict", graph=b"bad", batch=10), {"x": x[0]}),
        frames.encode(Header(method="predict", graph=zoo.predict, batch=10, frozen=b"?"), {"x": x[0], **zoo.values}),
        frames.encode(Header(method="dance"), {}),
    ]
    sink = io.BytesIO()
    serve(io.BytesIO(b"".join(part for parts in requests for part in parts)), sink, LocalEngine(), 1_000_000)
    sink.seek(0)
    answers = []
    while prefix := sink.read(12):
        header_length, body_length = frames.lengths(prefix)
        answers.append(frames.decode(sink.read(header_length), sink.read(body_length)))
    assert [bool(header.error) for header, _ in answers] == [False, False, True, True, True]
    assert np.array_equal(answers[1][1]["scores"], LocalEngine().predict(zoo.predict, zoo.values, x[0], 10))


def test_an_answer_carries_the_numbers_of_an_evaluation() -> None:
    zoo = load_zoo("softmax")
    x, y = samples()
    arrays = {"x": x[0], "y": y[0], **zoo.values}
    header, _ = answer(LocalEngine(), Header(method="evaluate", graph=zoo.evaluate, batch=500), arrays)
    direct = LocalEngine().evaluate(zoo.evaluate, zoo.values, x[0], y[0], 500)
    assert (header.loss_sum, header.sums, header.count) == (direct.loss_sum, direct.sums, 32)
