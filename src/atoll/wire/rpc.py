"""Requests and responses of the storage and transfer protocols: how they are framed, limited, and refused.

A request is the msgpack array `[number, fields...]` of at most 15 elements; the number, 1..127, names the message and
is never reused. A response is `[0, body]` when the request was carried out and `[reason, detail]` when it was
refused, `reason` being a number of `atoll.wire.reasons` and `detail` a sentence. One request and one response travel
on one stream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from atoll.errors import Refused
from atoll.wire.hashing import HASH_BYTES
from atoll.wire.reasons import Reason

MAX_DETAIL = 500  # characters of a refusal's sentence

Hash = Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
"""A field that holds an id or a root."""
Ask = Callable[[bytes, bytes, bytes], Awaitable[bytes]]
"""How a client reaches a peer: (account, alpn, request bytes) -> response bytes; raises Unreachable or Refused."""

_Kind = TypeVar("_Kind")


class Request(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of every request: an array whose first element is the number, given as `tag=`."""


class Handler(NamedTuple):
    """What answers one message: the struct that its bytes must fit, and the function from it to the response's body."""

    message: type[Request]
    answer: Callable[[Any], bytes]


def handlers(*entries: tuple[type[Request], Callable[[Any], bytes]]) -> dict[int, Handler]:
    """The table that `dispatch` reads, keyed by each message's number."""
    return {number_of(message): Handler(message, answer) for message, answer in entries}


def number_of(message: type[Request]) -> int:
    """The number of a message: the integer tag of its struct."""
    tag = message.__struct_config__.tag
    if not isinstance(tag, int) or not 0 < tag < 128:
        raise TypeError(f"{message.__name__} has no number: expected tag=1..127")
    return tag


def encode_body(value: object) -> bytes:
    """msgpack bytes of a request or of a response's body."""
    return msgspec.msgpack.encode(value)


def decode_body(kind: type[_Kind], data: bytes) -> _Kind:
    """The value of type `kind` in these bytes; raises Refused(MALFORMED)."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise Refused(Reason.MALFORMED, f"expected {getattr(kind, '__name__', kind)}: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(Reason.MALFORMED, "not one well-formed msgpack value") from error


def encode_ok(body: bytes) -> bytes:
    """The response to a request that was carried out."""
    return msgspec.msgpack.encode((0, body))


def encode_refusal(reason: int, detail: str = "") -> bytes:
    """The response to a request that was refused; `reason` is 1..65535."""
    if not 0 < reason < 65536:
        raise ValueError(f"a refusal's reason is 1..65535, not {reason}")
    return msgspec.msgpack.encode((int(reason), detail[:MAX_DETAIL]))


def decode_response(data: bytes) -> bytes:
    """The body of a response; raises Refused with the peer's reason, or Refused(MALFORMED) when it is no response."""
    status, rest = decode_body(tuple[int, msgspec.Raw], data)
    if status == 0:
        return decode_body(bytes, bytes(rest))
    if not 0 < status < 65536:
        raise Refused(Reason.MALFORMED, "the status of a response is 0..65535")
    detail = decode_body(str, bytes(rest))
    raise Refused(_reason(status), _printable(detail))


def dispatch(table: Mapping[int, Handler], payload: bytes, max_bytes: int) -> bytes:
    """The response to `payload` by the handler that its number names; a Refused in the handler becomes a refusal.

    Refuses TOO_LARGE above `max_bytes`, UNKNOWN_MESSAGE for a number that has no handler, MALFORMED for bytes that do
    not fit the message. Other errors are ours and pass through.
    """
    try:
        if len(payload) > max_bytes:
            raise Refused(Reason.TOO_LARGE, f"{len(payload)} bytes, expected at most {max_bytes}")
        number = leading_number(payload)
        if number is None:
            raise Refused(Reason.MALFORMED, "expected an array that begins with the message's number")
        handler = table.get(number)
        if handler is None:
            raise Refused(Reason.UNKNOWN_MESSAGE, f"message {number}, expected one of {sorted(table)}")
        return encode_ok(handler.answer(decode_body(handler.message, payload)))
    except Refused as refusal:
        return encode_refusal(refusal.reason, refusal.detail)


def leading_number(data: bytes) -> int | None:
    """The first element of a msgpack array of 1..15 elements, if it is an integer of 0..127; else None.

    Read off the first two bytes, so that a hostile message of a million elements costs nothing.
    """
    if len(data) < 2 or not 0x91 <= data[0] <= 0x9F or data[1] > 0x7F:
        return None
    return data[1]


def _reason(status: int) -> int:
    # A newer peer may know reasons that we do not: their number is kept as it is.
    return Reason(status) if status in Reason._value2member_map_ else status


def _printable(detail: str) -> str:
    # A peer's sentence ends up on a terminal: control characters could rewrite what stands there.
    return "".join(mark if mark.isprintable() else " " for mark in detail[:MAX_DETAIL])
