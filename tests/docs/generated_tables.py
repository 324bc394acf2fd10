"""The tables in the docs that follow from the code. `python -m tests.docs.generated_tables` writes them again.

A document holds `<!-- table: NAME -->`, the table, `<!-- end -->`. `test_docs.py` compares every table with what is
made here, so nothing can be added, changed or removed in the code without its documentation.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
import msgspec.inspect as inspected
import typer.main

from atoll import config, errors
from atoll.cli.main import app
from atoll.graph import check, manifest, spec
from atoll.inference import messages as inference
from atoll.ledger import abi, receipts
from atoll.ledger.devnet import network as devnet
from atoll.node import courier, desk, server, settler, transport
from atoll.node.answers import counter
from atoll.node.job import AHEAD, HISTORY_BATCH, KEPT_MESSAGES, Terms
from atoll.storage import messages as storage
from atoll.training import audit, ballot, committee, context, deterrence
from atoll.transfer import messages as transfer
from atoll.wire import eip712, hashing, messages, reasons, rpc
from tests.docs import contract_tables
from tests.docs.markdown import code, first_sentence, table

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src" / "atoll"
BLOCK = re.compile(r"(<!-- table: ([a-z0-9-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def documents() -> list[Path]:
    """Every document of the project."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def comments(owner: object) -> dict[str, str]:
    """name -> the comment behind it, for the lines of a class body."""
    found = re.findall(r"^ +(\w+)\b[^#\n]*#\s*(.+)$", inspect.getsource(owner), re.MULTILINE)  # type: ignore[arg-type]
    return {name: " ".join(text.split()) for name, text in found}


def size(count: int) -> str:
    """Bytes as people read them: whole KiB or MiB where they are whole."""
    if count >= 1 << 20 and count % (1 << 20) == 0:
        return f"{count >> 20} MiB"
    if count >= 1 << 10 and count % (1 << 10) == 0:
        return f"{count >> 10} KiB"
    return f"{count:,} bytes"


# -- wire ------------------------------------------------------------------------------------------------------------
def tags() -> str:
    said = comments(hashing.Tag)
    text = "".join(path.read_text("utf-8") for path in SOURCES.rglob("*.py"))
    used = {name: f"Tag.{name}" in text for name in hashing.Tag.__members__}
    rows = (
        (code(tag.name), code(tag.value), said[tag.name] + ("" if used[tag.name] else " (reserved)"))
        for tag in hashing.Tag
    )
    return table("tag | bytes | what it is for", rows)


def reason_codes() -> str:
    return table("number | name | sentence", ((int(one), code(one.name), one.sentence) for one in reasons.Reason))


def bounds(low: Any, high: Any, unit: str = "") -> str:
    low, high = low or 0, "" if high is None else f"{high:,}"
    span = high if str(low) == high else f"{low:,} to {high}" if high else f"{low:,} or more"
    return f"{span} {unit}".strip()


_WORDS = {
    inspected.StrType: "text",
    inspected.BoolType: "true or false",
    inspected.FloatType: "number",
}


def form(kind: inspected.Type) -> str:
    """A field's type in words."""
    match kind:
        case inspected.Metadata():
            return form(kind.type)
        case inspected.BytesType():
            limited = kind.min_length is not None or kind.max_length is not None
            return bounds(kind.min_length, kind.max_length, "bytes") if limited else "bytes"
        case inspected.LiteralType():
            return " or ".join(code(value) for value in kind.values)
        case inspected.EnumType():
            return " or ".join(f"{int(one)}" for one in kind.cls)  # type: ignore[call-overload]
        case inspected.IntType():
            top = kind.le if kind.lt is None else kind.lt - 1
            return bounds(kind.ge, top) if kind.ge is not None or top is not None else "whole number"
        case inspected.StructType():
            return code(kind.cls.__name__)
    return _WORDS.get(type(kind)) or array_form(kind)


