"""Hashes against an independent implementation (tests/vectors/make_wire.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atoll.wire.hashing import ZERO_HASH, Domain, Tag, blob_id, keccak, tagged, u32

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "wire.json").read_text())


@pytest.mark.parametrize("case", VECTORS["keccak"], ids=lambda case: f"{len(case['data']) // 2} bytes")
def test_keccak(case: dict[str, str]) -> None:
    assert keccak(bytes.fromhex(case["data"])).hex() == case["hash"]


@pytest.mark.parametrize("case", VECTORS["blake3"], ids=lambda case: f"{len(case['data']) // 2} bytes")
def test_blob_id(case: dict[str, str]) -> None:
    data = bytes.fromhex(case["data"])
    assert blob_id(data).hex() == case["hash"]
    assert blob_id(bytearray(data)) == blob_id(memoryview(data)) == blob_id(data)


def test_published_digests() -> None:
    # The empty string: Ethereum's well-known empty code hash, and the first of BLAKE3's official test vectors.
    assert keccak(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert blob_id(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@pytest.mark.parametrize("case", VECTORS["tagged"], ids=lambda case: "|".join(case["parts"])[:20])
def test_tagged(case: dict[str, list[str]]) -> None:
    assert tagged(Tag.UNIT, *map(bytes.fromhex, case["parts"])).hex() == case["hash"]


def test_tagged_inputs_never_collide() -> None:
    inputs = [(), (b"",), (b"", b""), (b"ab", b"c"), (b"a", b"bc"), (b"abc",)]
    hashes = {tagged(tag, *parts) for tag in Tag for parts in inputs}
    assert len(hashes) == len(Tag) * len(inputs)


def test_tags_are_versioned_and_distinct() -> None:
    assert all(tag.value.startswith("atoll/") and tag.value.rpartition("/")[2].isdigit() for tag in Tag)
    assert len({tag.value for tag in Tag}) == len(Tag)


def test_domain_and_counters() -> None:
    encoded = Domain(31337, bytes(range(20))).encode()
    assert encoded.hex() == "00" * 30 + "7a69" + "000102030405060708090a0b0c0d0e0f10111213"
    assert u32(258) == b"\x00\x00\x01\x02"
    assert ZERO_HASH == b"\0" * 32
    with pytest.raises(OverflowError):
        u32(1 << 32)
