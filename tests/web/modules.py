"""The browser's modules, called from Python: one Node process, one line for each question and each answer."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

HERE = Path(__file__).parent
_DTYPES = {"u8": "<u1", "i32": "<i4", "u32": "<u4", "f32": "<f4", "f64": "<f8"}
_KINDS = {np.dtype(name): kind for kind, name in _DTYPES.items()}


class NotTaken(Exception):
    """A function of a module threw: `reason` is that of a refusal, or the name of another error."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Modules:
    """`call("module.function", *arguments)`: bytes, numpy arrays, large integers and mappings go through."""

    def __init__(self) -> None:
        self._node = subprocess.Popen(
            ["node", str(HERE / "answer.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Modules:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._node.communicate(timeout=30)

    def call(self, name: str, *arguments: Any) -> Any:
        """What the function returns; raises NotTaken when it throws."""
        assert self._node.stdin and self._node.stdout
        self._node.stdin.write(json.dumps([name, [write(each) for each in arguments]]) + "\n")
        self._node.stdin.flush()
        answer = json.loads(self._node.stdout.readline())
        if "refused" in answer:
            raise NotTaken(answer["refused"], answer["detail"] + answer["stack"])
        return read(answer["found"])


def write(value: Any) -> Any:
    """A value as JSON that values.mjs reads."""
    if isinstance(value, bytes | bytearray):
        return {"$": "u8", "v": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        return {"$": _KINDS[value.dtype], "v": base64.b64encode(value.tobytes()).decode()}
    if isinstance(value, bool) or value is None or isinstance(value, str | float):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < 1 << 53 else {"$": "int", "v": str(value)}
    if isinstance(value, Big):
        return {"$": "int", "v": str(value.value)}
    if isinstance(value, Named):
        return {"$": "map", "v": [[key, write(each)] for key, each in value.values.items()]}
    if isinstance(value, Mapping):
        return {key: write(each) for key, each in value.items()}
    return [write(each) for each in value]


class Big:
    """An integer that JavaScript is to see as a bigint."""

    def __init__(self, value: int) -> None:
        self.value = value


class Named:
    """A mapping that JavaScript is to see as a Map."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values


def read(value: Any) -> Any:
    """A value from the JSON that values.mjs writes."""
    if isinstance(value, list):
        return [read(each) for each in value]
    if not isinstance(value, dict):
        return value
    match value.get("$"):
        case None:
            return {key: read(each) for key, each in value.items()}
        case "int":
            return int(value["v"])
        case "map":
            return {key: read(each) for key, each in value["v"]}
        case "u8":
            return base64.b64decode(value["v"])
        case kind:
            return np.frombuffer(base64.b64decode(value["v"]), _DTYPES[kind])