def array_form(kind: inspected.Type) -> str:
    """An array's type in words."""
    if isinstance(kind, inspected.TupleType):
        return "[" + ", ".join(form(one) for one in kind.item_types) + "]"
    if not isinstance(kind, inspected.VarTupleType | inspected.ListType):
        raise TypeError(f"no words for {kind}")
    limited = kind.min_length is not None or kind.max_length is not None
    count = bounds(kind.min_length, kind.max_length) + " of: " if limited else ""
    return f"array of {count}{form(kind.item_type)}"


def fields(kind: type, left_out: tuple[str, ...] = ()) -> str:
    """The fields of a msgspec struct in order, each with its form."""
    info = inspected.type_info(kind)
    listed = [f"{code(one.name)} ({form(one.type)})" for one in info.fields if one.name not in left_out]  # type: ignore[attr-defined]
    return ", ".join(listed) or "none"


def training_messages() -> str:
    rows = (
        (number, code(kind.__name__), size(limit), fields(kind, ("job", "round")), first_sentence(kind))
        for number, (kind, limit) in messages.MESSAGES.items()
    )
    return table("number | message | limit | fields after job and round | meaning", rows)


def phases() -> str:
    rows = (
        (int(phase), code(phase.name), code(kind.__name__), fields(kind), first_sentence(kind))
        for phase, kind in committee.PAYLOADS.items()
    )
    return table("number | phase | payload | fields | meaning", rows)


def verdict_row() -> str:
    return table("struct | fields | meaning", [(code("Row"), fields(committee.Row), first_sentence(committee.Row))])


def requests(module: Any) -> Callable[[], str]:
    def made() -> str:
        kinds = [
            kind
            for _, kind in inspect.getmembers(module, inspect.isclass)
            if issubclass(kind, rpc.Request) and kind is not rpc.Request and kind.__module__ == module.__name__
        ]
        rows = ((rpc.number_of(kind), code(kind.__name__), fields(kind), first_sentence(kind)) for kind in kinds)
        return table("number | request | fields | meaning", sorted(rows))

    return made


def peer_requests() -> str:
    kinds = (server.Hello, settler.SignPost, server.Stored)
    rows = ((rpc.number_of(kind), code(kind.__name__), fields(kind), first_sentence(kind)) for kind in kinds)
    return table("number | request | fields | meaning", rows)


def alpns() -> str:
    rows = [
        (messages.ALPN, courier.MAX_REQUEST, "every node", "a batch of training messages"),
        (transfer.ALPN, transfer.MAX_REQUEST_BYTES, "every node", "blobs and samples"),
        (storage.ALPN, storage.MAX_REQUEST_BYTES, "holders", "layouts and pieces"),
        (inference.ALPN, inference.MAX_REQUEST_BYTES + 1024, "servers", "questions to a model"),
        (settler.PEER_ALPN, server.MAX_PEER_BYTES, "every node", "peer records, signatures, stored models"),
    ]
    said = ((code(alpn.decode()), size(limit), who, what) for alpn, limit, who, what in rows)
    return table("ALPN | largest request | answered by | what it carries", said)


def transport_limits() -> str:
    said = comments(transport.Limits)
    skipped = {"request_bytes", "request_bytes_of"}  # the node sets them by protocol (the table of ALPNs)
    rows = (
        (code(one.name), f"{one.default:,}", said.get(one.name, ""))
        for one in dataclasses.fields(transport.Limits)
        if one.name not in skipped
    )
    return table("limit | value | meaning", rows)


def numbers(rows: Iterable[tuple[str, Any]]) -> str:
    return table("what | value", ((name, f"{value:,}" if isinstance(value, int) else value) for name, value in rows))


