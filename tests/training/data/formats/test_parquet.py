"""Parquet files, written by PyArrow where it is installed; without it, the message says how to get it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atoll.errors import BadInput
from atoll.training.data.card import Column
from atoll.training.data.formats.csv_file import read_csv
from atoll.training.data.formats.found import Options
from atoll.training.data.formats.parquet import read_parquet

INSTALLED = importlib.util.find_spec("pyarrow") is not None
needs_pyarrow = pytest.mark.skipif(not INSTALLED, reason="PyArrow (extra `parquet`) is not installed")


def write(folder: Path, **columns: Any) -> Path:
    import pyarrow
    import pyarrow.parquet

    path = folder / "table.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


@pytest.mark.skipif(INSTALLED, reason="PyArrow is installed")
def test_without_pyarrow_the_message_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"pip install 'atoll\[parquet\]'"):
        read_parquet(tmp_path / "table.parquet", Options())


@needs_pyarrow
def test_the_same_samples_as_from_csv(tmp_path: Path) -> None:
    import pyarrow

    path = write(
        tmp_path,
        length=pyarrow.array([1, 2, 3], pyarrow.int16()),
        colour=pyarrow.array(["red", "blue", "red"]).dictionary_encode(),
        width=pyarrow.array([0.5, -15.0, 0.25]),
        good=pyarrow.array([True, False, True]),
        who=["eve", "bob", "eve"],
        kind=["rose", "tulip", "rose"],
    )
    text = "length,colour,width,good,who,kind\n1,red,0.5,1,eve,rose\n2,blue,-15,0,bob,tulip\n3,red,0.25,1,eve,rose\n"
    (tmp_path / "table.csv").write_text(text)
    options = Options(target="kind", group="who")
    found, plain = read_parquet(path, options), read_csv(tmp_path / "table.csv", options)
    assert found.data.root == plain.data.root
    assert (found.columns, found.names, found.groups) == (plain.columns, plain.names, plain.groups)
    assert found.columns[1] == Column(name="colour", categories=("blue", "red"))


@needs_pyarrow
def test_numbers_as_categories_groups_and_quantities(tmp_path: Path) -> None:
    path = write(tmp_path, zip=[20, 3, 20], who=[7, 8, 7], a=[1.5, 2.5, 3.5], id=[1, 2, 3], y=[3, 9, 5])
    found = read_parquet(path, Options(category=("zip",), group="who", drop=("id",)))
    assert found.data.x.tolist() == [[0, 1.5], [1, 2.5], [0, 3.5]]
    assert (found.groups, found.names) == (("7", "8", "7"), ("3", "5", "9"))
    assert read_parquet(path, Options(values=True)).data.y.tolist() == [3.0, 9.0, 5.0]


@needs_pyarrow
@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([1, None, 3], "column 'a' has no value in row 2"),
        (["a", "b", None], "column 'a' has no value in row 3"),
        ([1.0, 2.0, float("nan")], "column 'a' holds nan in row 3"),
        ([1.0, 1e39, 2.0], r"column 'a' holds 1e\+39 in row 2"),
        ([[1], [2], [3]], "column 'a' has type list.*--drop a"),
        (np.array([1, 2, 3], "datetime64[s]"), "column 'a' has type timestamp"),
        (np.array([1, 2**63, 3], np.uint64), "column 'a' holds numbers above 2.63"),
    ],
)
def test_columns_that_are_refused(tmp_path: Path, values: Any, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        read_parquet(write(tmp_path, a=values, y=[0, 1, 0]), Options())


@needs_pyarrow
def test_files_that_are_damaged_or_too_wide(tmp_path: Path) -> None:
    path = write(tmp_path, a=[1, 2, 3], y=[0, 1, 0])
    raw = path.read_bytes()
    for damaged in (b"", b"PAR1", raw[:-8], raw[:-6] + b"\xff\xff" + raw[-4:], b"PAR1" + bytes(100) + raw[-60:]):
        path.write_bytes(damaged)
        with pytest.raises(BadInput, match="is not a Parquet file that can be read"):
            read_parquet(path, Options())
    with pytest.raises(BadInput, match="has 4097 columns: at most 4096"):
        read_parquet(write(tmp_path, **{f"c{i}": [1] for i in range(4_097)}), Options())
    with pytest.raises(BadInput, match="has no row"):
        read_parquet(write(tmp_path, a=np.zeros(0), y=np.zeros(0)), Options())
    with pytest.raises(BadInput, match="no column 'b'"):
        read_parquet(write(tmp_path, a=[1], y=[1]), Options(drop=("b",)))
