from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from atoll.errors import Corrupt, Refused
from atoll.storage.layout import Layout, encode, split
from atoll.storage.pieces import MAX_LAYOUTS_PER_BLOB, PieceStore
from atoll.wire.hashing import blob_id
from atoll.wire.reasons import Reason


def opened(folder: Path, limit: int = 100_000) -> PieceStore:
    return PieceStore(folder, limit, sync=False)


def layout_of(blob: bytes, k: int = 2, n: int = 3, first: int = 1) -> Layout:
    holders = tuple(number.to_bytes(20, "big") for number in range(first, first + n))
    return split(blob, k, n)[0].with_holders(holders)


def test_pieces_outlive_the_process(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.put(blob_id(b"piece"), b"piece")
    for again in (store, opened(tmp_path)):
        assert again.get(blob_id(b"piece")) == b"piece"
        assert again.has([blob_id(b"piece"), bytes(32)]) == [True, False]
        assert again.total_bytes == 5


def test_a_piece_under_a_false_id_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.put(blob_id(b"there"), b"there")
    for claimed in (blob_id(b"other"), blob_id(b"there")):
        with pytest.raises(Refused) as refusal:
            store.put(claimed, b"bytes")
        assert refusal.value.reason == Reason.WRONG_HASH


def test_a_damaged_piece_is_kept_aside(tmp_path: Path) -> None:
    store = opened(tmp_path)
    piece = blob_id(b"piece")
    store.put(piece, b"piece")
    store.path(piece).write_bytes(b"piecE")
    with pytest.raises(Corrupt, match="run `atoll get`"):
        store.get(piece)
    assert (tmp_path / "damaged" / piece.hex()).read_bytes() == b"piecE"
    assert store.has([piece]) == [False]
    store.put(piece, b"piece")
    assert store.get(piece) == b"piece"


def test_layouts_outlive_the_process(tmp_path: Path) -> None:
    layout = layout_of(b"blob")
    store = opened(tmp_path)
    store.put_layout(layout)
    for again in (store, opened(tmp_path)):
        assert again.get_layouts(layout.blob) == [layout]
        assert again.layout(layout.id) == layout
        assert again.blobs() == [layout.blob]


def test_new_holders_replace_old_ones(tmp_path: Path) -> None:
    old, new = layout_of(b"blob", first=1), layout_of(b"blob", first=50)
    store = opened(tmp_path)
    for layout in (old, new, new):
        store.put_layout(layout)
    for again in (store, opened(tmp_path)):
        assert again.get_layouts(old.blob) == [new]
        assert again.total_bytes == len(encode(new))


def test_contradicting_layouts_are_kept_up_to_a_limit(tmp_path: Path) -> None:
    store = opened(tmp_path)
    good = layout_of(b"blob")
    false = [
        msgspec.structs.replace(layout_of(f"lie {number}".encode()), blob=good.blob, size=good.size, piece_size=2)
        for number in range(MAX_LAYOUTS_PER_BLOB)
    ]
    store.put_layout(good)
    for layout in false[:-1]:
        store.put_layout(layout)
    with pytest.raises(Refused) as refusal:
        store.put_layout(false[-1])
    assert refusal.value.reason == Reason.BUSY
    assert store.get_layouts(good.blob) == [good, *false[:-1]]
    store.put_layout(layout_of(b"blob", first=9))  # a known content may still move


def test_pieces_and_layouts_share_one_limit(tmp_path: Path) -> None:
    layout = layout_of(b"blob")
    size = len(encode(layout))
    store = opened(tmp_path, limit=size + 10)
    store.put_layout(layout)
    store.put(blob_id(b"0123456789"), b"0123456789")
    with pytest.raises(Refused, match="1 bytes, room for 0") as refusal:
        store.put(blob_id(b"x"), b"x")
    assert refusal.value.reason == Reason.BUSY
    store.put(blob_id(b"0123456789"), b"0123456789")  # is there already
    with pytest.raises(Refused):
        store.put_layout(layout_of(b"another"))
    assert store.delete(blob_id(b"0123456789"))
    store.put(blob_id(b"x"), b"x")


def test_what_is_not_there(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for attempt in (store.get, store.layout, store.get_layouts):
        with pytest.raises(Refused) as refusal:
            attempt(bytes(32))
        assert refusal.value.reason == Reason.NOT_FOUND
    assert not store.delete(bytes(32))


def test_a_damaged_layout_is_reported_and_the_others_load(tmp_path: Path) -> None:
    good, bad = layout_of(b"good"), layout_of(b"bad")
    store = opened(tmp_path)
    store.put_layout(good)
    store.put_layout(bad)
    name = blob_id(encode(bad))
    (tmp_path / "layouts" / name.hex()[:2] / name.hex()).write_bytes(b"\0" + encode(bad)[1:])
    again = opened(tmp_path)
    assert [type(damage) for damage in again.damaged] == [Corrupt]
    assert again.blobs() == [good.blob]
    again.put_layout(bad)
    assert again.get_layouts(bad.blob) == [bad]


def test_a_layout_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    data = encode(msgspec.structs.replace(layout_of(b"blob"), schema=2))
    path = tmp_path / "layouts" / blob_id(data).hex()[:2] / blob_id(data).hex()
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    store = opened(tmp_path)
    assert store.blobs() == [] and store.damaged == [] and path.exists()