# -- the round -------------------------------------------------------------------------------------------------------
def round_numbers() -> str:
    terms = {one.name: one.default for one in dataclasses.fields(Terms)}
    limit = re.search(r"MAX_COMMITTEE = (\d+)", (SOURCES / "contracts" / "Jobs.sol").read_text("utf-8"))
    return numbers(
        [
            ("members of a committee that is drawn, at most", terms["committee_size"]),
            ("members of a committee that the contract accepts, at most", int(limit[1]) if limit else 0),
            ("replicas of a disputed unit, at most", audit.REPLICAS),
            ("views ahead that are listened to", ballot.FUTURE_VIEWS),
            ("rounds ahead of which messages are kept", AHEAD),
            ("messages that are kept of one account that is ahead", KEPT_MESSAGES),
            ("accounts of a roster, at most", context.MAX_ROSTER),
            ("certificates in answer to one `HistoryAsk`", HISTORY_BATCH),
            ("detection, in parts per 10,000", terms["detection"]),
            ("stake at which an account reaches the floor, in unit prices", deterrence.STAKE_UNITS),
        ]
    )


def timing() -> str:
    said = comments(context.Timing)
    rows = ((code(one.name), f"{one.default:g}", said[one.name]) for one in dataclasses.fields(context.Timing))
    return table("limit | seconds | what for", rows)


def roles() -> str:
    flags = {
        "worker": context.WORKER,
        "validator": context.VALIDATOR,
        "holder": context.HOLDER,
        "server": context.SERVER,
        "gateway": context.GATEWAY,
    }
    if tuple(flags) != config.ROLES:
        raise ValueError("the roles of the settings have changed")
    duties = {
        "worker": "trains units, audits those of others, re-runs disputed ones",
        "validator": "sits in committees, signs epochs, posts",
        "holder": "keeps pieces of blobs",
        "server": "answers questions to models",
        "gateway": "shows the network and lets browsers in; follows every job without taking part",
    }
    rows = [(flag, code(name), duties[name]) for name, flag in flags.items()]
    light = (context.LIGHT, "`light`", "beside `worker`: takes units of one segment, for a share of the price")
    return table("flag | role | duty", [*rows, light, (64, "`relay`", "reserved"), (128, "`exit`", "reserved")])


# -- money and the chain ---------------------------------------------------------------------------------------------
def kinds() -> str:
    rows = (
        (int(kind), code(kind.name), kind.label, "paid" if kind in receipts.PAID_KINDS else "reserved")
        for kind in receipts.Kind
    )
    return table("number | kind | for | in this version", rows)


def typed() -> str:
    checked = {"Certificate": "Jobs", "Receipt": "Settlement", "Post": "Settlement", "Permit": "Token"}
    checked |= {"Registration": "Registry", "Enlist": "Jobs", "Voucher": "Deposits"}
    structs = [one for _, one in inspect.getmembers(eip712) if isinstance(one, eip712.Struct)]
    rows = ((code(one.signature), code(checked[one.name])) for one in structs)
    return table("type | verifying contract", sorted(rows))


def devnet_terms() -> str:
    said = comments(devnet.Terms)
    rows = (
        (code(one.name), _amount(one.name, one.default), said.get(one.name, ""))
        for one in dataclasses.fields(devnet.Terms)
    )
    return table("term | value | note", rows)


def _amount(name: str, value: int) -> str:
    if value < 10**15:
        return f"{value:,}"
    return f"{value // 10**18:,} " + ("coin" if name.endswith("_wei") else receipts.TOKEN)


# -- jobs ------------------------------------------------------------------------------------------------------------
def manifest_fields() -> str:
    rows = []
    for kind in (
        manifest.Manifest,
        spec.Tensor,
        spec.Input,
        spec.Target,
        spec.Output,
        spec.Hyper,
        spec.Update,
        manifest.Data,
        manifest.Policy,
        manifest.Ratio,
    ):
        for one in inspected.type_info(kind).fields:  # type: ignore[attr-defined]
            default = "" if one.default is msgspec.NODEFAULT else code(_plain(one.default))
            rows.append((code(kind.__name__), code(one.encode_name), form(one.type), default))
    return table("struct | field | form | default", rows)


