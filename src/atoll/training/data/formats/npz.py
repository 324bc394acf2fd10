"""NumPy's arrays: an .npz archive, or a folder of .npy files. https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

Arrays of Python objects are refused: reading them would run code. Sizes are those of the headers, checked before
anything is unpacked.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from atoll.errors import BadInput
from atoll.training.data.formats.files import entries, open_limited
from atoll.training.data.formats.found import Found, Options, coded
from atoll.training.data.samples import Array, DataSet, check_values

MAX_ARRAY_BYTES = 1 << 31  # of one array, unpacked
MAX_FILE_BYTES = 1 << 33
MAX_ARRAYS = 64
_NAMES = (
    ("x", "y", "", ""),
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_x", "train_y", "held_x", "held_y"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)
_EXPECTED = "expected arrays x and y (or x_train, y_train, x_test, y_test)"

# What zipfile, zlib and NumPy raise for damaged files; a header of many brackets ends the parser's recursion or memory.
_ARRAY_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    MemoryError,
)

Open = Callable[[], IO[bytes]]


def read_npz(path: Path, options: Options) -> Found:
    """Samples of an .npz file, or of a folder of .npy files. Raises BadInput with what cannot be used."""
    if path.is_dir():
        files = {one.stem: one for one in entries(path) if one.suffix == ".npy"}
        readers = {name: _opener(one) for name, one in list(files.items())[: MAX_ARRAYS + 1]}
        return _samples({name: _array(readers[name], files[name].name, path) for name in readers}, options, path)
    open_limited(path, MAX_FILE_BYTES, "an .npz file")
    with _explained(path), zipfile.ZipFile(path) as archive:
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(archive.infolist()) > MAX_ARRAYS or len(infos) < len(archive.infolist()):
            raise BadInput(f"{path} holds more than {MAX_ARRAYS} arrays, or two of one name: {_EXPECTED}.")
        arrays = {}
        for name, info in infos.items():
            if info.file_size > MAX_ARRAY_BYTES:
                raise BadInput(
                    f"{path}: {name} has {info.file_size} bytes unpacked: at most {MAX_ARRAY_BYTES} are read."
                )
            arrays[name] = _array(lambda info=info: archive.open(info), name, path)  # type: ignore[misc]
    return _samples(arrays, options, path)


def _opener(path: Path) -> Open:
    return lambda: open_limited(path, MAX_ARRAY_BYTES, "an .npy file").open("rb")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except _ARRAY_ERRORS as error:
        raise BadInput(f"{path} cannot be read as NumPy's arrays ({str(error)[:200]}): write it anew.") from error


def _array(opened: Open, name: str, path: Path) -> NDArray[Any]:
    """One array, once its header is within the limits."""
    with _explained(path), opened() as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise BadInput(f"{path}: {name} is of version {version}: expected 1.0 or 2.0; save it with a newer NumPy.")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            raise BadInput(
                f"{path}: {name} holds Python objects, which are never read: save it as plain numbers, for instance "
                "np.stack(array).astype(np.float32)."
            )
        size = math.prod(shape) * dtype.itemsize
        if size > MAX_ARRAY_BYTES or min(shape, default=1) < 0:
            raise BadInput(f"{path}: {name} announces {size} bytes: at most {MAX_ARRAY_BYTES} are read.")
        data = file.read(size + 1)
        if len(data) != size:
            raise BadInput(f"{path}: {name} holds {len(data)} bytes, its header announces {size}: write it anew.")
        values: NDArray[Any] = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return values


def _samples(arrays: Mapping[str, NDArray[Any]], options: Options, path: Path) -> Found:
    lower = {name.lower(): values for name, values in arrays.items()}
    for names in _NAMES:
        x, y, held_x, held_y = names
        y = options.target.lower() if options.target and not held_x else y
        if x in lower and y in lower:
            break
    else:
        raise BadInput(f"{path} holds {', '.join(list(arrays)[:20]) or 'no array'}: {_EXPECTED}.")
    labels, classes = _targets(lower[y], options, f"{path}: {y}")
    data = DataSet(_numbers(lower[x], f"{path}: {x}"), labels)
    held_out = None
    if held_x in lower and held_y in lower:
        if classes:
            raise BadInput(f"{path}: {y} holds texts beside {held_y}: number the classes in both.")
        told, _ = _targets(lower[held_y], options, f"{path}: {held_y}")
        held_out = DataSet(_numbers(lower[held_x], f"{path}: {held_x}"), told)
    groups = _groups(lower, options, len(data), path) if options.group else ()
    return Found(data, held_out, names=classes, by=options.group, groups=groups)


def _groups(arrays: Mapping[str, NDArray[Any]], options: Options, count: int, path: Path) -> tuple[str, ...]:
    values = arrays.get(options.group.lower())
    if values is None or values.shape != (count,) or values.dtype.kind not in "biuU":
        raise BadInput(f"{path}: --group {options.group}: expected an array of {count} numbers or texts of that name.")
    return tuple(map(str, values.tolist()))


def _numbers(values: NDArray[Any], where: str) -> Array:
    """As uint8, int64 or float32."""
    match values.dtype.kind:
        case "b":
            return values.astype(np.uint8)
        case "u" if values.dtype.itemsize == 1:
            return values
        case "i" | "u":
            check_values(where, values)
            return values.astype(np.int64)
        case "f":
            with np.errstate(over="ignore"):
                floats: Array = values.astype(np.float32)
            check_values(where, floats)
            return floats
    raise BadInput(f"{where} has type {values.dtype}: expected truth values, integers or floats.")


def _targets(values: NDArray[Any], options: Options, where: str) -> tuple[Array, tuple[str, ...]]:
    if values.dtype.kind == "U":
        if values.ndim != 1:
            raise BadInput(f"{where} holds texts in shape {values.shape}: expected one text a sample.")
        return coded(map(str, values.tolist()), where)
    numbers = _numbers(values, where)
    if options.values:
        return numbers.astype(np.float32), ()
    return (numbers.astype(np.int64) if numbers.dtype == np.uint8 else numbers), ()
