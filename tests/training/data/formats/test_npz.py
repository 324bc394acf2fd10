"""NumPy's arrays: types and layouts that are read, and files that would cost memory or run code."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from atoll.errors import BadInput
from atoll.training.data.formats.found import Options
from atoll.training.data.formats.npz import read_npz

X, Y = np.arange(12).reshape(4, 3), np.array([0, 1, 2, 0])


def save(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "data.npz"
    np.savez_compressed(path, **arrays)
    return path


def header(shape: tuple[int, ...] | str, dtype: str = "<f4", fortran: bool = False) -> bytes:
    """The beginning of an .npy file, written by hand."""
    text = f"{{'descr': '{dtype}', 'fortran_order': {fortran}, 'shape': {shape}, }}".encode() + b"\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text


def zipped(folder: Path, **files: bytes) -> Path:
    path = folder / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    ("stored", "kept"),
    [
        ("uint8", "uint8"),
        ("bool", "uint8"),
        ("int8", "int64"),
        ("uint16", "int64"),
        ("int32", "int64"),
        ("uint64", "int64"),
        ("float16", "float32"),
        ("float32", "float32"),
        (">f8", "float32"),
    ],
)
def test_types(tmp_path: Path, stored: str, kept: str) -> None:
    found = read_npz(save(tmp_path, x=X.astype(stored), y=Y.astype("uint8")), Options())
    assert (found.data.x.dtype, found.data.y.dtype) == (kept, np.int64)
    assert np.array_equal(found.data.x, X.astype(stored).astype(kept))
    assert np.array_equal(found.data.y, Y)


def test_quantities_texts_and_targets_of_any_shape(tmp_path: Path) -> None:
    assert read_npz(save(tmp_path, x=X, y=Y), Options(values=True)).data.y.dtype == np.float32
    assert read_npz(save(tmp_path, x=X, y=Y / 2), Options()).data.y.tolist() == [0, 0.5, 1, 0]
    assert read_npz(save(tmp_path, x=X, y=X), Options()).data.form.y_shape == (3,)
    found = read_npz(save(tmp_path, X=X, kind=np.array(["b", "a", "b", "c"])), Options(target="kind"))
    assert (found.data.y.tolist(), found.names) == ([1, 0, 1, 2], ("a", "b", "c"))
    ignored = np.array([[0, -100, 1]] * 4)
    assert read_npz(save(tmp_path, x=X, y=ignored), Options()).data.y.tolist() == ignored.tolist()


@pytest.mark.parametrize(
    "names",
    [("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels")],
)
def test_archives_with_a_part_that_is_held_out(tmp_path: Path, names: tuple[str, ...]) -> None:
    arrays = dict(zip(names, (X, Y, X[:1], Y[:1]), strict=True))
    found = read_npz(save(tmp_path, **arrays), Options())
    assert found.held_out is not None
    assert (found.data.x.tolist(), found.held_out.x.tolist()) == (X.tolist(), X[:1].tolist())


def test_a_folder_of_npy_files_is_read_alike(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(X))
    np.save(tmp_path / "y.npy", Y)
    found = read_npz(tmp_path, Options())
    assert np.array_equal(found.data.x, X)
    assert np.array_equal(found.data.y, Y)


def test_groups(tmp_path: Path) -> None:
    found = read_npz(save(tmp_path, x=X, y=Y, who=np.array([7, 8, 7, 9])), Options(group="who"))
    assert (found.by, found.groups) == ("who", ("7", "8", "7", "9"))
    for wrong in ("nobody", "x"):
        with pytest.raises(BadInput, match=f"--group {wrong}: expected an array of 4"):
            read_npz(save(tmp_path, x=X, y=Y), Options(group=wrong))


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("/tmp/never", "w"))  # noqa: S108 - what loading it would do


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    for values in (np.array([_Bomb()] * 4, dtype=object), np.array([[1], [2, 3], [], [4]], dtype=object)):
        with pytest.raises(BadInput, match="x holds Python objects, which are never read"):
            read_npz(save(tmp_path, x=values, y=Y), Options())
    np.save(tmp_path / "x.npy", np.array([_Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(BadInput, match="never read"):
        read_npz(tmp_path, Options())
    mixed = np.zeros(4, dtype=[("a", object), ("b", "f4")])
    with pytest.raises(BadInput, match="never read"):
        read_npz(save(tmp_path, x=mixed, y=Y), Options())


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (np.array([[np.nan]] * 4), r"x holds nan in row 1, place \[0\]"),
        (np.array([[0], [0], [1e39], [0]]), "x holds inf in row 3"),
        (np.array([[0], [2**31], [0], [0]]), "x holds 2147483648 in row 2.*32 bits"),
        (np.array([[0], [2**63], [0], [0]], np.uint64), "x holds 9223372036854775808 in row 2"),
        (np.zeros((4, 1), complex), "x has type complex128"),
        (np.zeros((4, 1), "datetime64[s]"), "x has type datetime64"),
        (np.zeros(4, dtype=[("a", "f4")]), "x has type"),
        (np.array(["a"] * 4), "x has type <U1"),
        (np.zeros((3, 1)), "3 samples but 4 targets"),
        (np.float32(3), "x has type float32 and shape"),
    ],
)
def test_arrays_that_are_no_samples(tmp_path: Path, x: np.ndarray, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        read_npz(save(tmp_path, x=x, y=Y), Options())


def test_missing_and_surplus_arrays(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds data, labels: expected arrays x and y"):
        read_npz(save(tmp_path, data=X, labels=Y), Options())
    with pytest.raises(BadInput, match="more than 64 arrays"):
        read_npz(save(tmp_path, **{f"a{i}": Y for i in range(65)}), Options())
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no array"):
        read_npz(tmp_path / "empty", Options())


@pytest.mark.parametrize(
    ("announced", "told", "why"),
    [
        (10, 0xFFFFFFF0, "x has 4294967280 bytes unpacked: at most 2147483648"),
        (1 << 30, None, "x announces 4294967296 bytes: at most 2147483648"),
        (10, 100, "cannot be read"),  # the directory says less than there is
        (10, None, "x holds 41 bytes, its header announces 40"),
    ],
)
def test_a_zip_bomb_costs_nothing(tmp_path: Path, announced: int, told: int | None, why: str) -> None:
    """64 MB of zeros in 64 kB: whatever header and directory say, no more is unpacked than they both announce."""
    content = header((announced,)) + bytes(1 << 26)
    path = zipped(tmp_path, x=content, y=header((1,)))
    if told is not None:
        path.write_bytes(path.read_bytes().replace(len(content).to_bytes(4, "little"), told.to_bytes(4, "little")))
    tracemalloc.start()
    with pytest.raises(BadInput, match=why):
        read_npz(path, Options())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "cannot be read"),
        (b"not an array", "cannot be read"),
        (b"\x93NUMPY\3\0" + bytes(4), "of version"),
        (header((4, 3)), r"holds 0 bytes, its header announces 48"),
        (header((4, 3)) + bytes(47), "holds 47 bytes"),
        (header((4, 3)) + bytes(49), "holds 49 bytes"),
        (header((1 << 40, 1 << 40)), "announces 4835703278458516698824704 bytes"),
        (header((-4, -3)) + bytes(48), "announces 48 bytes|cannot be read"),
        (header("(" * 3_000 + ")" * 3_000), "cannot be read"),
        (header("(-" + "-" * 9_000 + "1,)"), "cannot be read"),
        (header("__import__('os').getcwd()"), "cannot be read"),
        (header((4,), "|O"), "never read"),
        (header((4,), "<U0"), "cannot be read"),
    ],
)
def test_damaged_and_lying_headers(tmp_path: Path, content: bytes, why: str) -> None:
    buffer = io.BytesIO()
    np.save(buffer, Y)
    with pytest.raises(BadInput, match=why):
        read_npz(zipped(tmp_path, x=content, y=buffer.getvalue()), Options())


def test_what_is_no_archive(tmp_path: Path) -> None:
    path = save(tmp_path, x=X, y=Y)
    raw = path.read_bytes()
    for damaged in (b"", b"PK\3\4", raw[:-30], raw[:60] + b"\xff\xff" + raw[62:]):
        path.write_bytes(damaged)
        with pytest.raises(BadInput, match=r"cannot be read as NumPy's arrays|expected arrays|holds"):
            read_npz(path, Options())
    with zipfile.ZipFile(path, "w") as archive:
        for _ in range(2):
            with pytest.warns(UserWarning, match="Duplicate") if archive.namelist() else _nothing():
                archive.writestr("x.npy", header((1,)))
    with pytest.raises(BadInput, match="two of one name"):
        read_npz(path, Options())


def _nothing() -> io.BytesIO:
    return io.BytesIO()