def _plain(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def allowed_ops() -> str:
    return " ".join(code(name) for name in sorted(check.ALLOWED)) + "\n"


def gate_limits() -> str:
    limits = check.Limits()
    rows = ((code(one.name), f"{getattr(limits, one.name):,}") for one in dataclasses.fields(limits))
    return table("limit | default", rows)


# -- the program -----------------------------------------------------------------------------------------------------
def settings() -> str:
    rows = ((code(name), code(default), unit, said) for name, default, unit, said in config.rows())
    return table("setting | default | unit | what it is", rows)


_FAULT = {
    "UserError": "you",
    "PeerError": "a peer",
    "ChainError": "the chain",
    "MachineError": "this device",
    "InternalError": "Atoll",
}


def error_classes() -> list[type[errors.AtollError]]:
    """All error classes, in the order of the file."""
    found = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, errors.AtollError)]
    return sorted(found, key=lambda one: inspect.getsourcelines(one)[1])


def fault(kind: type[errors.AtollError]) -> str:
    """Who is at fault: the branch of the tree that a class belongs to."""
    names = [one.__name__ for one in kind.__mro__]
    return next((who for name, who in _FAULT.items() if name in names), "-")


def error_table() -> str:
    rows = (
        (code(one.__name__), code(one.code), one.exit_code, fault(one), first_sentence(one)) for one in error_classes()
    )
    return table("class | code | exit code | at fault | meaning", rows)


def commands() -> str:
    parts = []
    for words, command in _walk("atoll", typer.main.get_command(app)):
        if hasattr(command, "commands"):
            continue
        rows = [(code(_usage(one)), _meaning(one)) for one in command.params if _shown(one)]
        parts.append(f"### `{words}`\n\n{first_paragraph(command.help)}\n\n{table('argument | meaning', rows)}")
    return "\n".join(parts)


def first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def _walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _walk(f"{words} {name}", inner)


def _shown(parameter: Any) -> bool:
    return not getattr(parameter, "hidden", False) and parameter.name != "help"


def _usage(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.rstrip("_").upper())
    value = "" if parameter.is_flag else " " + (parameter.metavar or _placeholder(parameter.default))
    return ", ".join(parameter.opts) + value


def _placeholder(default: Any) -> str:
    """What stands for an option's value: its choices, or a word for its type."""
    if isinstance(default, Enum):
        return "|".join(str(one.value) for one in type(default))
    return "NUMBER" if isinstance(default, int) else "TEXT"


def _meaning(parameter: Any) -> str:
    said = (getattr(parameter, "help", None) or "").strip()
    default = parameter.default
    if default in (None, False, "") or parameter.required or "efault" in said:
        return said
    return f"{said} Default: {getattr(default, 'value', default)}."


def control_methods() -> str:
    rows = []
    for owner in (desk.Desk, counter.Counter):
        names = re.findall(r'"(\w+)": self\.(\w+)', inspect.getsource(owner.handlers))
        rows += [(code(name), first_sentence(getattr(owner, method))) for name, method in names]
    rows.append((code("watch"), "Not in use: answers null, then one line for each object that the node publishes."))
    return table("method | what it does", rows)


TABLES: dict[str, Callable[[], str]] = {
    "tags": tags,
    "reasons": reason_codes,
    "training-messages": training_messages,
    "phases": phases,
    "verdict-row": verdict_row,
    "transfer-requests": requests(transfer),
    "storage-requests": requests(storage),
    "inference-requests": requests(inference),
    "peer-requests": peer_requests,
    "alpns": alpns,
    "transport-limits": transport_limits,
    "round-numbers": round_numbers,
    "timing": timing,
    "roles": roles,
    "receipt-kinds": kinds,
    "typed-data": typed,
    **{f"functions-{name.lower()}": contract_tables.functions(name) for name in abi.CONTRACTS},
    "contract-structs": contract_tables.structs,
    "events": contract_tables.events,
    "contract-errors": contract_tables.errors,
    "devnet-terms": devnet_terms,
    "manifest": manifest_fields,
    "allowed-ops": allowed_ops,
    "gate-limits": gate_limits,
    "settings": settings,
    "errors": error_table,
    "commands": commands,
    "control-methods": control_methods,
}


def main() -> None:
    """Write every table again."""
    for path in documents():
        text = path.read_text("utf-8")
        made = BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[4]}", text)
        if made != text:
            path.write_text(made, "utf-8")


if __name__ == "__main__":
    main()
