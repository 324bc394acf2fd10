"""Running graphs in this process: against the same training written out by hand in numpy."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest

from atoll.errors import EngineFailed
from atoll.graph import frames
from atoll.graph.frames import Header
from atoll.graph.session import LocalEngine, answer, serve
from atoll.graph.zoo import NAMES, load_zoo

STEPS, BATCH = 20, 32


def samples(seed: int = 0) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Random pictures whose label shows: class k has its own random pattern under the noise."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).integers(0, 156, (10, 1, 28, 28))
    y = rng.integers(0, 10, (STEPS, BATCH))
    x = (patterns[y] + rng.integers(0, 100, (STEPS, BATCH, 1, 28, 28))).astype(np.uint8)
    return x, y.astype(np.int64)


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
    x, y = samples()
    result = LocalEngine().train(zoo.step, zoo.first_tensors(), x, y, 0, zoo.card.learning_rate)
    first = {name: value.astype(np.float64) for name, value in zoo.initial.items()}
    weight, bias, losses = softmax_by_hand(first["linear.weight"], first["linear.bias"], zoo.card.learning_rate)
    assert relative(result.tensors["linear.weight"], weight) < 1e-6
    assert relative(result.tensors["linear.bias"], bias) < 1e-5
    np.testing.assert_allclose(result.losses, losses, rtol=1e-5)
    assert losses[-1] < losses[0] / 2


def test_evaluation_and_prediction_are_those_written_by_hand() -> None:
    zoo = load_zoo("softmax")
    x, y = samples()
    x, y = x.reshape(-1, 1, 28, 28), y.reshape(-1)
    pixels = (x.reshape(len(x), 784) - 33.3184) / 78.5675
    scores = pixels @ zoo.initial["linear.weight"].T + zoo.initial["linear.bias"]
    odds = np.exp(scores - scores.max(1, keepdims=True))
    chances = odds / odds.sum(1, keepdims=True)
    engine = LocalEngine()
    found = engine.evaluate(zoo.evaluate, zoo.initial, x, y, batch=100)  # 640: the last batch is not full
    assert found.correct == int((scores.argmax(1) == y).sum())
    assert found.count == 640
    assert found.loss_sum == pytest.approx(float(-np.log(chances[np.arange(640), y]).sum()), rel=1e-5)
    assert found.accuracy == found.correct / 640
    assert found.loss == found.loss_sum / 640
    np.testing.assert_allclose(engine.predict(zoo.predict, zoo.initial, x, batch=99), chances, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_inputs_give_the_same_bytes(name: str) -> None:
    zoo = load_zoo(name)
    x, y = samples()
    before = {key: value.copy() for key, value in zoo.first_tensors().items()}
    results = [LocalEngine().train(zoo.step, before, x[:5], y[:5], 0, 0.05) for _ in range(2)]
    assert all(value.tobytes() == results[1].tensors[key].tobytes() for key, value in results[0].tensors.items())
    assert all(np.array_equal(before[key], value) for key, value in zoo.first_tensors().items())  # inputs untouched


@pytest.mark.parametrize("name", NAMES)
def test_two_segments_are_one_unit(name: str) -> None:
    zoo = load_zoo(name)
    x, y = samples()
    engine = LocalEngine()
    whole = engine.train(zoo.step, zoo.first_tensors(), x[:7], y[:7], 0, 0.05)
    first = engine.train(zoo.step, zoo.first_tensors(), x[:4], y[:4], 0, 0.05)
    second = engine.train(zoo.step, first.tensors, x[4:7], y[4:7], 4, 0.05)
    assert all(np.array_equal(whole.tensors[key], second.tensors[key]) for key in whole.tensors)
    assert np.array_equal(whole.losses, np.concatenate([first.losses, second.losses]))


def test_the_learning_rate_is_an_input() -> None:
    zoo = load_zoo("softmax")
    x, y = samples()
    still = LocalEngine().train(zoo.step, zoo.first_tensors(), x[:2], y[:2], 0, 0.0)
    assert all(np.array_equal(still.tensors[key], zoo.initial[key]) for key in zoo.initial)


def test_any_batch_size_runs() -> None:
    zoo = load_zoo("cnn")
    x, y = samples()
    for batch in (1, 3, 32):
        result = LocalEngine().train(zoo.step, zoo.first_tensors(), x[:1, :batch], y[:1, :batch])
        assert np.isfinite(result.losses).all()


def test_wrong_inputs_fail_with_a_sentence() -> None:
    zoo = load_zoo("softmax")
    tensors = zoo.first_tensors()
    short = {key: value for key, value in tensors.items() if key != "linear.bias"}
    wrong_shape = {**tensors, "linear.bias": np.zeros(3, np.float32)}
    for given, width in ((short, 28), (wrong_shape, 28), (tensors, 5)):
        with pytest.raises(EngineFailed, match="could not be run"):
            LocalEngine().train(zoo.step, given, np.zeros((1, 2, 1, 28, width), np.uint8), np.zeros((1, 2), np.int64))
    with pytest.raises(EngineFailed, match="could not be run"):
        LocalEngine().predict(b"no graph", {}, np.zeros((1, 784), np.uint8))


def test_serving_answers_frame_by_frame_until_the_input_ends() -> None:
    zoo = load_zoo("softmax")
    x, _ = samples()
    requests = [
        frames.encode(Header(method="start"), {}),
        frames.encode(Header(method="predict", graph=zoo.predict, batch=10), {"x": x[0], **zoo.initial}),
        frames.encode(Header(method="predict", graph=b"bad", batch=10), {"x": x[0]}),
        frames.encode(Header(method="dance"), {}),
    ]
    sink = io.BytesIO()
    serve(io.BytesIO(b"".join(part for parts in requests for part in parts)), sink, LocalEngine(), 1_000_000)
    sink.seek(0)
    answers = []
    while prefix := sink.read(12):
        header_length, body_length = frames.lengths(prefix)
        answers.append(frames.decode(sink.read(header_length), sink.read(body_length)))
    assert [bool(header.error) for header, _ in answers] == [False, False, True, True]
    assert np.array_equal(answers[1][1]["scores"], LocalEngine().predict(zoo.predict, zoo.initial, x[0]))


def test_an_answer_carries_the_numbers_of_an_evaluation() -> None:
    zoo = load_zoo("softmax")
    x, y = samples()
    arrays = {"x": x[0], "y": y[0], **zoo.initial}
    header, _ = answer(LocalEngine(), Header(method="evaluate", graph=zoo.evaluate, batch=500), arrays)
    direct = LocalEngine().evaluate(zoo.evaluate, zoo.initial, x[0], y[0])
    assert (header.loss_sum, header.correct, header.count) == (direct.loss_sum, direct.correct, 32)
