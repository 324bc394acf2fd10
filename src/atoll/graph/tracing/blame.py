"""Which line of the user's model is the cause of what cannot be traced, and what to write instead. Needs torch."""

from __future__ import annotations

import inspect
import logging
import re
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy
import onnx
import sympy
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode

from atoll.errors import BadInput

_HERE = Path(__file__).resolve().parent
_NOT_USERS = (_HERE, *(Path(str(one.__file__)).parent for one in (torch, numpy, onnx, sympy)))
_STANDARD = Path(sysconfig.get_paths()["stdlib"])
USER = "atoll_place"  # where a recorded node keeps its `Place`
_MADE_UP = ("<eval_with_key", "<frozen", "<string>")

VALUES = (
    "the value of a tensor is needed while tracing (an `if` or a loop over it, .item(), int(), float() or bool()). The "
    "graph is the same for every batch: choose with torch.where(condition, a, b) and keep numbers as tensors"
)
SIZES = (
    "the size of a result depends on values (a boolean index, nonzero, unique, masked_select). Sizes must follow from "
    "shapes: multiply by a mask, or choose with torch.where(mask, a, b)"
)
BATCH = (
    "the batch size is fixed here, or decides what happens. It differs between training and evaluation: take it from "
    "x.shape[0], write -1 or x.flatten(1) in place of a number, and compute the same for every batch size"
)
NUMPY = "numpy cannot be traced: use torch operations"
COMPLEX = "complex numbers cannot be traced: keep the real and the imaginary part in two float32 tensors"
INPLACE = "a parameter is changed in place in the forward pass: compute a new tensor from it instead"


@dataclass(frozen=True)
class Place:
    """A line of the user's: file, line from 1, function."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} (in {self.function})"


@cache
def is_users(file: str) -> bool:
    """Whether a file is neither torch, nor this room, nor the standard library."""
    path = Path(file)
    if file.startswith(_MADE_UP) or any(path.is_relative_to(folder) for folder in _NOT_USERS):
        return False
    return not path.is_relative_to(_STANDARD) or "-packages" in file


def of_traceback(trace: TracebackType | None) -> Place | None:
    """The innermost line of the user's in a traceback."""
    found = None
    while trace is not None:
        code = trace.tb_frame.f_code
        if is_users(code.co_filename):
            found = Place(code.co_filename, trace.tb_lineno, code.co_name)
        trace = trace.tb_next
    return found


def of_stack(frame: FrameType | None) -> Place | None:
    """The innermost line of the user's above `frame`, up to where tracing began."""
    while frame is not None and frame.f_code is not _boundary:
        code = frame.f_code
        if is_users(code.co_filename):
            return Place(code.co_filename, frame.f_lineno, code.co_name)
        frame = frame.f_back
    return None


def of_frame(frame: Any) -> Place | None:
    """The line of a frame that torch noted, if it is the user's."""
    if frame is None or isinstance(frame, str) or not is_users(frame.filename):
        return None
    return Place(frame.filename, frame.lineno, frame.name)


def of_shapes(shapes: ShapeEnv) -> Place | None:
    """The user's line that first asked for the size of the batch as a number."""
    places = (of_frame(guard.sloc.framework_loc) for guard in shapes.guards)
    return next((place for place in places if place is not None), None)


def of_function(function: Any) -> Place | None:
    """Where a function or the `forward` of a module is defined, if the user wrote it."""
    forward = getattr(type(function), "forward", None)
    code = getattr(forward or inspect.unwrap(function), "__code__", None)
    if code is None or not is_users(code.co_filename):
        return None
    return Place(code.co_filename, code.co_firstlineno, code.co_name)


def bad(place: Place | None, text: str) -> BadInput:
    """An error that begins with the place, where there is one."""
    found = BadInput(f"{place}: {text}" if place else text)
    found.place = place  # type: ignore[attr-defined]  # so that it is not looked for again further out
    return found


