"""Parquet, read by PyArrow (extra `atoll[parquet]`): flat columns of numbers, truth values or texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from atoll.errors import BadInput
from atoll.training.data.card import MAX_COLUMNS
from atoll.training.data.formats.files import open_limited
from atoll.training.data.formats.found import Found, Options
from atoll.training.data.formats.table import MAX_CELLS, Cells, check_header, make_table, without_dropped

MAX_PARQUET_BYTES = 1 << 32
MAX_UNPACKED_BYTES = 1 << 33
_THRIFT_BYTES, _THRIFT_ENTRIES = 1 << 26, 1 << 20  # of the file's own description


def read_parquet(path: Path, options: Options) -> Found:
    """Samples of a Parquet file. Raises BadInput with row and column of what cannot be used."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise BadInput(
            f"{path} is a Parquet file, and PyArrow, which reads them, is not installed: run "
            "`pip install 'atoll[parquet]'`, or save the table as CSV."
        ) from error
    open_limited(path, MAX_PARQUET_BYTES, "a Parquet file")
    try:
        limits = {"thrift_string_size_limit": _THRIFT_BYTES, "thrift_container_size_limit": _THRIFT_ENTRIES}
        with pyarrow.parquet.ParquetFile(path, **limits) as file:
            names = _checked(path, file, options)
            table = file.read(columns=names, use_threads=False)
            columns = {name: _cells(name, table.column(name), options, str(path)) for name in names}
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not a Parquet file that can be read ({str(error)[:200]}): write it anew.") from error
    return make_table(columns, options, str(path))


def _checked(path: Path, file: Any, options: Options) -> list[str]:
    """Names of the columns to read, once the file's own account of itself is within the limits."""
    about, names = file.metadata, list(file.schema_arrow.names)
    if about.num_columns > MAX_COLUMNS:
        raise BadInput(f"{path} has {about.num_columns} columns: at most {MAX_COLUMNS} are read.")
    check_header(names, str(path))
    unpacked = sum(about.row_group(index).total_byte_size for index in range(about.num_row_groups))
    if about.num_rows * len(names) > MAX_CELLS or unpacked > MAX_UNPACKED_BYTES:
        raise BadInput(
            f"{path} holds {about.num_rows} rows of {len(names)} columns, {unpacked} bytes unpacked: at most "
            f"{MAX_CELLS} cells in {MAX_UNPACKED_BYTES} bytes are read; cut it into smaller data sets."
        )
    if not about.num_rows:
        raise BadInput(f"{path} has no row: expected one sample a row.")
    return without_dropped(names, options, str(path))


def _cells(name: str, column: Any, options: Options, where: str) -> Cells:
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise BadInput(f"{where}: column {name!r} has no value in row {row + 1}: fill it in or leave that row out.")
    if types.is_string(column.type) or types.is_large_string(column.type):
        return Cells(None, column.to_pylist())
    if types.is_boolean(column.type) or types.is_integer(column.type):
        numbers = column.to_numpy()
        if types.is_uint64(column.type) and (numbers > np.iinfo(np.int64).max).any():
            raise BadInput(f"{where}: column {name!r} holds numbers above 2^63: save them as floats or texts.")
        return Cells(numbers.astype(np.int64), _texts(name, numbers, options))
    if types.is_floating(column.type):
        numbers = column.to_numpy().astype(np.float64)
        return Cells(numbers, _texts(name, numbers, options))
    raise BadInput(
        f"{where}: column {name!r} has type {column.type}: expected numbers, truth values or texts; convert it, or "
        f"leave it out with --drop {name}."
    )


def _texts(name: str, numbers: Any, options: Options) -> list[str]:
    """Numbers as texts, where they are categories or groups."""
    return list(map(str, numbers.tolist())) if name in (options.group, *options.category) else []
