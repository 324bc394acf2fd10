"""CSV: a header, then one sample a row; commas, semicolons or tabs; UTF-8. https://www.rfc-editor.org/rfc/rfc4180"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from atoll.errors import BadInput
from atoll.training.data.formats.files import open_limited
from atoll.training.data.formats.found import Found, Options
from atoll.training.data.formats.table import MAX_CELLS, Cells, check_header, make_table, without_dropped

MAX_CSV_BYTES = 1 << 28
MAX_CSV_CELLS = MAX_CELLS >> 4  # they are texts at first, which take a hundred bytes each
MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none"})
_MAX_DIGITS = 64  # characters of a number; longer cells are texts
_WHOLE_DIGITS = 18  # characters of a number that surely fits into 64 bits
_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def read_csv(path: Path, options: Options) -> Found:
    """Samples of a CSV file. Raises BadInput with row and column of what cannot be used."""
    open_limited(path, MAX_CSV_BYTES, "a CSV file; Parquet files may be larger")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, cells = _cells(path, file)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 (byte {error.start} of a block): save it as UTF-8.") from error
    except csv.Error as error:
        raise BadInput(f"{path} is not a CSV file ({error}): expected a header and rows of cells.") from error
    left = without_dropped(header, options, str(path))
    width, forced = len(header), options.category
    columns = {name: _column(name, cells[header.index(name) :: width], name in forced, str(path)) for name in left}
    return make_table(columns, options, str(path))


def _cells(path: Path, file: TextIO) -> tuple[list[str], list[str]]:
    """Names of the columns, and all cells row after row."""
    first = file.readline()
    file.seek(0)
    delimiter = max(",;\t", key=first.count)  # the first of equals
    rows = _rows(path, file, delimiter)
    header = [name.strip() for name in next(rows, [])]
    if not any(header):
        raise BadInput(f"{path} is empty: expected a header with the names of the columns.")
    check_header(header, str(path))
    cells: list[str] = []
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise BadInput(f"{path}: row {number} has {len(row)} cells, the header {len(header)}: correct that row.")
        cells += map(str.strip, row)
        if len(cells) > MAX_CSV_CELLS:
            raise BadInput(
                f"{path} has more than {MAX_CSV_CELLS} cells: use Parquet, or cut it into smaller data sets."
            )
    if not cells:
        raise BadInput(f"{path} has a header but no row: expected one sample a row.")
    return header, cells


def _rows(path: Path, file: TextIO, delimiter: str) -> Iterator[list[str]]:
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    for row in reader:
        if any("\0" in cell for cell in row):
            raise BadInput(f"{path} holds a NUL byte in line {reader.line_num}: expected text.")
        if row:
            yield row


def _column(name: str, texts: list[str], category: bool, where: str) -> Cells:
    for row, text in enumerate(texts, 1):
        if text.lower() in MISSING:
            raise BadInput(
                f"{where}: column {name!r} has no value in row {row} ({text!r}): fill it in or leave that row out."
            )
    if category:
        return Cells(None, texts)
    numeric = [len(text) <= _MAX_DIGITS and _NUMBER.fullmatch(text) is not None for text in texts]
    if not any(numeric):
        return Cells(None, texts)
    if not all(numeric):
        row = numeric.index(False)
        raise BadInput(
            f"{where}: column {name!r} holds numbers, but {texts[row][:40]!r} in row {row + 1}: put a number there, or "
            f"say --category {name} to take all its values for categories."
        )
    if all(len(text) <= _WHOLE_DIGITS and _WHOLE.fullmatch(text) for text in texts):
        return Cells(np.array([int(text) for text in texts], np.int64), texts)
    return Cells(np.array([float(text) for text in texts], np.float64), texts)
