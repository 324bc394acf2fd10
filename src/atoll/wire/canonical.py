"""Documents from outside in one canonical form: JSON, UTF-8, keys sorted, no spaces, all fields present."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec

from atoll.errors import Refused
from atoll.wire.nesting import is_shallow
from atoll.wire.reasons import Reason

MAX_DETAIL = 300  # characters of what a parser says about bytes that a stranger chose


class Document(Protocol):
    """What can be written in its canonical form."""

    def to_bytes(self) -> bytes:
        """The canonical bytes."""


Read = TypeVar("Read", bound=Document)


def read_canonical(data: bytes, limit: int, parse: Callable[[bytes], Read], reason: Reason) -> Read:
    """What `parse` makes of `data`; raises Refused(`reason`) unless that has these very bytes, at most `limit`."""
    if len(data) > limit:
        raise Refused(reason, f"{len(data)} bytes, at most {limit}")
    if not is_shallow(data):
        raise Refused(reason, "nested too deeply")
    try:
        found = parse(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(reason, str(error)[:MAX_DETAIL]) from error
    if found.to_bytes() != data:
        raise Refused(reason, "not in canonical form (sorted keys, no spaces, all fields)")
    return found
