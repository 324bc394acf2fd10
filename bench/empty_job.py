"""A job whose graphs compute next to nothing: one tensor `w`, moved by a number that depends on the batch."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, parser

from atoll.graph.check import check_job
from atoll.graph.manifest import Data, Manifest, Policy
from atoll.graph.params import first_model, write_params
from atoll.graph.session import METRIC, NEXT
from atoll.graph.spec import Hyper, Input, JobSpec, Output, Tensor
from atoll.training.data import DataSet, load_directory, make_source
from atoll.training.data.card import About
from atoll.wire.hashing import blob_id

COIN = 10**18
SHAPE = (1, 4, 4)
CLASSES = 2
SAMPLES, HELD_OUT = 64, 16

_X = "uint8[batch, 1, 4, 4] x"
_MEAN = """
    pixels = Cast<to = 1>(x)
    flat = Flatten<axis = 1>(pixels)
    level = ReduceMean<keepdims = 1>(flat, columns)
"""
_STEP = """
    labels = Cast<to = 1>(y)
    moment = Cast<to = 1>(step)
    bright = ReduceMean<keepdims = 0>(level)
    label = ReduceMean<keepdims = 0>(labels)
    place = Add(bright, label)
    phase = Add(place, moment)
    spread = Mul(w, thousand)
    angle = Add(spread, phase)
    noise = Sin(angle)
    scaled = Mul(noise, learning_rate)
    next_w = Add(w, scaled)
    loss = Mul(bright, one)
"""
_EVALUATE = """
    loss = ReduceSum<keepdims = 0>(level)
    bit = Greater(level, thousand)
    guess = Cast<to = 7>(bit)
    line = Squeeze(guess, columns)
    same = Equal(line, y)
    other = Not(same)
    hits = Cast<to = 1>(same)
    metric_accuracy = ReduceSum<keepdims = 0>(hits)
    every = Or(same, other)
    each = Cast<to = 7>(every)
    count = ReduceSum<keepdims = 0>(each)
"""
_PREDICT = """
    logits = Concat<axis = 1>(level, level)
    scores = Softmax<axis = 1>(logits)
"""


def _graph(name: str, inputs: str, outputs: str, body: str) -> bytes:
    """A graph in ONNX's text form as bytes; the form knows no dots in names."""
    constants = "<int64[1] columns = {1}, float thousand = {1000}, float one = {1}>"
    text = f'<ir_version: 9, opset_import: ["" : 18]> {name} ({inputs}) => ({outputs}) {constants} {{{body}}}'
    model: ModelProto = parser.parse_model(text)
    for named in model.graph.output:
        named.name = _dotted(named.name)
    for node in model.graph.node:
        node.output[:] = [_dotted(name) for name in node.output]
    return bytes(model.SerializeToString())


def _dotted(name: str) -> str:
    return name.replace("next_", NEXT).replace("metric_", METRIC)


@dataclass(frozen=True)
class EmptyJob:
    """Parts of the job by name, and its manifest."""

    manifest: Manifest
    parts: tuple[bytes, ...]

    def write(self, folder: Path) -> list[str]:
        """Write the parts as files and return their paths."""
        paths = [folder / f"{blob_id(part).hex()}.part" for part in self.parts]
        for path, part in zip(paths, self.parts, strict=True):
            path.write_bytes(part)
        return [str(path) for path in paths]


def write_data(folder: Path) -> tuple[DataSet, DataSet]:
    """A tiny data set as IDX files: random pictures of 4 x 4 pixels in two classes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", SAMPLES), ("t10k", HELD_OUT)):
        images = rng.integers(0, 256, (count, 4, 4), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % CLASSES
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
            (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + values.tobytes(), mtime=0))
    return load_directory(folder)


def make_job(name: str, data: tuple[DataSet, DataSet], parameters: int, rounds: int, audit_floor: int) -> EmptyJob:
    """The job over `parameters` float32 values; `audit_floor` in parts per 10,000 (10,000: each unit is audited)."""
    w = f"float[{parameters}] w"
    inputs = f"{_X}, int64[batch] y, int64 step, int64 seed, float learning_rate, {w}"
    step = _graph("step", inputs, f"float loss, float[{parameters}] next_w", _MEAN + _STEP)
    evaluate = _graph(
        "evaluate", f"{_X}, int64[batch] y, {w}", "float loss, int64 count, float metric_accuracy", _MEAN + _EVALUATE
    )
    predict = _graph("predict", f"{_X}, {w}", "float[batch, 2] scores", _MEAN + _PREDICT)
    tensors = (Tensor(name="w", shape=(parameters,), role="parameter"),)
    values = {"w": np.random.default_rng(1).normal(0, 0.1, parameters).astype(np.float32)}
    params = write_params(values)
    train, held_out = data
    card = make_source("tiny", train, held_out, About(licence="CC0-1.0", origin="random pictures")).card_bytes
    spec = JobSpec(
        name=name,
        step=blob_id(step).hex(),
        evaluate=blob_id(evaluate).hex(),
        predict=blob_id(predict).hex(),
        params=blob_id(params).hex(),
        initial=blob_id(first_model(values, tensors)).hex(),
        tensors=tensors,
        input=Input(shape=SHAPE, dtype="uint8"),
        output=Output(shape=(CLASSES,)),
        metrics=("accuracy",),
        hyper=Hyper(learning_rate=0.001),
        batch=1,
        steps=2,
        segment=1,
    )
    place = Data(
        root="0x" + train.root.hex(),
        count=len(train),
        held_out_root="0x" + held_out.root.hex(),
        held_out_count=len(held_out),
        card=blob_id(card).hex(),
    )
    policy = Policy(unit_price=COIN, audit_price=COIN // 2, validator_price=COIN // 100, audit_rate_floor=audit_floor)
    manifest = Manifest.post(spec, place, rounds, policy)
    check_job(manifest, step, evaluate, predict)
    return EmptyJob(manifest, (manifest.to_bytes(), step, evaluate, predict, params, card))
