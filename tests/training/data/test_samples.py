"""Samples: their bytes worked out by hand, their proofs, and arrays that cannot be samples."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from atoll.errors import BadInput, Refused
from atoll.graph.zoo import load_zoo
from atoll.training.data import DataSet, Form, read_sample, verify_sample
from atoll.wire.merkle import MerkleTree
from atoll.wire.reasons import Reason
from tests.training.data.sets import small

VECTOR = json.loads((Path(__file__).parents[2] / "vectors" / "training.json").read_text())["samples"]


def test_vector_of_sample_bytes_and_root() -> None:
    images = np.array([list(bytes.fromhex(image)) for image in VECTOR["images"]], dtype=np.uint8).reshape(-1, 2, 2)
    data = DataSet(images, np.array(VECTOR["labels"]))
    assert data.sample(3) == bytes([3, 4, 5, 6]) + struct.pack("<i", 3)
    assert data.root.hex() == VECTOR["root"]


def test_a_sample_is_proven_at_its_own_place_only() -> None:
    data = small()
    sample, proof = data.sample(2), data.prove(2)
    assert verify_sample(data.root, 5, 2, sample, proof)
    assert not verify_sample(data.root, 5, 3, sample, proof)
    assert not verify_sample(data.root, 6, 2, sample, proof)
    assert not verify_sample(data.root, 5, 2, sample[:-4] + b"\x0b\0\0\0", proof)  # another label
    assert not verify_sample(data.root, 5, 2, sample, proof[:-1])


def test_reading_a_sample_back() -> None:
    data = small()
    image, label = read_sample(data.sample(4), data.form)
    assert np.array_equal(image, data.x[4])
    assert label == data.y[4]
    with pytest.raises(Refused) as refusal:
        read_sample(data.sample(4) + b"\0", data.form)
    assert refusal.value.reason == Reason.MALFORMED


KINDS = [
    (np.array([[1, 2], [3, 255]], np.uint8), np.array([7, -100]), "010207000000", "03ff9cffffff"),
    (np.array([[1.5], [-2]], np.float32), np.array([0.25, 4], np.float32), "0000c03f0000803e", "000000c000008040"),
    (
        np.array([[1, -1], [2**31 - 1, -(2**31)]]),
        np.array([[[2], [3]], [[4], [5]]]),
        "01000000ffffffff0200000003000000",
        "ffffff7f000000800400000005000000",
    ),
]


@pytest.mark.parametrize(("x", "y", "first", "second"), KINDS)
def test_bytes_of_every_type_worked_out_by_hand(x: np.ndarray, y: np.ndarray, first: str, second: str) -> None:
    data = DataSet(x, y)
    assert [data.sample(0).hex(), data.sample(1).hex()] == [first, second]
    assert data.root == MerkleTree([bytes.fromhex(first), bytes.fromhex(second)]).root
    assert data.form.sample_bytes == len(data.sample(0))
    for index in range(2):
        back = read_sample(data.sample(index), data.form)
        assert [(one.dtype, one.shape) for one in back] == [(x.dtype, x.shape[1:]), (y.dtype, y.shape[1:])]
        assert np.array_equal(back[0], x[index])
        assert np.array_equal(back[1], y[index])


def test_the_order_of_the_array_in_memory_does_not_matter() -> None:
    x = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert DataSet(np.asfortranarray(x), np.array([0, 1])).root == DataSet(x, np.array([0, 1])).root
    assert DataSet(x[::-1], np.array([1, 0])).sample(1) == DataSet(x, np.array([0, 1])).sample(0)


@pytest.mark.parametrize(
    ("x", "y", "why"),
    [
        (np.zeros((2, 1)), np.zeros(2, np.int64), "x has type float64"),
        (np.zeros((2, 1), np.uint8), np.zeros(2, np.uint8), "y has type uint8"),
        (np.array(3, np.uint8), np.zeros(1, np.int64), "x has type uint8 and shape"),
        (np.zeros((2, 1), np.uint8), np.zeros(3, np.int64), "2 samples but 3 targets"),
        (np.array([[0], [2**31]]), np.zeros(2, np.int64), r"2147483648 in row 2, place \[0\].*32 bits"),
        (np.zeros((2, 1), np.uint8), np.array([-(2**31) - 1, 0]), "-2147483649 in row 1: expected integers"),
        (np.array([[1, 2], [3, np.nan]], np.float32), np.zeros(2, np.int64), r"nan in row 2, place \[1\]: .*finite"),
        (np.zeros((1, 1), np.uint8), np.array([np.inf], np.float32), "y holds inf in row 1"),
    ],
)
def test_arrays_that_are_no_samples(x: np.ndarray, y: np.ndarray, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        DataSet(x, y)


def test_a_strangers_sample_that_is_not_finite_is_refused() -> None:
    for raw in ("0000c07f00000000", "00000000000080ff"):  # NaN in x, -infinity in y
        with pytest.raises(Refused) as refusal:
            read_sample(bytes.fromhex(raw), Form("float32", (1,), "float32", ()))
        assert refusal.value.reason == Reason.MALFORMED


def test_classes_are_counted_from_labels_only() -> None:
    x = np.zeros((3, 1), np.uint8)
    assert DataSet(x, np.array([0, 4, 1])).classes == 5
    assert DataSet(x, np.array([[0, 9], [1, 1], [2, 2]])).classes == 10
    assert DataSet(x, np.array([-100, -100, -100])).classes == 0
    assert DataSet(x, np.zeros(3, np.float32)).classes == 0


def test_what_a_job_takes() -> None:
    spec = load_zoo("mlp").spec
    form = Form.of(spec)
    assert (form.x_dtype, form.x_shape, form.y_dtype, form.y_shape) == ("uint8", spec.input.shape, "int64", ())
    assert form.sample_bytes == spec.sample_bytes == 28 * 28 + 4
    assert form.layout == Form("uint8", (784,)).layout == "uint8-784-int64-1"


def test_taking_some_samples() -> None:
    data = small(9)
    part = data.take([4, 0])
    assert [part.sample(0), part.sample(1)] == [data.sample(4), data.sample(0)]
