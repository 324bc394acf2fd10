"""Tables about the contracts: from their ABI, and from the comments in their sources."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from atoll.ledger import abi
from atoll.ledger import events as event_classes
from tests.docs.markdown import code, first_sentence, table

SOURCES = Path(__file__).resolve().parents[2] / "src" / "atoll" / "contracts"


def _solidity() -> dict[str, str]:
    return {path.stem: path.read_text("utf-8") for path in sorted(SOURCES.glob("*.sol"))}


_PARENTS = {
    "Token": (),
    "Registry": ("Paying",),
    "Jobs": ("Paying",),
    "Settlement": ("Paying",),
    "Deposits": ("Paying",),
}


def _notice(contract: str, name: str) -> str:
    """The @notice above a function or a public variable, in the contract or in what it inherits of ours."""
    for source in (contract, *_PARENTS[contract]):
        pattern = rf"((?:^ *///.*\n)+) *(?:function {name}\(|[^\n;({{]*\bpublic\b[^\n;(]*\b{name}(?: =|;))"
        for block in re.findall(pattern, _solidity()[source], re.MULTILINE):
            text = " ".join(line.strip().removeprefix("///").strip() for line in block.strip().splitlines())
            if "@notice" in text:
                return re.split(r" @\w+", text.split("@notice ", 1)[1])[0]
        mapping = re.findall(rf"((?:^ *///.*\n)+) *mapping\([^\n]*\) public {name};", _solidity()[source], re.MULTILINE)
        if mapping:
            return " ".join(line.strip().removeprefix("///").strip() for line in mapping[0].strip().splitlines())[8:]
    return ""


_STANDARD = {
    "DOMAIN_SEPARATOR": "EIP-2612",
    "allowance": "ERC-20",
    "approve": "ERC-20",
    "balanceOf": "ERC-20",
    "decimals": "ERC-20",
    "eip712Domain": "EIP-5267",
    "name": "ERC-20",
    "nonces": "EIP-2612",
    "permit": "EIP-2612",
    "symbol": "ERC-20",
    "totalSupply": "ERC-20",
    "transfer": "ERC-20",
    "transferFrom": "ERC-20",
}


def _entries(contract: str, kind: str) -> Iterator[dict[str, Any]]:
    return (entry for entry in abi.artifact(contract)["abi"] if entry["type"] == kind)


def _type(entry: dict[str, Any]) -> str:
    """A type as the source has it: structs by their names."""
    named = entry.get("internalType", "")
    return named.rpartition(".")[2] if named.startswith("struct ") else str(entry["type"])


def _signature(entry: dict[str, Any]) -> str:
    inside = ", ".join(f"{_type(one)} {one['name']}".strip() for one in entry["inputs"])
    return code(f"{entry['name']}({inside})")


def structs() -> str:
    found: dict[str, str] = {}
    for contract in abi.CONTRACTS:
        entries = list(_entries(contract, "function"))
        waiting = [one for entry in entries for one in (*entry["inputs"], *entry["outputs"])]
        for one in waiting:
            if "components" in one:
                name = _type(one).removesuffix("[]")
                inside = ", ".join(f"{_type(part)} {part['name']}" for part in one["components"])
                found[f"{contract}.{name}"] = inside
    rows = (
        (code(name.partition(".")[0]), code(name.partition(".")[2]), code(inside)) for name, inside in found.items()
    )
    return table("contract | struct | fields", rows)


def functions(contract: str) -> Callable[[], str]:
    def made() -> str:
        rows = []
        for entry in _entries(contract, "function"):
            said = _notice(contract, entry["name"])
            if not said and entry["name"] in _STANDARD:
                said = f"As {_STANDARD[entry['name']]} defines it."
            if not said:
                said = _constant(contract, entry["name"])
            reads = entry["stateMutability"] in ("view", "pure")
            rows.append((_signature(entry), "reads" if reads else "changes", said))
        return table("function | | meaning", rows)

    return made


def _constant(contract: str, name: str) -> str:
    found = re.search(rf"constant {name} = (\w+);", _solidity()[contract])
    if found is None:
        raise ValueError(f"{contract}.{name} has no @notice")
    return f"Constant: {found[1]}."


def events() -> str:
    rows = []
    for contract in abi.CONTRACTS:
        for entry in _entries(contract, "event"):
            kind = event_classes.KINDS.get(entry["name"])
            said = first_sentence(kind) if kind else "Of OpenZeppelin's token or EIP-712; Atoll does not read it."
            rows.append((code(contract), _signature(entry), said))
    return table("contract | event | meaning", rows)


def errors() -> str:
    rows = []
    for contract in abi.CONTRACTS:
        said = abi.artifact(contract)["errors"]
        for entry in _entries(contract, "error"):
            rows.append(
                (code(contract), _signature(entry), said.get(abi.signature(entry), "Of OpenZeppelin's libraries."))
            )
    return table("contract | error | meaning", rows)
