"""Plain text: windows and codes worked out by hand, files of tokens, and what is no text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atoll.errors import BadInput
from atoll.training.data.formats.found import Options
from atoll.training.data.formats.text import read_text


def write(folder: Path, content: str | bytes, name: str = "text.txt") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_bytes_and_the_bytes_that_come_next(tmp_path: Path) -> None:
    found = read_text(write(tmp_path, "abcdefgh"), Options(window=3))
    assert found.data.x.tolist() == [[97, 98, 99], [100, 101, 102]]
    assert found.data.y.tolist() == [[98, 99, 100], [101, 102, 103]]  # h is left: no third window has a target
    assert (found.classes, found.names, found.by) == (256, (), "")
    assert (found.data.x.dtype.name, found.data.y.dtype.name) == ("int64", "int64")


@pytest.mark.parametrize(("text", "count"), [("abcd", 1), ("abcdef", 1), ("abcdefg", 2), ("é" * 5, 3)])
def test_only_whole_windows_count(tmp_path: Path, text: str, count: int) -> None:
    assert len(read_text(write(tmp_path, text), Options(window=3)).data) == count


def test_characters_are_numbered_in_order(tmp_path: Path) -> None:
    found = read_text(write(tmp_path, "éa\naé!"), Options(window=5, tokens="characters"))
    assert found.names == ("\n", "!", "a", "é")
    assert found.data.x.tolist() == [[3, 2, 0, 2, 3]]
    assert found.data.y.tolist() == [[2, 0, 2, 3, 1]]


def test_the_longest_token_is_taken(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({"tokens": ["a", "ab", "abc", "b", "c", " "]}))
    found = read_text(write(tmp_path, "abcab ba c"), Options(window=6, tokens=str(tokens)))
    assert found.data.x.tolist() == [[2, 1, 5, 3, 0, 5]]
    assert found.data.y.tolist() == [[1, 5, 3, 0, 5, 4]]
    assert found.classes == 6
    with pytest.raises(BadInput, match=r"text, line 2: no token of .* begins 'x!': add one"):
        read_text(
            write(tmp_path, "a\nx!".replace("\n", " ")[:1] + "\nx!", "text.txt"),
            Options(tokens=str(_with_newline(tokens))),
        )


def _with_newline(path: Path) -> Path:
    path.write_text(json.dumps({"tokens": ["a", "\n"]}))
    return path


def test_windows_do_not_reach_across_files(tmp_path: Path) -> None:
    write(tmp_path, "aaaa", "romeo.txt")
    write(tmp_path, "bb", "short.txt")
    write(tmp_path, "ccccccc", "juliet.txt")
    write(tmp_path, "zzzzzzz", "notes.md")
    found = read_text(tmp_path, Options(window=3, group="file"))
    assert found.data.x.tolist() == [[99, 99, 99], [99, 99, 99], [97, 97, 97]]
    assert (found.by, found.groups) == ("file", ("juliet", "juliet", "romeo"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"caf\xe9 con leche", r"is not UTF-8 \(byte 3\)"),
        (b"\xff\xfea\0b\0", "is not UTF-8"),
        (b"a\0b" * 50, "NUL byte"),
        (b"", "fewer than 65 tokens"),
        (b"x" * 64, "fewer than 65 tokens in each file: say a smaller --window"),
    ],
)
def test_what_is_no_text(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        read_text(write(tmp_path, content), Options())


@pytest.mark.parametrize(
    ("tokens", "why"),
    [
        ("[1]", "is not a file of tokens"),
        ('{"tokens": ["a"], "merges": []}', "is not a file of tokens"),
        ('{"tokens": []}', "twice, or none"),
        ('{"tokens": ["a", "a"]}', "twice, or none"),
        ('{"tokens": [""]}', "of 0 characters"),
        ('{"tokens": ["' + "a" * 200 + '"]}', "of 200 characters"),
        ("[" * 100_000, "is not a file of tokens"),
        (json.dumps({"tokens": [str(i) for i in range(10_001)]}), "10001 different texts"),
    ],
)
def test_what_is_no_file_of_tokens(tmp_path: Path, tokens: str, why: str) -> None:
    path = write(tmp_path, tokens, "tokens.json")
    with pytest.raises(BadInput, match=why):
        read_text(write(tmp_path, "a" * 100), Options(tokens=str(path)))
    with pytest.raises(BadInput, match="cannot be read"):
        read_text(write(tmp_path, "a" * 100), Options(tokens=str(tmp_path / "nowhere")))


def test_misuse(tmp_path: Path) -> None:
    path = write(tmp_path, "a" * 100)
    with pytest.raises(BadInput, match="--window 0"):
        read_text(path, Options(window=0))
    with pytest.raises(BadInput, match="grouped by --group file only"):
        read_text(path, Options(group="speaker"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"holds no \*.txt file"):
        read_text(tmp_path / "empty", Options())
    (tmp_path / "empty" / "link.txt").symlink_to(path)
    with pytest.raises(BadInput, match="is a link"):
        read_text(tmp_path / "empty", Options())
