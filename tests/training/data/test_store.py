"""The store of fetched samples: what was written, damaged, moved or never there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atoll.errors import InternalError, Refused
from atoll.training.data import DataSet, Form, SampleStore
from atoll.wire.reasons import Reason
from tests.training.data.sets import small


def _store(folder: Path, data: DataSet) -> SampleStore:
    return SampleStore(folder, data.root, len(data), data.form)


def test_what_was_put_is_gathered_in_the_order_asked_for(tmp_path: Path) -> None:
    data = small(9)
    store = _store(tmp_path / "new" / "folder", data)
    assert store.missing([8, 1, 1, 3]) == [1, 3, 8]
    for index in (1, 3, 8):
        store.put(index, data.sample(index), data.prove(index))
    assert store.missing([8, 1, 3, 2]) == [2]
    images, labels = store.gather([3, 8, 1, 3])
    assert np.array_equal(images, data.x[[3, 8, 1, 3]])
    assert np.array_equal(labels, data.y[[3, 8, 1, 3]])
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)


def test_samples_survive_in_the_file(tmp_path: Path) -> None:
    data = small(9)
    first = _store(tmp_path, data)
    first.put(4, data.sample(4), data.prove(4))
    first.close()
    again = _store(tmp_path, data)
    assert again.missing(range(9)) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert np.array_equal(again.gather([4])[0][0], data.x[4])


def test_a_false_sample_is_refused_and_not_kept(tmp_path: Path) -> None:
    data = small(9)
    store = _store(tmp_path, data)
    with pytest.raises(Refused) as refusal:
        store.put(4, data.sample(5), data.prove(4))
    assert refusal.value.reason == Reason.BAD_PROOF
    with pytest.raises(Refused) as refusal:
        store.put(4, data.sample(4)[:-1], data.prove(4))
    assert refusal.value.reason == Reason.MALFORMED
    assert store.missing([4]) == [4]


def test_a_sample_proven_elsewhere_is_kept_as_it_is(tmp_path: Path) -> None:
    data = small(9)
    store = _store(tmp_path, data)
    store.keep(4, data.sample(4))
    assert np.array_equal(store.gather([4])[0][0], data.x[4])
    with pytest.raises(Refused) as refusal:
        store.keep(5, data.sample(5) + b"\0")
    assert refusal.value.reason == Reason.MALFORMED


def test_a_damaged_or_moved_record_is_missing_again(tmp_path: Path) -> None:
    data = small(4)
    store = _store(tmp_path, data)
    store.fill(data)
    store.close()
    (path,) = tmp_path.iterdir()
    raw = bytearray(path.read_bytes())
    size = len(raw) // 4
    raw[size + 5] ^= 1  # a bit of record 1
    raw[3 * size :] = raw[2 * size : 3 * size]  # record 2 in the place of record 3
    path.write_bytes(raw)
    again = _store(tmp_path, data)
    assert again.missing(range(4)) == [1, 3]
    again.put(1, data.sample(1), data.prove(1))
    assert again.missing(range(4)) == [3]


@pytest.mark.parametrize("length", [0, 1, 100, 10_000])
def test_a_file_of_another_length_keeps_its_whole_records(tmp_path: Path, length: int) -> None:
    data = small(4)
    store = _store(tmp_path, data)
    store.fill(data)
    store.close()
    (path,) = tmp_path.iterdir()
    record = path.stat().st_size // 4
    path.write_bytes(path.read_bytes().ljust(length, b"\0")[:length])
    assert _store(tmp_path, data).missing(range(4)) == list(range(min(length // record, 4), 4))


def test_two_data_sets_do_not_mix(tmp_path: Path) -> None:
    first, second = small(4), small(4, seed=1)
    store = _store(tmp_path, first)
    store.fill(first)
    assert _store(tmp_path, second).missing([0]) == [0]
    with pytest.raises(Refused):
        store.fill(second)


def test_misuse_and_outsized_stores(tmp_path: Path) -> None:
    data = small(4)
    store = _store(tmp_path, data)
    with pytest.raises(InternalError, match="before they were fetched"):
        store.gather([2])
    with pytest.raises(IndexError):
        store.missing([4])
    with pytest.raises(IndexError):
        store.missing([-1])
    with pytest.raises(Refused) as refusal:
        SampleStore(tmp_path, bytes(32), 1 << 32, Form("uint8", (1 << 20,)))
    assert refusal.value.reason == Reason.TOO_LARGE
    with pytest.raises(ValueError, match="at least one"):
        SampleStore(tmp_path, bytes(32), 0, Form("uint8", (1,)))


def test_floats_and_sequences_come_back_as_they_were(tmp_path: Path) -> None:
    sets = (
        DataSet(np.array([[0.5, -1], [2, 3]], np.float32), np.array([[1.5], [2.5]], np.float32)),
        DataSet(np.array([[1, -2], [3, 4]]), np.array([[5, 6], [7, -100]])),
    )
    for data in sets:
        store = _store(tmp_path, data)
        store.fill(data)
        x, y = store.gather([1, 0])
        assert (x.dtype, y.dtype) == (data.x.dtype, data.y.dtype)
        assert np.array_equal(x, data.x[::-1])
        assert np.array_equal(y, data.y[::-1])


def test_samples_are_not_read_as_another_type(tmp_path: Path) -> None:
    data = DataSet(np.array([[2**31 - 1], [1]]), np.array([0, 1]))  # the first x is NaN, read as float32
    store = _store(tmp_path, data)
    store.fill(data)
    other = SampleStore(tmp_path, data.root, 2, Form("float32", (1,)))
    assert other.missing([0, 1]) == [0, 1]
    with pytest.raises(Refused) as refusal:
        other.put(0, data.sample(0), data.prove(0))
    assert refusal.value.reason == Reason.MALFORMED
    assert SampleStore(tmp_path, data.root, 2, Form("int64", (1, 1))).missing([0, 1]) == []  # only reshaped
