"""From files to a data set: formats recognised by content, held-out samples, cards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atoll.errors import BadInput
from atoll.training.data import BUNDLED, bundled_mnist
from atoll.training.data.add import read_source, recognise
from atoll.training.data.card import About, Group
from atoll.training.data.formats.found import Options
from atoll.training.data.samples import DataSet
from atoll.training.data.split import hold_out
from tests.training.data.sets import small, write_idx

PEOPLE = "who,a,y\n" + "".join(f"{name},{number},{number % 2}\n" for number, name in enumerate("cabacabcab"))


def test_formats_are_recognised(tmp_path: Path) -> None:
    for name in ("idx", "arrays", "texts", "pictures/cat", "parts/train/cat", "parts/test/cat"):
        (tmp_path / name).mkdir(parents=True)
    write_idx(tmp_path / "idx", small(), small())
    np.save(tmp_path / "arrays" / "x.npy", np.zeros(3))
    (tmp_path / "texts" / "a.txt").write_text("a")
    for folder in ("pictures/cat", "parts/train/cat"):
        Image.new("L", (2, 2)).save(tmp_path / folder / "1.png")
    np.savez(tmp_path / "arrays.npz", x=np.zeros(3))
    (tmp_path / "arrays.npz").rename(tmp_path / "disguised.csv")
    for name in ("table.csv", "table.TSV", "text.txt"):
        (tmp_path / name).write_text("a,b")
    (tmp_path / "table").write_bytes(b"PAR1....")
    wanted = {
        "idx": "idx",
        "arrays": "npz",
        "texts": "text",
        "pictures": "images",
        "parts": "images",
        "disguised.csv": "npz",
        "table.csv": "csv",
        "table.TSV": "csv",
        "text.txt": "text",
        "table": "parquet",
    }
    assert {name: recognise(tmp_path / name) for name in wanted} == wanted


def test_what_is_not_recognised_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "unknown.bin").write_bytes(b"....")
    (tmp_path / "empty").mkdir()
    for name, why in (
        ("x.npy", "is a single array: put x.npy and y.npy into a folder"),
        ("unknown.bin", r"name it with --format, csv \| parquet"),
        ("empty", "expected MNIST's IDX files, x.npy"),
        ("nowhere", "cannot be read .No such file"),
    ):
        with pytest.raises(BadInput, match=why):
            recognise(tmp_path / name)


def test_a_share_is_held_out_and_the_rest_keeps_its_order(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text(PEOPLE)
    source = read_source("people", path, Options(drop=("who",)), About("CC0-1.0", "made"), 0.2)
    every = DataSet(np.arange(10, dtype=np.float32)[:, None], np.arange(10) % 2)
    train, held = hold_out(every.root, 10, 0.2)
    assert source.train.x.ravel().tolist() == train.tolist()
    assert source.held_out.x.ravel().tolist() == held.tolist()
    assert (source.card.name, source.card.licence, source.card.origin) == ("people", "CC0-1.0", "made")
    assert (source.card.schema.y.names, source.partition) == (("0", "1"), "shuffled")
    assert len(read_source("people", path, Options(drop=("who",)), About()).held_out) == 1  # a tenth


def test_groups_become_neighbours(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text(PEOPLE)
    source = read_source("people", path, Options(group="who"), About(), 0.3)
    numbers = {name: [place for place, one in enumerate("cabacabcab") if one == name] for name in "abc"}
    groups = source.card.groups
    assert groups is not None
    assert (groups.by, groups.count, source.partition) == ("who", 3, "ordered")
    left = [group.name for group in groups.train]
    assert groups.train == tuple(Group(name=name, count=len(numbers[name])) for name in left)
    assert source.train.x.ravel().tolist() == [number for name in left for number in numbers[name]]
    (out,) = set("abc") - set(left)
    assert len(numbers[out]) == 3  # "a" has four samples, more than three tenths
    assert source.held_out.x.ravel().tolist() == numbers[out]


def test_files_that_keep_a_part_apart(tmp_path: Path) -> None:
    path = tmp_path / "both.npz"
    x, y = np.arange(4, dtype=np.uint8)[:, None], np.arange(4)
    np.savez(path, x_train=x, y_train=y, x_test=x[:1], y_test=y[:1], who=np.array(["b", "a", "b", "a"]))
    source = read_source("both", path, Options(), About())
    assert (len(source.train), len(source.held_out)) == (4, 1)
    with pytest.raises(BadInput, match="keeps 1 samples apart already: leave out --held-out"):
        read_source("both", path, Options(), About(), 0.5)
    source = read_source("both", path, Options(group="who"), About())
    assert source.train.y.tolist() == [1, 3, 0, 2]
    assert source.partition == "ordered"


def test_mnist_by_way_of_its_files(tmp_path: Path) -> None:
    source = read_source("copy", BUNDLED, Options(), About())
    assert source.train.root == bundled_mnist()[0].root
    with pytest.raises(BadInput, match="leave out --group"):
        read_source("copy", BUNDLED, Options(group="digit"), About())
    shutil.copytree(BUNDLED, tmp_path / "mnist")
    with pytest.raises(BadInput, match="is not a plain file"):
        read_source("copy", tmp_path / "mnist", Options(), About(), kind="csv")


def test_text_says_what_its_tokens_are(tmp_path: Path) -> None:
    (tmp_path / "play.txt").write_text("to be or not to be, " * 20)
    source = read_source("play", tmp_path / "play.txt", Options(window=8, tokens="characters"), About())
    assert source.card.schema.y.names == tuple(sorted(set("to be or not to be, ")))
    assert json.loads(source.card_bytes)["schema"]["x"] == {"columns": [], "dtype": "int64", "shape": [8]}
    assert read_source("play", tmp_path / "play.txt", Options(window=8), About()).card.schema.y.classes == 256


def test_groups_that_a_card_cannot_name(tmp_path: Path) -> None:
    path = tmp_path / "long.npz"
    np.savez(path, x=np.zeros((2, 1)), y=np.zeros(2), who=np.array(["x" * 200, "b"]))
    with pytest.raises(BadInput, match=r"--group who holds 'xxx.*200 characters"):
        read_source("long", path, Options(group="who"), About(), 0.5)
    np.savez(path, x=np.zeros((2, 1)), y=np.zeros(2), who=np.array(["b", "b"]))
    with pytest.raises(BadInput, match="All samples are of the group 'b'"):
        read_source("long", path, Options(group="who"), About(), 0.5)


def _seeds(folder: Path) -> dict[str, Path]:
    """One good file of each format, and the path to read it by."""
    (folder / "pictures" / "a").mkdir(parents=True)
    np.savez(folder / "arrays.npz", x=np.arange(12, dtype=np.float32).reshape(4, 3), y=np.arange(4))
    (folder / "table.csv").write_text(PEOPLE)
    (folder / "text.txt").write_text("to be or not to be, " * 20)
    generator = np.random.default_rng(3)
    Image.fromarray(generator.integers(0, 256, (9, 9), dtype=np.uint8)).save(folder / "pictures" / "a" / "1.png")
    Image.fromarray(generator.integers(0, 256, (9, 9), dtype=np.uint8)).save(folder / "pictures" / "a" / "2.png")
    (folder / "idx").mkdir()
    write_idx(folder / "idx", small(), small(), end=".gz")
    return {
        "arrays.npz": folder / "arrays.npz",
        "table.csv": folder / "table.csv",
        "text.txt": folder / "text.txt",
        "pictures/a/2.png": folder / "pictures",
        "idx/train-images-idx3-ubyte.gz": folder / "idx",
    }


@pytest.mark.parametrize(
    "name", ["arrays.npz", "table.csv", "text.txt", "pictures/a/2.png", "idx/train-images-idx3-ubyte.gz"]
)
@pytest.mark.filterwarnings("error")
def test_damaged_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    """Bytes changed, cut out, doubled: whatever is left, it is a data set or one sentence about the file."""
    path, generator = _seeds(tmp_path)[name], np.random.default_rng(11)
    whole = (tmp_path / name).read_bytes()
    refused = 0
    for _ in range(300):
        raw = bytearray(whole)
        for _ in range(generator.integers(1, 4)):
            start, length = generator.integers(0, len(raw) + 1), generator.integers(0, 9)
            match generator.integers(0, 4):
                case 0:
                    raw[start : start + length] = generator.bytes(length)
                case 1:
                    del raw[start : start + 8 * length]
                case 2:
                    raw[start:start] = raw[start : start + 8 * length]
                case 3:
                    raw[start : start + 4] = b"\xff\xff\xff\x7f"
        (tmp_path / name).write_bytes(raw)
        try:
            read_source("fuzzed", path, Options(window=8, drop=("who",) if name == "table.csv" else ()), About())
        except BadInput as error:
            refused += 1
            assert str(tmp_path) in str(error) or "sample" in str(error) or "text" in str(error), error
    assert refused > 30
