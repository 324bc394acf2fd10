"""Documents in canonical form: these very bytes, or a refusal of bounded length."""

from __future__ import annotations

import msgspec
import pytest

from atoll.errors import Refused
from atoll.wire.canonical import MAX_DETAIL, read_canonical
from atoll.wire.reasons import Reason


class Pair(msgspec.Struct, forbid_unknown_fields=True):
    b: int
    a: int = 1

    def to_bytes(self) -> bytes:
        return msgspec.json.encode(self, order="sorted")


def read(data: bytes) -> Pair:
    return read_canonical(data, 5_000, msgspec.json.Decoder(Pair).decode, Reason.MALFORMED)


def test_canonical_bytes_are_read() -> None:
    found = read(b'{"a":1,"b":2}')
    assert (found.a, found.b) == (1, 2)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"b":2,"a":1}', "canonical"),
        (b'{"a":1, "b":2}', "canonical"),
        (b'{"b":2}', "canonical"),  # all fields are written, those with a default too
        (b"[" * 65 + b"]" * 65, "deeply"),
        (b" " * 5_001, "5001 bytes"),
        (b"\xff", "JSON"),
        (b'{"' + b"x" * 4_000 + b'":1}', "unknown field"),
    ],
)
def test_all_else_is_refused_in_a_few_words(data: bytes, told: str) -> None:
    with pytest.raises(Refused, match=told) as caught:
        read(data)
    assert caught.value.reason == Reason.MALFORMED
    assert len(caught.value.detail) <= MAX_DETAIL
