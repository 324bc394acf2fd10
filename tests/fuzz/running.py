"""Graphs that passed the gate, run with random inputs: the engine may only say that it failed, and every value must
have the shape that the gate foretold.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
from typing import Any
from zlib import crc32

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]  # noqa: F401 - here, so that no fork has to load it
from onnx import ModelProto

from atoll.errors import EngineFailed
from atoll.graph.engine import Engine, EngineLimits
from atoll.graph.session import open_session
from atoll.graph.shapes import Shaped, Walk

from .targets import BATCH, INPUTS

LIMITS = EngineLimits(memory_bytes=512 << 20, cpu_seconds=10, wall_seconds=20)
DTYPES = {1: np.float32, 2: np.uint8, 7: np.int64}


def feeds(seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Random values for every input."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, element, shape in INPUTS:
        lengths = [BATCH if isinstance(length, str) else length for length in shape]
        found[name] = np.asarray(rng.integers(0, 5, lengths)).astype(DTYPES[element])
    return found


def foretold(data: bytes) -> dict[str, tuple[int, ...]]:
    """The shape of every value, as the gate works it out."""
    model = ModelProto.FromString(data)
    walk = Walk(model.opset_import[0].version, 1 << 26)
    for name, element, shape in INPUTS:
        walk.shapes[name] = Shaped(element, tuple(BATCH if isinstance(length, str) else length for length in shape))
    for tensor in model.graph.initializer:
        walk.constant(tensor.name, tensor)
    for node in model.graph.node:
        walk.step(node)
    return {name: shaped.shape for name, shaped in walk.shapes.items()}


def found_shapes(data: bytes, seed: int) -> dict[str, tuple[int, ...]]:
    """The shape of every value as ONNX Runtime makes it, by a fork that may die of it; empty where it fails."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
            os.write(write, json.dumps(_run(data, seed)).encode())
        except Exception:  # what ONNX Runtime refuses is no finding: there are no shapes then
            os.write(write, b"{}")
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return {name: tuple(shape) for name, shape in json.loads(told).items()} if told else {}


def _run(data: bytes, seed: int) -> dict[str, tuple[int, ...]]:
    model = ModelProto.FromString(data)
    del model.graph.output[:]
    names = [name for node in model.graph.node for name in node.output if name]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(model.SerializeToString(), 1)
    taken = {port.name for port in session.get_inputs()}
    values = session.run(names, {name: value for name, value in feeds(seed).items() if name in taken})
    return {name: value.shape for name, value in zip(names, values, strict=True)}


class Runner:
    """An engine that stays between graphs, and the loop that it lives in."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._engine = Engine(LIMITS)
        self.deaths = 0

    def check(self, data: bytes) -> None:
        """Run a graph that passed the gate; raises AssertionError for a shape other than foretold."""
        seed = crc32(data)  # its values follow from the graph, so that it does the same when it is tried again
        promised, found = foretold(data), found_shapes(data, seed)
        if not found and seed % 8:
            return  # the engine would fail as well, and each time it starts again
        for name, shape in found.items():
            if shape != promised[name]:
                raise AssertionError(f"{name} has shape {shape}, the gate foretold {promised[name]}")
        given = feeds(seed)
        x = given.pop("x")
        try:
            self._loop.run_until_complete(self._engine.predict(data, given, x, BATCH))
        except EngineFailed as error:
            self.deaths += "ended with code" in str(error)

    def close(self) -> None:
        """End the engine."""
        self._loop.run_until_complete(self._engine.close())
        self._loop.close()
