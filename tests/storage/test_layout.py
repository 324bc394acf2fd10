from __future__ import annotations

import json
import random
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import Refused
from atoll.storage import layout as layouts
from atoll.storage.layout import Layout, choose_code, encode, join, parse, split
from atoll.wire.hashing import blob_id
from atoll.wire.reasons import Reason

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "storage.json").read_text())
MIB = 1 << 20


def accounts(count: int) -> tuple[bytes, ...]:
    return tuple(index.to_bytes(20, "big") for index in range(1, count + 1))


def refused(reason: Reason, data: bytes) -> str:
    with pytest.raises(Refused) as refusal:
        parse(data)
    assert refusal.value.reason == reason
    return refusal.value.detail


# Splitting and joining.
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1000])
@pytest.mark.parametrize(("k", "n"), [(1, 1), (1, 2), (2, 3), (4, 6)])
def test_any_k_pieces_bring_the_blob_back(size: int, k: int, n: int) -> None:
    blob = random.Random(size).randbytes(size)
    layout, pieces = split(blob, k, n)
    assert len(pieces) == n
    for kept in combinations(range(n), k):
        assert join(layout, {index: pieces[index] for index in kept}) == blob


def test_piece_ids_sizes_and_padding() -> None:
    layout, pieces = split(b"abcdefghij", 4, 6)  # ceil(10 / 4) = 3
    assert pieces[:4] == [b"abc", b"def", b"ghi", b"j\0\0"]
    assert (layout.schema, layout.size, layout.k, layout.n, layout.piece_size) == (1, 10, 4, 6, 3)
    assert layout.blob == blob_id(b"abcdefghij")
    assert layout.pieces == tuple(blob_id(piece) for piece in pieces)
    assert layout.holders == ()


def test_a_large_blob_has_several_segments() -> None:
    blob = random.Random(5).randbytes(2 * 2 * MIB + 5)  # two full segments of 2 MiB, and five bytes
    layout, pieces = split(blob, 2, 3)
    assert (layout.segments, layout.piece_size) == (3, MIB)
    assert [len(piece) for piece in pieces] == [MIB] * 6 + [3] * 3
    assert pieces[0] == blob[:MIB] and pieces[4] == blob[3 * MIB : 4 * MIB] and pieces[7] == blob[-2:] + b"\0"
    # Each segment may lose another piece.
    assert join(layout, {index: piece for index, piece in enumerate(pieces) if index not in (0, 4, 8)}) == blob
    with pytest.raises(Refused, match="1 of the 2 pieces that segment 2 of 3 needs"):
        join(layout, {index: piece for index, piece in enumerate(pieces) if index not in (3, 5)})


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_damaged_pieces_are_ignored(data: st.DataObject) -> None:
    blob = data.draw(st.binary(min_size=1, max_size=500))
    n = data.draw(st.integers(2, 9))
    k = data.draw(st.integers(1, n - 1))
    layout, pieces = split(blob, k, n)
    damaged = data.draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=n - k))
    received = dict(enumerate(pieces))
    for index in damaged:
        at = data.draw(st.integers(0, len(pieces[index]) - 1))
        received[index] = bytes(value ^ (at == place) for place, value in enumerate(pieces[index]))
    assert join(layout, received) == blob


def test_too_many_damaged_pieces_are_counted() -> None:
    layout, pieces = split(b"hello world", 2, 3)
    with pytest.raises(Refused, match="1 of the 2 pieces") as refusal:
        join(layout, {0: pieces[0], 1: b"xxxxxx", 2: pieces[2][:-1]})
    assert refusal.value.reason == Reason.NOT_FOUND


def test_a_false_layout_does_not_pass_for_the_blob() -> None:
    layout, pieces = split(b"a lie of the same size", 2, 3)
    false = msgspec.structs.replace(layout, blob=blob_id(b"the truth we asked for"))
    with pytest.raises(Refused) as refusal:
        join(false, dict(enumerate(pieces)))
    assert refusal.value.reason == Reason.WRONG_HASH


def test_pieces_outside_the_layout_do_no_harm() -> None:
    layout, pieces = split(b"hello world", 2, 3)
    assert join(layout, {**dict(enumerate(pieces)), 99: b"x", -1: b"y"}) == b"hello world"


def test_limits_of_split() -> None:
    with pytest.raises(Refused) as refusal:
        split(bytes(200 * MIB), 1, 60)  # 200 segments of 60 pieces
    assert refusal.value.reason == Reason.TOO_LARGE
    assert "12000 pieces, at most 8192" in refusal.value.detail


