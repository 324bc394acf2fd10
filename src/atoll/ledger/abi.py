"""What the contracts' artifacts say: code to deploy, how to encode calls, how to read errors and events.

Reads the JSON files that `make contracts` writes into `atoll/contracts/artifacts`; otherwise pure.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError

from atoll.wire.hashing import keccak

CONTRACTS = ("Token", "Registry", "Jobs", "Settlement", "Deposits")
_PANICS = {
    0x01: "an assertion failed",
    0x11: "an arithmetic overflow",
    0x12: "a division by zero",
    0x32: "an index out of range",
}


class BadData(Exception):
    """Bytes that are not what the ABI says: another contract answered, or none."""


@dataclass(frozen=True)
class ContractError:
    """A decoded revert: the error's name, its arguments by name, and its sentence in the contract's source."""

    name: str
    arguments: dict[str, Any]
    sentence: str = ""

    def __str__(self) -> str:
        inside = ", ".join(f"{name} {_show(value)}" for name, value in self.arguments.items())
        return f"{self.name}({inside}): {self.sentence}" if self.sentence else f"{self.name}({inside})"


@dataclass(frozen=True)
class RawEvent:
    """A decoded log: the contract's and the event's name, and the arguments by name."""

    contract: str
    name: str
    arguments: dict[str, Any]


def _show(value: Any) -> str:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return str(value)


@cache
def artifact(contract: str) -> dict[str, Any]:
    """The artifact of one of `CONTRACTS`: abi, bytecode, compiler, source_sha256."""
    text = (files("atoll.contracts") / "artifacts" / f"{contract}.json").read_text("utf-8")
    return json.loads(text)  # type: ignore[no-any-return]


def type_of(entry: dict[str, Any]) -> str:
    """The canonical type of an ABI entry: tuples are spelled out."""
    if not entry["type"].startswith("tuple"):
        return str(entry["type"])
    inside = ",".join(type_of(part) for part in entry["components"])
    return f"({inside}){entry['type'][5:]}"


def types_of(entries: Sequence[dict[str, Any]]) -> list[str]:
    """The canonical types of a list of ABI entries."""
    return [type_of(entry) for entry in entries]


def signature(entry: dict[str, Any]) -> str:
    """`name(types)` of a function, error or event."""
    return f"{entry['name']}({','.join(types_of(entry['inputs']))})"


@cache
def _functions(contract: str) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in artifact(contract)["abi"] if entry["type"] == "function"}


@cache
def _errors() -> dict[bytes, dict[str, Any]]:
    entries = [entry for name in CONTRACTS for entry in artifact(name)["abi"] if entry["type"] == "error"]
    return {keccak(signature(entry).encode())[:4]: entry for entry in entries}


@cache
def _sentences() -> dict[str, str]:
    return {error: text for name in CONTRACTS for error, text in artifact(name)["errors"].items()}


@cache
def _events(contract: str) -> dict[bytes, dict[str, Any]]:
    entries = [entry for entry in artifact(contract)["abi"] if entry["type"] == "event"]
    return {keccak(signature(entry).encode()): entry for entry in entries}


def deployment(contract: str, *arguments: Any) -> bytes:
    """The data of the transaction that deploys a contract."""
    constructor = next(entry for entry in artifact(contract)["abi"] if entry["type"] == "constructor")
    return bytes.fromhex(artifact(contract)["bytecode"][2:]) + encode(types_of(constructor["inputs"]), arguments)


def call_data(contract: str, function: str, *arguments: Any) -> bytes:
    """The data of a call; structs are tuples in the order of their fields."""
    entry = _functions(contract)[function]
    return keccak(signature(entry).encode())[:4] + encode(types_of(entry["inputs"]), arguments)


def result(contract: str, function: str, data: bytes) -> Any:
    """What a call returned: one value, or a tuple of several. Addresses are 20 bytes."""
    entry = _functions(contract)[function]
    values = tuple(_plain(t, v) for t, v in zip(entry["outputs"], _decode(entry["outputs"], data), strict=True))
    return values[0] if len(values) == 1 else values


def _decode(entries: Sequence[dict[str, Any]], data: bytes) -> tuple[Any, ...]:
    try:
        return decode(types_of(entries), data)
    except (DecodingError, ValueError) as error:
        raise BadData(str(error)) from error


def _plain(entry: dict[str, Any], value: Any) -> Any:
    """Addresses as 20 bytes instead of hex, at any depth."""
    kind = entry["type"]
    if kind.endswith("]"):
        inner = entry | {"type": kind[: kind.rindex("[")]}
        return tuple(_plain(inner, one) for one in value)
    if kind == "tuple":
        return tuple(_plain(part, one) for part, one in zip(entry["components"], value, strict=True))
    if kind == "address":
        return bytes.fromhex(value[2:])
    return value


def contract_error(data: bytes) -> ContractError | None:
    """The error that a revert's data encodes, or None if it is none of ours nor of Solidity's own."""
    selector, rest = data[:4], data[4:]
    entry = _errors().get(selector)
    if entry is not None:
        values = _decode(entry["inputs"], rest)
        names = [one["name"] for one in entry["inputs"]]
        plain = [_plain(one, value) for one, value in zip(entry["inputs"], values, strict=True)]
        sentence = _sentences().get(signature(entry), "")
        return ContractError(entry["name"], dict(zip(names, plain, strict=True)), sentence)
    if selector == keccak(b"Error(string)")[:4]:
        return ContractError("Error", {"message": decode(["string"], rest)[0]})
    if selector == keccak(b"Panic(uint256)")[:4]:
        code = decode(["uint256"], rest)[0]
        return ContractError("Panic", {"code": _PANICS.get(code, hex(code))})
    return None


def raw_event(contract: str, topics: Sequence[bytes], data: bytes) -> RawEvent | None:
    """Decode a log of one of our contracts; None for events that its ABI does not list."""
    entry = _events(contract).get(topics[0]) if topics else None
    if entry is None:
        return None
    indexed = [one for one in entry["inputs"] if one["indexed"]]
    others = [one for one in entry["inputs"] if not one["indexed"]]
    found: dict[str, Any] = {}
    for one, topic in zip(indexed, topics[1:], strict=True):
        found[one["name"]] = _plain(one, _decode([one], topic)[0])
    for one, value in zip(others, _decode(others, data), strict=True):
        found[one["name"]] = _plain(one, value)
    return RawEvent(contract, entry["name"], {one["name"]: found[one["name"]] for one in entry["inputs"]})
