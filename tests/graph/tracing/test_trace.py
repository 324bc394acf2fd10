# ruff: noqa: E402  # whether torch is there decides before the other imports
"""Tracing: the graphs do what torch does, step by step."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="tracing needs the extra `torch`")

from torch import nn
from torch.nn import functional

from atoll.errors import BadInput
from atoll.graph.check import check_graph
from atoll.graph.tracing.optimizers import SGD
from atoll.graph.session import LocalEngine
from atoll.graph.signatures import signature
from atoll.graph.tracing.trace import TracedJob, trace
from atoll.graph.zoo import NAMES, load_zoo
from atoll.graph.zoo.make import RECIPES, build

from .test_session import samples


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def torch_steps(model: nn.Module, x: np.ndarray, y: np.ndarray, rate: float, **options: float) -> dict[str, np.ndarray]:
    """The usual training loop."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, **options)
    for batch, labels in zip(x, y, strict=True):
        optimizer.zero_grad()
        functional.cross_entropy(model(torch.tensor(batch)), torch.tensor(labels)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return {name: value.detach().numpy() for name, value in model.named_parameters()}


def distance(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Relative L2 distance of all parameters as one vector."""
    difference = sum(float(np.square(found[name] - value).sum()) for name, value in expected.items())
    return float(np.sqrt(difference / sum(float(np.square(value).sum()) for value in expected.values())))


def run(job: TracedJob, x: np.ndarray, y: np.ndarray, rate: float) -> dict[str, np.ndarray]:
    zeros = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in job.tensors if tensor.role == "reset"}
    return LocalEngine().train(job.step, {**job.initial, **zeros}, x, y, 0, rate).tensors


@pytest.mark.parametrize("name", NAMES)
def test_the_zoo_trains_as_torch_does(name: str) -> None:
    zoo = load_zoo(name)
    x, y = samples()
    found = LocalEngine().train(zoo.step, zoo.first_tensors(), x, y, 0, zoo.card.learning_rate)
    expected = torch_steps(build(name), x, y, zoo.card.learning_rate, momentum=RECIPES[name].momentum)
    assert distance(found.tensors, expected) <= 1e-5
    assert distance({**zoo.initial}, expected) > 1e-3  # twenty steps do move it


class Odd(nn.Module):
    """Strides, paddings, dilation, a pool of 3, no bias: nothing square, nothing even."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 5, (3, 2), stride=(2, 1), padding=(1, 0), bias=False)
        self.two = nn.Conv2d(5, 4, 3, padding=2, dilation=2)
        self.out = nn.Linear(4 * 2 * 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(self.two(self.one(x).tanh()).relu(), 3)
        return self.out(x.flatten(1))


@cache
def odd_job(optimizer: SGD) -> TracedJob:
    torch.manual_seed(1)
    example = (torch.zeros(1, 2, 12, 10), torch.zeros(1, dtype=torch.int64))
    return trace(Odd(), functional.cross_entropy, optimizer, example)


def test_a_model_of_odd_shapes_trains_as_torch_does() -> None:
    job = odd_job(SGD(momentum=0.5, weight_decay=0.01))
    rng = np.random.default_rng(3)
    x = rng.normal(size=(20, 7, 2, 12, 10)).astype(np.float32)
    y = rng.integers(0, 3, (20, 7))
    torch.manual_seed(1)
    expected = torch_steps(Odd(), x, y, 0.3, momentum=0.5, weight_decay=0.01)
    assert distance(run(job, x, y, 0.3), expected) <= 1e-5


def test_without_momentum_there_is_no_state() -> None:
    job = odd_job(SGD())
    assert [tensor.name for tensor in job.tensors] == ["one.weight", "two.weight", "two.bias", "out.weight", "out.bias"]
    assert {tensor.role for tensor in job.tensors} == {"parameter"}
    facts = check_graph(job.step, signature("step", job.tensors, job.input, job.classes, 32))
    assert facts.parameters == sum(value.size for value in job.initial.values())


def test_all_graphs_pass_the_gate_and_carry_nothing_of_this_machine() -> None:
    job = odd_job(SGD(momentum=0.5))
    for kind, data in (("step", job.step), ("evaluate", job.evaluate), ("predict", job.predict)):
        check_graph(data, signature(kind, job.tensors, job.input, job.classes))
        model = onnx.load_from_string(data)
        assert all(len(tensor.raw_data) <= 64 for tensor in model.graph.initializer)  # no index constants
        assert not model.metadata_props and not any(node.metadata_props or node.doc_string for node in model.graph.node)
        assert b".py" not in data


def test_gradients_are_clipped_to_norm_one() -> None:
    job = odd_job(SGD())
    x = np.full((1, 7, 2, 12, 10), 50, np.float32)  # large inputs give large gradients
    y = np.arange(7)[None] % 3
    after = run(job, x, y, 1.0)
    moved = np.sqrt(sum(float(np.square(after[name] - value).sum()) for name, value in job.initial.items()))
    assert moved == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize(
    ("layer", "shape", "word"),
    [
        (nn.Conv2d(4, 4, 3, groups=2), (4, 12, 12), "groups"),
        (nn.MaxPool2d(3, stride=2), (4, 13, 13), "max-pool"),
        (nn.BatchNorm2d(4), (4, 12, 12), "buffers"),
    ],
)
def test_what_cannot_be_traced_is_said(layer: nn.Module, shape: tuple[int, ...], word: str) -> None:
    front = nn.Conv2d(4, 4, 1)
    size = layer(torch.zeros(2, *shape)).numel() // 2
    model = nn.Sequential(front, layer, nn.Flatten(), nn.Linear(size, 3))
    with pytest.raises(BadInput, match=word):
        trace(model, functional.cross_entropy, SGD(), (torch.zeros(1, *shape), torch.zeros(1, dtype=torch.int64)))


def test_a_bad_example_is_refused() -> None:
    with pytest.raises(BadInput, match="example"):
        trace(nn.Linear(3, 2), functional.cross_entropy, SGD(), (torch.zeros(2, 3), torch.zeros(2)))
