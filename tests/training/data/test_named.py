"""Data sets by name: the bundled one, kept ones, folders."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from atoll.errors import BadInput, Corrupt
from atoll.training.data import BUNDLED, DataSet, bundled_mnist, bundled_source, load, make_source
from atoll.training.data.kept import keep
from atoll.training.mnist.make import subset
from tests.training.data.sets import small, write_idx


def test_the_bundled_subset_is_stratified_and_known() -> None:
    train, held_out = bundled_mnist()
    assert (train.x.shape, held_out.x.shape) == ((10_000, 28, 28), (2_000, 28, 28))
    assert np.bincount(train.y).tolist() == [1_000] * 10
    assert np.bincount(held_out.y).tolist() == [200] * 10
    assert train.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # MNIST's first training labels
    assert held_out.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]  # and its first test labels


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
    assert subset(source, 1).x.ravel().tolist() == [0, 2, 6, 8, 10, 11, 12, 13, 14, 15]


def test_the_card_says_what_a_job_needs_to_know() -> None:
    source = bundled_source()
    card, (train, held_out) = source.card, bundled_mnist()
    assert card.root == "0x" + train.root.hex()
    assert card.held_out_root == "0x" + held_out.root.hex()
    assert (card.name, card.count, card.held_out_count) == ("mnist-12k", 10_000, 2_000)
    assert (card.schema.x.dtype, card.schema.x.shape) == ("uint8", (28, 28))
    assert (card.schema.y.dtype, card.schema.y.shape, card.schema.y.classes) == ("int64", (), 10)
    assert card.schema.y.names == tuple("0123456789")
    assert (card.licence, source.partition) == ("CC-BY-SA-3.0", "shuffled")
    assert load("mnist", Path("nowhere")) is source


# -- by name ------------------------------------------------------------------------------------------------------
def test_a_kept_data_set_by_its_name_and_by_its_folder(tmp_path: Path) -> None:
    source = make_source("pictures", small(7), small(3, seed=1))
    place = keep(tmp_path, source)
    for name in ("pictures", str(place)):
        found = load(name, tmp_path)
        assert found.card == source.card
        assert np.array_equal(found.train.x, source.train.x)
    assert load(str(place), tmp_path / "elsewhere").card == source.card


def test_a_folder_of_idx_files_without_adding_it(tmp_path: Path) -> None:
    folder = tmp_path / "My Digits"
    folder.mkdir()
    write_idx(folder, small(7), small(3, seed=1))
    found = load(str(folder), tmp_path)
    assert found.card.name == "my-digits"
    assert found.train.root == small(7).root


def test_a_name_that_means_nothing_is_told_what_there_is(tmp_path: Path) -> None:
    keep(tmp_path, make_source("pictures", small(7), small(3)))
    with pytest.raises(BadInput, match=r"no data set 'picture'.*There are: mnist, pictures"):
        load("picture", tmp_path)
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match="add it with `atoll data add"):
        load(str(tmp_path / "table.csv"), tmp_path)
    (tmp_path / "data" / "pictures" / "card.json").write_text("{}")
    with pytest.raises(Corrupt, match="Add it again"):
        load("pictures", tmp_path)