def test_every_code_of_choose_code_can_cut_the_largest_blob() -> None:
    for nodes in range(1, 20):
        k, n = choose_code(nodes)
        segments = -(-layouts.MAX_BLOB_BYTES // (k * layouts.MAX_PIECE_BYTES))
        assert segments * n <= layouts.MAX_PIECES, (k, n)


# Choosing the code.
def test_codes_by_number_of_nodes() -> None:
    assert [choose_code(nodes) for nodes in range(1, 18)] == [
        (1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (4, 6), (4, 7), (5, 8), (6, 9), (6, 10),
        (7, 11), (8, 12), (8, 13), (9, 14), (10, 15), (10, 16), (10, 16),
    ]  # fmt: skip
    assert choose_code(5000) == (10, 16)


def test_a_code_needs_a_node() -> None:
    with pytest.raises(ValueError, match="at least one node"):
        choose_code(0)


# The record.
@pytest.mark.parametrize("case", VECTORS["layout"], ids=lambda case: f"{case['k']}/{case['n']}")
def test_golden_layouts(case: dict[str, Any]) -> None:
    layout, pieces = split(bytes.fromhex(case["blob"]), case["k"], case["n"])
    assert [piece.hex() for piece in pieces] == case["pieces"]
    layout = layout.with_holders(tuple(bytes.fromhex(holder) for holder in case["holders"]))
    assert encode(layout).hex() == case["encoded"]
    assert layout.id.hex() == case["id"]
    assert parse(bytes.fromhex(case["encoded"])) == layout


def test_a_layout_travels_unchanged() -> None:
    layout = split(b"x" * 1000, 4, 6)[0].with_holders(accounts(6))
    assert parse(encode(layout)) == layout
    assert layout.holder_of(5) == accounts(6)[5]


def test_the_id_does_not_depend_on_the_holders() -> None:
    bare = split(b"x" * 1000, 4, 6)[0]
    assert bare.id == bare.with_holders(accounts(6)).id
    assert bare.id != split(b"x" * 1000, 3, 6)[0].id


def test_the_largest_layout_is_within_its_limit() -> None:
    n, segments = 16, layouts.MAX_PIECES // 16
    size = segments * 10 * MIB
    assert size > layouts.MAX_BLOB_BYTES  # so no layout has as many pieces, and the bound holds for all
    large = Layout(1, bytes(32), size, 10, n, MIB, (bytes(32),) * (segments * n), accounts(255))
    assert len(encode(large)) <= layouts.MAX_LAYOUT_BYTES


def changed(**fields: object) -> bytes:
    good = split(b"x" * 1000, 2, 3)[0].with_holders(accounts(3))
    return encode(msgspec.structs.replace(good, **fields))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": -1}, "0..1073741824"),
        ({"size": layouts.MAX_BLOB_BYTES + 1}, "0..1073741824"),
        ({"k": 0}, "1 <= k"),
        ({"k": 4}, "1 <= k"),
        ({"n": 256}, "1 <= k"),
        ({"piece_size": 501}, "ceil"),
        ({"piece_size": 0}, "ceil"),
        ({"size": 1001}, "ceil"),
        ({"pieces": (bytes(32),) * 2}, "n piece ids"),
        ({"pieces": (bytes(32),) * 6}, "n piece ids"),
        ({"pieces": (bytes(31),) * 3}, "32 bytes"),
        ({"blob": bytes(33)}, "32 bytes"),
        ({"holders": accounts(2)}, "n holders"),
        ({"holders": (bytes(19),) * 3}, "20 bytes"),
        ({"holders": accounts(2) + accounts(1)}, "twice"),
    ],
)
def test_odd_layouts_are_refused(fields: dict[str, object], words: str) -> None:
    assert words in refused(Reason.MALFORMED, changed(**fields))


def test_several_pieces_may_be_unheld() -> None:
    layout = parse(changed(holders=(layouts.UNHELD, *accounts(1), layouts.UNHELD)))
    assert layout.holder_of(0) == layouts.UNHELD


def test_other_schemas_are_refused_as_such() -> None:
    refused(Reason.BAD_VERSION, changed(schema=2))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x90",
        b"\xc0",
        b"\x98\x01",
        encode(split(b"x", 1, 1)[0]) + b"\0",
        msgspec.json.encode([1]),
        b"\x91" * 9999,
    ],
)
def test_what_is_no_layout_is_refused(data: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        parse(data)
    assert refusal.value.reason in (Reason.MALFORMED, Reason.BAD_VERSION)


def test_more_fields_or_longer_forms_are_refused() -> None:
    good = encode(split(b"x" * 1000, 2, 3)[0])
    assert good[0] == 0x98 and good[1] == 1
    refused(Reason.MALFORMED, b"\x99" + good[1:] + b"\xc0")  # a ninth field
    at = good.index(b"\xcd\x03\xe8")  # 1000 as uint16
    assert "shortest" in refused(Reason.MALFORMED, good[:at] + b"\xce\0\0\x03\xe8" + good[at + 3 :])
    assert "at most" in refused(Reason.TOO_LARGE, bytes(layouts.MAX_LAYOUT_BYTES + 1))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_refusals(data: bytes) -> None:
    with pytest.raises(Refused):
        parse(data)


@settings(deadline=None, max_examples=200)
@given(at=st.integers(0, 240), value=st.integers(0, 255))
def test_one_changed_byte_never_breaks_the_parser(at: int, value: int) -> None:
    data = bytearray(changed())
    data[at % len(data)] = value
    try:
        assert encode(parse(bytes(data))) == bytes(data)
    except Refused as refusal:
        assert refusal.reason in (Reason.MALFORMED, Reason.BAD_VERSION)
