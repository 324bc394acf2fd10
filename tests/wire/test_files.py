from __future__ import annotations

import os
from pathlib import Path

import pytest

from atoll.errors import Corrupt, MachineError, Refused
from atoll.wire.files import HashedFiles
from atoll.wire.hashing import blob_id
from atoll.wire.reasons import Reason


def opened(folder: Path, limit: int = 1000) -> HashedFiles:
    return HashedFiles(folder, limit, "Fetch {name} again.", sync=False)


def test_a_file_is_named_by_its_content(tmp_path: Path) -> None:
    files = opened(tmp_path)
    name = files.put(b"hello")
    assert name == blob_id(b"hello")
    assert files.path(name) == tmp_path / name.hex()[:2] / name.hex()
    assert files.path(name).read_bytes() == b"hello"
    assert files.get(name) == b"hello"
    assert name in files and files.size(name) == 5 and len(files) == 1


def test_the_same_bytes_take_room_once(tmp_path: Path) -> None:
    files = opened(tmp_path, limit=5)
    assert files.put(b"hello") == files.put(b"hello")
    assert files.total_bytes == 5


def test_the_limit_is_exact_and_survives_reopening(tmp_path: Path) -> None:
    files = opened(tmp_path, limit=10)
    files.put(b"12345")
    for again in (files, opened(tmp_path, limit=10)):
        with pytest.raises(Refused, match="6 bytes, room for 5 of 10") as refusal:
            again.put(b"123456")
        assert refusal.value.reason == Reason.BUSY
    files.put(b"54321")
    assert files.total_bytes == 10


def test_deleting_gives_room_back(tmp_path: Path) -> None:
    files = opened(tmp_path, limit=5)
    name = files.put(b"hello")
    assert files.delete(name) and not files.delete(name)
    assert not files.path(name).exists() and files.total_bytes == 0
    files.put(b"other")


def test_bytes_of_another_name_are_refused(tmp_path: Path) -> None:
    files = opened(tmp_path)
    with pytest.raises(Refused) as refusal:
        files.put(b"hello", blob_id(b"other"))
    assert refusal.value.reason == Reason.WRONG_HASH
    assert len(files) == 0


def test_unknown_names(tmp_path: Path) -> None:
    files = opened(tmp_path)
    for attempt in (files.get, files.size, lambda name: files.read(name, 0, 1)):
        with pytest.raises(Refused) as refusal:
            attempt(bytes(32))
        assert refusal.value.reason == Reason.NOT_FOUND


@pytest.mark.parametrize("content", [b"", b"hellO", b"hell", b"hello "])
def test_a_damaged_file_is_kept_aside_and_can_be_restored(tmp_path: Path, content: bytes) -> None:
    opened(tmp_path).put(b"hello")
    name = blob_id(b"hello")
    (tmp_path / name.hex()[:2] / name.hex()).write_bytes(content)
    files = opened(tmp_path)
    with pytest.raises(Corrupt) as damage:
        files.get(name)
    aside = tmp_path / "damaged" / name.hex()
    assert aside.read_bytes() == content
    assert str(files.path(name)) in str(damage.value) and str(aside) in str(damage.value)
    assert f"Fetch {name.hex()} again." in str(damage.value)
    assert name not in files and files.total_bytes == 0
    files.put(b"hello")
    assert files.get(name) == b"hello"


def test_parts_are_read_and_later_damage_is_noticed(tmp_path: Path) -> None:
    files = opened(tmp_path)
    name = files.put(b"0123456789")
    assert files.read(name, 2, 3) == b"234"
    assert files.read(name, 8, 100) == b"89"
    assert files.read(name, 10, 1) == b""
    files.path(name).write_bytes(b"01234567x9")
    os.utime(files.path(name), ns=(0, 12345))
    with pytest.raises(Corrupt):
        files.read(name, 0, 1)


def test_a_file_that_somebody_removed_is_not_found(tmp_path: Path) -> None:
    files = opened(tmp_path)
    for read in (files.get, lambda name: files.read(name, 0, 1)):
        name = files.put(b"hello")
        files.path(name).unlink()
        with pytest.raises(Refused):
            read(name)
        assert files.total_bytes == 0 and name not in files


def test_a_file_that_somebody_removed_can_be_put_again(tmp_path: Path) -> None:
    files = opened(tmp_path, limit=5)
    name = files.put(b"hello")
    files.path(name).unlink()
    files.put(b"hello")
    assert files.get(name) == b"hello" and files.total_bytes == 5


def test_an_unfinished_write_leaves_nothing(tmp_path: Path) -> None:
    name = blob_id(b"hello")
    opened(tmp_path)
    (tmp_path / "partial" / name.hex()).write_bytes(b"hel")
    files = opened(tmp_path)
    assert name not in files
    assert not list((tmp_path / "partial").iterdir())


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    strangers = [tmp_path / "ab" / "notes.txt", tmp_path / "ab" / ("cd" * 32)]  # the second lies in the wrong folder
    for stranger in strangers:
        stranger.write_bytes(b"mine")
    files = opened(tmp_path)
    assert len(files) == 0 and files.total_bytes == 0
    assert all(stranger.exists() for stranger in strangers)


def test_names_come_least_recently_used_first(tmp_path: Path) -> None:
    files = opened(tmp_path)
    first, second, third = (files.put(data) for data in (b"1", b"2", b"3"))
    assert list(files.names()) == [first, second, third]
    files.get(first)
    files.read(second, 0, 1)
    assert list(files.names()) == [third, first, second]


def test_the_order_of_use_survives_reopening(tmp_path: Path) -> None:
    files = opened(tmp_path)
    names = [files.put(data) for data in (b"1", b"2", b"3")]
    for name, second in zip(names, (30, 10, 20), strict=True):
        os.utime(files.path(name), ns=(second * 10**9, 0))
    assert list(opened(tmp_path).names()) == [names[1], names[2], names[0]]


def test_synchronous_writes(tmp_path: Path) -> None:
    files = HashedFiles(tmp_path, 100, "")
    assert files.get(files.put(b"hello")) == b"hello"


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MachineError, match="could not be used"):
        opened(tmp_path / "file")


def test_a_disk_that_fails(tmp_path: Path) -> None:
    files = opened(tmp_path)
    name = blob_id(b"hello")
    (tmp_path / name.hex()[:2]).write_bytes(b"a file where the folder should be")
    with pytest.raises(MachineError, match="could not be used"):
        files.put(b"hello")
    assert files.total_bytes == 0 and name not in files
