"""All settings of a node, in one table: the loader, `--help`, the default file and the docs are made from it.

A value comes from, in rising order: the default, `HOME/config.toml`, the environment (`ATOLL_` and the name in
capitals), the command line. Whatever is unknown, of the wrong type or outside its range is a BadSetting that says
what was expected.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.errors import BadSetting, MachineError

FILE_NAME = "config.toml"
ENVIRONMENT = "ATOLL_"
NOT_SETTINGS = frozenset({"ATOLL_HOME", "ATOLL_PASSPHRASE", "ATOLL_DEBUG"})  # other names that the environment may hold
ROLES = ("worker", "validator", "holder", "server", "gateway")
USUAL_ROLES = ROLES[:4]
LOG_LEVELS = ("debug", "info", "warning", "error")

Value = str | int | float | tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """A row of the table. kind: "text", "whole number", "number" or "list"; unit and expectation are for people."""

    name: str
    kind: str
    default: Value
    unit: str
    sentence: str
    expectation: str
    holds: Callable[[Any], bool]


def _row(default: Value, unit: str, sentence: str, expectation: str, holds: Callable[[Any], bool]) -> Any:
    """A field of Settings that carries its row of the table."""
    kinds = {str: "text", int: "whole number", float: "number", tuple: "list"}
    row = Setting("", kinds[type(default)], default, unit, sentence, expectation, holds)
    return dataclasses.field(default=default, metadata={"row": row})


def _between(low: float, high: float) -> tuple[str, Callable[[Any], bool]]:
    return f"from {low:g} to {high:.16g}", lambda value: low <= value <= high


def _one_of(choices: tuple[str, ...]) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(choices)}", lambda value: value in choices


def _some_of(choices: tuple[str, ...]) -> tuple[str, Callable[[Any], bool]]:
    expectation = f"one or more of {', '.join(choices)}"
    return expectation, lambda value: bool(value) and set(value) <= set(choices) and len(set(value)) == len(value)


def _is_socket(text: str) -> bool:
    host, _, port = text.rpartition(":")
    try:
        ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return False
    return port.isascii() and port.isdigit() and int(port) < 65536


def _is_amount(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,21}(\.[0-9]{1,18})?", text, re.ASCII) is not None


def _is_account(text: str) -> bool:
    digits = text.removeprefix("0x")
    return text == "" or (len(digits) == 40 and text != digits and not set(digits) - set("0123456789abcdefABCDEF"))


@dataclass(frozen=True)
class Settings:
    """The settings of one node, checked. Sizes are in units of 2^20 bytes ("MB")."""

    name: str = _row(
        "", "", "What this node calls itself, here and to its peers.",
        "at most 40 printable characters", lambda v: len(v) <= 40 and v.isprintable(),
    )  # fmt: skip
    roles: tuple[str, ...] = _row(USUAL_ROLES, "", "What this node does for others.", *_some_of(ROLES))
    rpc: str = _row(
        "", "URL", "JSON-RPC endpoint of the chain.",
        "a URL that starts with http:// or https://", lambda v: v == "" or v.startswith(("http://", "https://")),
    )  # fmt: skip
    registry: str = _row(
        "",
        "address",
        "Contract that lists the nodes of the network to join.",
        "0x and 40 hexadecimal digits",
        _is_account,
    )
    chain_id: int = _row(
        0, "", "Chain that the endpoint must serve; 0 takes the one that it serves.", *_between(0, 2**53 - 1)
    )
    first_block: int = _row(
        0, "", "Block from which on the chain is read: the one of the registry's deployment, or an earlier one.",
        *_between(0, 2**53 - 1),
    )  # fmt: skip
    poll_seconds: float = _row(1.0, "seconds", "How often the chain is asked for news.", *_between(0.05, 3600))
    listen: str = _row(
        "0.0.0.0:0", "ip:port", "UDP address for peers; 0.0.0.0 is every address of this device, port 0 a free port.",
        "ip:port, or [ip6]:port", _is_socket,
    )  # fmt: skip
    advertise: tuple[str, ...] = _row(
        (), "ip:port", "Addresses under which others reach this node, if it cannot see them itself.",
        "at most 8 of ip:port", lambda v: len(v) <= 8 and all(_is_socket(a) for a in v),
    )  # fmt: skip
    control_port: int = _row(
        0, "TCP port", "Where `atoll status` and its like find this node on this device; 0 takes a free one.",
        *_between(0, 65535),
    )  # fmt: skip
    http: str = _row(
        "", "ip:port", "Where this node shows the dashboard and answers programs; empty for nowhere.",
        "ip:port, [ip6]:port, or nothing", lambda v: v == "" or _is_socket(v),
    )  # fmt: skip
    token_price: str = _row(
        "0", "ATL", "What 1,000 tokens cost others whose questions a model of this node answers.",
        "an amount such as 0.5, with at most 18 decimals", _is_amount,
    )  # fmt: skip
    input_price: str = _row(
        "0", "ATL", "What each picture, each text and each conversation costs those others besides.",
        "an amount such as 0.5, with at most 18 decimals", _is_amount,
    )  # fmt: skip
    max_tabs: int = _row(64, "", "Browser tabs that may work through this node at the same time.", *_between(0, 4096))
    cpu_threads: int = _row(1, "threads", "Processor threads lent to one piece of work.", *_between(1, 1024))
    memory_mb: int = _row(1024, "MB", "Memory lent to one piece of work.", *_between(128, 1 << 24))
    disk_mb: int = _row(2048, "MB", "Disk lent to blobs and pieces.", *_between(16, 1 << 30))
    max_train_seconds: int = _row(
        600, "seconds", "Longest that one unit of training may run here.", *_between(1, 86400)
    )
    requests_at_once: int = _row(64, "", "Requests of peers answered at the same time.", *_between(1, 4096))
    log_level: str = _row("info", "", "How much HOME/log.txt tells.", *_one_of(LOG_LEVELS))


def _table() -> tuple[Setting, ...]:
    return tuple(dataclasses.replace(f.metadata["row"], name=f.name) for f in dataclasses.fields(Settings))


TABLE: tuple[Setting, ...] = _table()
_BY_NAME = {row.name: row for row in TABLE}


def load(home: Path, environment: Mapping[str, str], overrides: Mapping[str, object] | None = None) -> Settings:
    """The settings of a home. `overrides` come from the command line, as text or in their own type; None is unset.

    Raises BadSetting with the source, the expectation, and the nearest name for one that is unknown.
    """
    values: dict[str, Value] = {}
    path = home / FILE_NAME
    for name, value in _read(path).items():
        values[name] = _checked(_row_of(name, str(path)), value, str(path), from_text=False)
    for variable, text in environment.items():
        if variable.startswith(ENVIRONMENT) and variable not in NOT_SETTINGS:
            name = variable.removeprefix(ENVIRONMENT).lower()
            source = f"the environment ({variable})"
            values[name] = _checked(_row_of(name, source), text, source, from_text=True)
    for name, value in (overrides or {}).items():
        if value is not None:
            source = "the command line"
            values[name] = _checked(_row_of(name, source), value, source, from_text=isinstance(value, str))
    return Settings(**values)  # type: ignore[arg-type]  # each value was checked against the row of its field


def render(values: Mapping[str, object] | None = None) -> str:
    """A configuration file: every setting explained, those in `values` set, the others commented out.

    Raises BadSetting like `load`.
    """
    chosen = dict(values or {})
    lines = ["# Settings of this Atoll node. Remove the # before a line to change its value.", ""]
    for row in TABLE:
        unit = f" [{row.unit}]" if row.unit else ""
        lines.append(f"# {row.sentence}{unit} Expected: {row.expectation}.")
        if row.name in chosen:
            value = chosen.pop(row.name)
            lines.append(f"{row.name} = {_toml(_checked(row, value, 'the given values', from_text=False))}")
        else:
            lines.append(f"# {row.name} = {_toml(row.default)}")
        lines.append("")
    for name in chosen:
        _row_of(name, "the given values")
    return "\n".join(lines)


def write(home: Path, values: Mapping[str, object] | None = None) -> bool:
    """Write `HOME/config.toml` (see `render`) unless there is one; whether it was written."""
    text, path = render(values), home / FILE_NAME
    try:
        home.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        if path.is_file():
            return False
        raise BadSetting(f"{home} cannot be a node's home: expected a folder, or a name that is free.") from None
    except OSError as error:
        raise MachineError(f"{path} cannot be written ({error.strerror}): expected a folder of yours.") from error
    return True


def rows() -> list[tuple[str, str, str, str]]:
    """(name, default, unit, sentence with the expectation) of every setting, for help texts and docs."""
    return [(row.name, _toml(row.default), row.unit, f"{row.sentence} Expected: {row.expectation}.") for row in TABLE]


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSetting(f"{path} is not a TOML file ({error}): expected lines such as `cpu_threads = 2`.") from error
    except OSError as error:
        raise BadSetting(f"{path} cannot be read ({error.strerror}): expected a readable file, or none.") from error


def _row_of(name: str, source: str) -> Setting:
    if name in _BY_NAME:
        return _BY_NAME[name]
    near = difflib.get_close_matches(name, _BY_NAME, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}?" if near else f"The settings are {', '.join(_BY_NAME)}."
    raise BadSetting(f"Unknown setting {name!r} in {source}. {hint}")


def _checked(row: Setting, value: object, source: str, *, from_text: bool) -> Value:
    try:
        typed = _from_text(row, str(value)) if from_text else _typed(row, value)
    except ValueError:
        typed = None
    if typed is None or not row.holds(typed):
        unit = f" ({row.unit})" if row.unit else ""
        raise BadSetting(
            f"Setting {row.name!r} in {source} is {value!r:.80}: expected a {row.kind}{unit}, {row.expectation}."
        )
    return typed


def _from_text(row: Setting, text: str) -> Value:
    if row.kind == "list":
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if row.kind == "whole number":
        return int(text)
    return float(text) if row.kind == "number" else text


def _typed(row: Setting, value: object) -> Value | None:
    """The value if it has the row's type (a whole number counts as a number; true and false count as nothing)."""
    if isinstance(value, bool):
        return None
    if row.kind == "list":
        fits = isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)
        return tuple(value) if fits else None  # type: ignore[arg-type]  # `fits` says that it is a sequence of str
    if row.kind == "number" and isinstance(value, int | float):
        return float(value)
    kinds = {"text": str, "whole number": int}
    return value if row.kind in kinds and isinstance(value, kinds[row.kind]) else None  # type: ignore[return-value]


def _toml(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False)  # of these types, a JSON value is a TOML value