@contextmanager
def explained(fallback: Any = None) -> Iterator[None]:
    """Turn whatever torch raises inside into BadInput with the user's line; `fallback` is the function to name else."""
    try:
        with _quiet():
            yield
    except Exception as error:  # torch raises everything from TypeError to its own classes here
        if hasattr(error, "place"):  # explained further in
            raise
        place = _place(error) or (of_function(fallback) if fallback is not None else None)
        raise bad(place, _said(error)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch logs and warns about on its own; what fails comes as an exception."""
    loggers = [logging.getLogger(name) for name in ("torch._subclasses.fake_tensor", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _place(error: BaseException) -> Place | None:
    """Where an error came from: as noted by `Watch` in a backward pass, else by its traceback or its causes'."""
    noted: Place | None = getattr(error, "noted", None)
    seen: BaseException | None = error
    while noted is None and seen is not None:
        noted = of_traceback(seen.__traceback__)
        seen = seen.__cause__
    return noted


def _said(error: BaseException) -> str:
    if isinstance(error, BadInput):
        return str(error)
    text = " ".join(str(error).split())
    if isinstance(error, GuardOnDataDependentSymNode | DataDependentOutputException):
        return VALUES
    if isinstance(error, DynamicOutputShapeException):
        return SIZES
    if "numpy" in text:
        return NUMPY
    if "omplex" in text:
        return COMPLEX
    named = re.sub(r"\bs[0-9]+\b", "batch", text[:400])
    hint = f". Perhaps {BATCH}" if named != text[:400] else ""
    return f"torch says: {named or type(error).__name__}{hint}"


class Watch(TorchDispatchMode):  # type: ignore[misc]  # torch is untyped here
    """Notes, for each torch operation while tracing, which line of the user's it comes from.

    An operation of the backward pass has the line of the forward operation that it belongs to. The batch, the one
    symbol of `shapes`, has to stay a symbol; `kept` are tensors that may not be changed in place.
    """

    def __init__(self, shapes: ShapeEnv, kept: tuple[torch.Tensor, ...] = ()) -> None:
        super().__init__()
        self._shapes = shapes
        self._kept = {value.untyped_storage()._cdata for value in kept}
        self.written: set[int] = set()  # storages that were changed in place
        self._lines: dict[int, Place] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation; what it raises is marked with the line."""
        place = self._here()
        if func._schema.is_mutable:
            self._check_writes(func, args, place)
        mode = get_proxy_mode()
        graph = None if mode is None else mode.tracer.graph
        root = None if graph is None else graph._root
        last = None if root is None else root.prev
        try:
            found = func(*args, **(kwargs or {}))
        except Exception as error:  # any: it goes on as it is, with a note
            if place is not None and not hasattr(error, "noted"):
                error.noted = place  # type: ignore[attr-defined]  # read by `explained`
            raise
        while last is not None and (last := last.next) is not root:
            last.meta[USER] = place
        if self._shapes.replacements:  # the symbol of the batch has become a number
            raise bad(of_shapes(self._shapes) or place, BATCH)
        if isinstance(found, torch.Tensor) and found.is_complex():
            raise bad(place, COMPLEX)
        return found

    def wrote(self, value: torch.Tensor) -> bool:
        """Whether a tensor was changed in place."""
        return value.untyped_storage()._cdata in self.written

    def _here(self) -> Place | None:
        node = torch._C._current_autograd_node()
        if node is not None:
            return self._lines.get(node._sequence_nr())
        place = of_stack(sys._getframe(2))
        if place is not None:
            self._lines[torch._C._autograd._get_sequence_nr() - 1] = place
        return place

    def _check_writes(self, func: Any, args: Any, place: Place | None) -> None:
        given = list(zip(func._schema.arguments, args, strict=False))
        if any(argument.name == "training" and value is False for argument, value in given):
            return  # a norm in evaluation mode writes nothing, whatever its schema says
        for argument, value in given:
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and isinstance(value, torch.Tensor):
                storage = value.untyped_storage()._cdata
                self.written.add(storage)
                if storage in self._kept:
                    raise bad(place, INPLACE)


def watched(watch: Watch, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run `function` under `watch`; the user's lines are looked for up to here."""
    with watch:
        return function(*arguments)


_boundary = watched.__code__
