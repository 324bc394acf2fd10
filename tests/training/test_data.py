"""Data sets: IDX files good and bad, samples and proofs, the store of fetched samples, the bundled subset."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from atoll.errors import BadInput, InternalError, Refused
from atoll.training.data import (
    BUNDLED,
    DataSet,
    SampleStore,
    bundled_card,
    bundled_mnist,
    card_bytes,
    data_card,
    load_directory,
    load_idx,
    read_sample,
    verify_sample,
)
from atoll.training.mnist.make import idx, subset
from atoll.wire.reasons import Reason

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "training.json").read_text())["samples"]


def _small(count: int = 5, seed: int = 0) -> DataSet:
    generator = np.random.default_rng(seed)
    return DataSet(generator.integers(0, 256, (count, 3, 4), dtype=np.uint8), generator.integers(0, 10, count))


def _write(folder: Path, train: DataSet, test: DataSet, mark: str = "-", end: str = "") -> None:
    for name, part in (("train", train), ("t10k", test)):
        for kind, values in (("images-idx3", part.images), ("labels-idx1", part.labels)):
            raw = idx(values)
            path = folder / f"{name}-{kind}-ubyte{end}".replace("-idx", f"{mark}idx")
            path.write_bytes(gzip.compress(raw) if end else raw)


# -- samples ------------------------------------------------------------------------------------------------------
def test_vector_of_sample_bytes_and_root() -> None:
    images = np.array([list(bytes.fromhex(image)) for image in VECTOR["images"]], dtype=np.uint8).reshape(-1, 2, 2)
    data = DataSet(images, np.array(VECTOR["labels"]))
    assert data.sample(3) == bytes([3, 4, 5, 6]) + struct.pack("<I", 3)
    assert data.root.hex() == VECTOR["root"]


def test_a_sample_is_proven_at_its_own_place_only() -> None:
    data = _small()
    sample, proof = data.sample(2), data.prove(2)
    assert verify_sample(data.root, 5, 2, sample, proof)
    assert not verify_sample(data.root, 5, 3, sample, proof)
    assert not verify_sample(data.root, 6, 2, sample, proof)
    assert not verify_sample(data.root, 5, 2, sample[:-4] + b"\x0b\0\0\0", proof)  # another label
    assert not verify_sample(data.root, 5, 2, sample, proof[:-1])


def test_reading_a_sample_back() -> None:
    data = _small()
    image, label = read_sample(data.sample(4), (3, 4))
    assert np.array_equal(image, data.images[4])
    assert label == data.labels[4]
    with pytest.raises(Refused) as refusal:
        read_sample(data.sample(4) + b"\0", (3, 4))
    assert refusal.value.reason == Reason.MALFORMED


# -- files --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_both_spellings_plain_and_gzipped(tmp_path: Path, mark: str, end: str) -> None:
    _write(tmp_path, _small(7), _small(3, seed=1), mark, end)
    train, test = load_directory(tmp_path)
    assert np.array_equal(train.images, _small(7).images)
    assert np.array_equal(test.labels, _small(3, seed=1).labels)
    assert train.root == _small(7).root
    assert train.shape == (3, 4)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    _write(tmp_path, _small(), _small())
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(BadInput, match="no t10k-labels-idx1-ubyte"):
        load_directory(tmp_path)
    with pytest.raises(BadInput, match="not a directory"):
        load_directory(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "begins with nothing"),
        (b"PK\3\4....", "begins with 504b0304"),
        (bytes([0, 0, 13, 1]) + struct.pack(">I", 1) + b"\0\0\0\0", "begins with 00000d01"),  # floats
        (bytes([0, 0, 8, 3]) + struct.pack(">III", 1, 1, 1) + b"\0", "begins with 00000803"),  # images, not labels
        (bytes([0, 0, 8, 1]) + b"\0\0", "its header announces"),
        (bytes([0, 0, 8, 1]) + struct.pack(">I", 4) + b"\0\0\0", "its header announces"),
        (bytes([0, 0, 8, 1]) + struct.pack(">I", 4) + b"\0\0\0\0\0", "its header announces"),
        (bytes([0, 0, 8, 1]) + struct.pack(">I", 2**32 - 1) + b"\0", "its header announces"),
        (bytes([0, 0, 8, 1]) + struct.pack(">I", 0), "its header announces"),
    ],
)
def test_what_is_not_an_idx_file_of_labels(tmp_path: Path, raw: bytes, why: str) -> None:
    path = tmp_path / "labels"
    path.write_bytes(raw)
    with pytest.raises(BadInput, match=why):
        load_idx(path, 1)


def test_a_broken_gzip_file(tmp_path: Path) -> None:
    good = gzip.compress(idx(np.arange(100)))
    for number, raw in enumerate((b"not gzip at all", good[:-10], good[:20] + b"\xff\xff\xff" + good[23:])):
        path = tmp_path / f"{number}.gz"
        path.write_bytes(raw)
        with pytest.raises(BadInput, match="cannot be read"):
            load_idx(path, 1)


def test_images_and_labels_of_different_counts(tmp_path: Path) -> None:
    _write(tmp_path, _small(5), _small(5))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(4)))
    with pytest.raises(BadInput, match="5 images but 4 labels"):
        load_directory(tmp_path)


# -- the store ----------------------------------------------------------------------------------------------------
def _store(folder: Path, data: DataSet) -> SampleStore:
    return SampleStore(folder, data.root, len(data), data.shape)


def test_what_was_put_is_gathered_in_the_order_asked_for(tmp_path: Path) -> None:
    data = _small(9)
    store = _store(tmp_path / "new" / "folder", data)
    assert store.missing([8, 1, 1, 3]) == [1, 3, 8]
    for index in (1, 3, 8):
        store.put(index, data.sample(index), data.prove(index))
    assert store.missing([8, 1, 3, 2]) == [2]
    images, labels = store.gather([3, 8, 1, 3])
    assert np.array_equal(images, data.images[[3, 8, 1, 3]])
    assert np.array_equal(labels, data.labels[[3, 8, 1, 3]])
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)


def test_samples_survive_in_the_file(tmp_path: Path) -> None:
    data = _small(9)
    first = _store(tmp_path, data)
    first.put(4, data.sample(4), data.prove(4))
    first.close()
    again = _store(tmp_path, data)
    assert again.missing(range(9)) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert np.array_equal(again.gather([4])[0][0], data.images[4])


def test_a_false_sample_is_refused_and_not_kept(tmp_path: Path) -> None:
    data = _small(9)
    store = _store(tmp_path, data)
    with pytest.raises(Refused) as refusal:
        store.put(4, data.sample(5), data.prove(4))
    assert refusal.value.reason == Reason.BAD_PROOF
    with pytest.raises(Refused) as refusal:
        store.put(4, data.sample(4)[:-1], data.prove(4))
    assert refusal.value.reason == Reason.MALFORMED
    assert store.missing([4]) == [4]


def test_a_sample_proven_elsewhere_is_kept_as_it_is(tmp_path: Path) -> None:
    data = _small(9)
    store = _store(tmp_path, data)
    store.keep(4, data.sample(4))
    assert np.array_equal(store.gather([4])[0][0], data.images[4])
    with pytest.raises(Refused) as refusal:
        store.keep(5, data.sample(5) + b"\0")
    assert refusal.value.reason == Reason.MALFORMED


def test_a_damaged_or_moved_record_is_missing_again(tmp_path: Path) -> None:
    data = _small(4)
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
    data = _small(4)
    store = _store(tmp_path, data)
    store.fill(data)
    store.close()
    (path,) = tmp_path.iterdir()
    record = path.stat().st_size // 4
    path.write_bytes(path.read_bytes().ljust(length, b"\0")[:length])
    assert _store(tmp_path, data).missing(range(4)) == list(range(min(length // record, 4), 4))


def test_two_data_sets_do_not_mix(tmp_path: Path) -> None:
    first, second = _small(4), _small(4, seed=1)
    store = _store(tmp_path, first)
    store.fill(first)
    assert _store(tmp_path, second).missing([0]) == [0]
    with pytest.raises(Refused):
        store.fill(second)


def test_misuse_and_outsized_stores(tmp_path: Path) -> None:
    data = _small(4)
    store = _store(tmp_path, data)
    with pytest.raises(InternalError, match="before they were fetched"):
        store.gather([2])
    with pytest.raises(IndexError):
        store.missing([4])
    with pytest.raises(IndexError):
        store.missing([-1])
    with pytest.raises(Refused) as refusal:
        SampleStore(tmp_path, bytes(32), 1 << 32, (1 << 20,))
    assert refusal.value.reason == Reason.TOO_LARGE
    with pytest.raises(ValueError, match="at least one"):
        SampleStore(tmp_path, bytes(32), 0, (1,))


# -- the bundled subset and its card ------------------------------------------------------------------------------
def test_the_bundled_subset_is_stratified_and_known() -> None:
    train, held_out = bundled_mnist()
    assert (train.images.shape, held_out.images.shape) == ((10_000, 28, 28), (2_000, 28, 28))
    assert np.bincount(train.labels).tolist() == [1_000] * 10
    assert np.bincount(held_out.labels).tolist() == [200] * 10
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # MNIST's first training labels
    assert held_out.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]  # and its first test labels


def test_the_licence_names_the_hash_of_every_file() -> None:
    text = (BUNDLED / "LICENSE.md").read_text()
    listed = dict(re.findall(r"`([a-z0-9-]+\.gz)` \|[^|]*\| `([0-9a-f]{64})`", text))
    files = {path.name: hashlib.sha256(gzip.decompress(path.read_bytes())) for path in BUNDLED.glob("*.gz")}
    assert listed == {name: digest.hexdigest() for name, digest in files.items()}
    assert len(listed) == 4
    assert "CC BY-SA 3.0" in text


def test_the_subset_takes_the_first_of_each_digit_in_file_order() -> None:
    labels = np.array([3, 3, 1, 3, 1, 1, *range(10)])
    source = DataSet(np.arange(16, dtype=np.uint8).reshape(16, 1, 1), labels)
    assert subset(source, 1).images.ravel().tolist() == [0, 2, 6, 8, 10, 11, 12, 13, 14, 15]


def test_the_card_says_what_a_job_needs_to_know() -> None:
    card = bundled_card()
    train, held_out = bundled_mnist()
    assert card["root"] == "0x" + train.root.hex()
    assert card["held_out_root"] == "0x" + held_out.root.hex()
    assert (card["count"], card["held_out_count"]) == (10_000, 2_000)
    assert card["schema"] == {"x": {"dtype": "uint8", "shape": [28, 28]}, "y": {"classes": 10}}
    assert card["licence"] == "CC-BY-SA-3.0"
    assert card_bytes({"b": "é", "a": [1]}) == '{"a":[1],"b":"é"}'.encode()
    other = data_card("own", _small(), _small(), "MIT", "made here")
    assert other["schema"]["x"]["shape"] == [3, 4]
