"""The depth check that stands before every JSON parser."""

from __future__ import annotations

import pytest

from atoll.wire.nesting import is_shallow

SHALLOW = [b"[" * 64 + b"]" * 64, b'{"a":[1,2,{"b":"[[[["}]}', b'"\\"[[["', b'["' + b"[" * 500 + b'"]']


@pytest.mark.parametrize("text", SHALLOW)
def test_shallow(text: bytes) -> None:
    assert is_shallow(text)


@pytest.mark.parametrize("text", [b"[" * 65, b"[" * 100_000, b'{"a":' * 65, b'["]]]]",' * 65, b'["\\"]]",' * 65])
def test_deep(text: bytes) -> None:
    assert not is_shallow(text)


def test_a_string_without_an_end_is_read_once() -> None:
    """Each escaped quote could begin another search for the end: a megabyte of them would take hours."""
    for end in (b"", b"\\", b"\\\n"):
        assert is_shallow(b'"' + b'\\"' * 500_000 + end)
