"""CSV files: samples worked out by hand, and files that are refused with the place of what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atoll.errors import BadInput
from atoll.training.data.card import Column
from atoll.training.data.formats.csv_file import MAX_CSV_BYTES, read_csv
from atoll.training.data.formats.found import Options

FLOWERS = "length,colour,width,kind\n1,red,0.5,rose\n2,blue,-1.5e1,tulip\n3,red,.25,rose\n"


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_numbers_categories_and_classes(tmp_path: Path) -> None:
    found = read_csv(write(tmp_path, FLOWERS), Options(target="kind"))
    assert found.data.x.tolist() == [[1, 1, 0.5], [2, 0, -15], [3, 1, 0.25]]
    assert found.data.x.dtype == np.float32
    assert found.data.y.tolist() == [0, 1, 0]
    assert found.names == ("rose", "tulip")
    assert found.columns == (
        Column(name="length"),
        Column(name="colour", categories=("blue", "red")),
        Column(name="width"),
    )
    assert found.held_out is None


@pytest.mark.parametrize(
    "content",
    [
        FLOWERS.replace(",", ";"),
        FLOWERS.replace(",", "\t"),
        FLOWERS.replace("\n", "\r\n"),
        "\ufeff" + FLOWERS,
        FLOWERS.replace("red", '"red"').replace(",", " , ").replace(' "', '"').replace('" ', '"'),
        FLOWERS.replace("\n", "\n\n"),
    ],
)
def test_other_spellings_of_the_same_table(tmp_path: Path, content: str) -> None:
    found, plain = (read_csv(write(tmp_path, one), Options(target="kind")) for one in (content, FLOWERS))
    assert found.data.root == plain.data.root
    assert found.columns == plain.columns


def test_quoted_cells_may_hold_commas_and_lines(tmp_path: Path) -> None:
    found = read_csv(write(tmp_path, 'a,target\n1,"x, ""y""\nz"\n2,b\n'), Options())
    assert found.names == ("b", 'x, "y"\nz')
    assert found.data.y.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("cells", "options", "y", "names"),
    [
        (["3", "9", "5"], Options(), [0, 2, 1], ("3", "5", "9")),
        (["10", "9", "-1"], Options(), [2, 1, 0], ("-1", "9", "10")),  # by size, not by spelling
        (["3", "9", "5"], Options(values=True), [3.0, 9.0, 5.0], ()),
        (["0.5", "2", "1"], Options(), [0.5, 2.0, 1.0], ()),
        (["yes", "no", "yes"], Options(), [1, 0, 1], ("no", "yes")),
    ],
)
def test_targets(tmp_path: Path, cells: list[str], options: Options, y: list[float], names: tuple[str, ...]) -> None:
    rows = "".join(f"{place},{cell}\n" for place, cell in enumerate(cells))
    found = read_csv(write(tmp_path, "a,label\n" + rows), options)
    assert found.data.y.tolist() == y
    assert found.data.y.dtype == (np.int64 if isinstance(y[0], int) else np.float32)
    assert found.names == names


def test_groups_dropped_columns_and_forced_categories(tmp_path: Path) -> None:
    text = "id,person,zip,a,y\n7,eve,20,1,0\n8,bob,3,2,1\n9,eve,20,3,1\n"
    found = read_csv(write(tmp_path, text), Options(group="person", drop=("id",), category=("zip",)))
    assert found.data.x.tolist() == [[0, 1], [1, 2], [0, 3]]
    assert found.columns == (Column(name="zip", categories=("20", "3")), Column(name="a"))
    assert (found.by, found.groups) == ("person", ("eve", "bob", "eve"))


def test_the_same_numbers_as_numpy_reads(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    wanted = generator.normal(size=(200, 5)) * 10.0 ** generator.integers(-30, 30, (200, 5))
    path = tmp_path / "numbers.csv"
    np.savetxt(path, wanted, delimiter=",", header="a,b,c,d,target", comments="")
    found = read_csv(path, Options())
    again = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float32)
    assert np.array_equal(found.data.x, again[:, :4])
    assert np.array_equal(found.data.y, again[:, 4])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "is empty: expected a header"),
        ("a,y\n", "a header but no row"),
        ("a,y\n1,2\n3\n", "row 2 has 1 cells, the header 2"),
        ("a,y\n1,2,3\n", "row 1 has 3 cells, the header 2"),
        ("a,a,y\n1,2,3\n", "two columns named 'a'"),
        ("a,,y\n1,2,3\n", "column 2 is named ''"),
        ("a,y\n1,0\n,1\n", r"column 'a' has no value in row 2 \(''\)"),
        ("a,y\n1,0\n2,nan\n", r"column 'y' has no value in row 2 \('nan'\)"),
        ("a,y\n?,0\n", "no value in row 1"),
        ("a,y\n1,0\ninf,1\n", "column 'a' holds numbers, but 'inf' in row 2.*--category a"),
        ("a,y\n1,0\n1_000,1\n", "holds numbers, but '1_000' in row 2"),
        ("a,y\n1,0\n1e400,1\n", "column 'a' holds inf in row 2: expected a number of at most"),
        ("a,y\n1,0\n1e39,1\n", r"column 'a' holds 1e\+39 in row 2"),
        ("a,y\n1,0\n" + "9" * 60 + ",1\n", r"column 'a' holds 1e\+60 in row 2"),
        ("a,y\n1,0\n" + "9" * 5_000 + ",1\n", "column 'a' holds numbers, but '99999"),
        ("a,y\n1,0\n2," + "9" * 60 + "\n", r"column 'y' holds 1e\+60 in row 2"),
        ("a,y\n1,x\0y\n", "NUL byte in line 2"),
        ("a,y\n1," + "x" * 200 + "\n", "of 200 characters: expected 1 to 128"),
        ("a,y\n1," + "x" * 140_000 + "\n", "is not a CSV file .field larger than field limit"),
        ('a,y\n1,"x" z\n', "is not a CSV file"),
        ('a,y\n1,"x\n', "is not a CSV file"),
        ("a,b\n1,2\n", r"which column is to be told: name it with --target. The columns are: a, b"),
        ("y\n1\n", "no column besides the target 'y'"),
        ("a,label,y\n1,2,3\n", "name it with --target"),
        (",".join(f"c{i}" for i in range(1_000_000)) + "\n", "has 1000000 columns: at most 4096"),
        ("x" * 200 + ",y\n1,2\n", "expected a header with a name of 1 to 128"),
        ("a,y\n\u00e9,1\n".encode("latin-1"), "is not UTF-8"),
        (b"\xff\xfea\0,\0y\0\n\0", "is not UTF-8"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: str | bytes, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        read_csv(write(tmp_path, content), Options())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (Options(target="colours"), r"no column 'colours'. The columns are: length, colour, width, kind"),
        (Options(target="kind", group="who"), "no column 'who'"),
        (Options(target="kind", drop=("size",)), "no column 'size'"),
        (Options(target="kind", category=("size",)), "no column 'size'"),
        (Options(target="kind", group="kind"), "both name the column 'kind'"),
        (Options(target="kind", values=True), "holds texts such as 'rose': leave out --values"),
    ],
)
def test_options_that_do_not_fit_the_table(tmp_path: Path, options: Options, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        read_csv(write(tmp_path, FLOWERS), options)


def test_too_many_different_texts_or_numbers(tmp_path: Path) -> None:
    rows = "".join(f"t{i},{i}\n" for i in range(10_001))
    with pytest.raises(BadInput, match="column 'a' holds 10001 different texts"):
        read_csv(write(tmp_path, "a,y\n" + rows), Options(values=True))
    with pytest.raises(BadInput, match=r"the target 'y' has 10001 different numbers.*--values"):
        read_csv(write(tmp_path, "a,y\n" + rows.replace("t", "")), Options())


def test_a_file_that_is_too_large_is_not_even_opened(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    with path.open("wb") as file:
        file.truncate(MAX_CSV_BYTES + 1)
    with pytest.raises(BadInput, match="at most 268435456 are read"):
        read_csv(path, Options())
