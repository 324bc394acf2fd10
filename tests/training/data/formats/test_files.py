"""Files and folders from strangers: limits, links, things that are no files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from atoll.errors import BadInput
from atoll.training.data.formats.files import entries, open_limited, read_limited


def test_a_plain_file_within_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_limited(path, 5, "text") == b"12345"
    with pytest.raises(BadInput, match="has 5 bytes: at most 4 are read as text"):
        read_limited(path, 4, "text")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices of Unix")
def test_what_is_no_plain_file_is_never_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(BadInput, match="is not a plain file: expected text"):
            open_limited(path, 1 << 20, "text")
    with pytest.raises(BadInput, match=r"cannot be read \(No such file"):
        open_limited(tmp_path / "nothing", 1, "text")
    with pytest.raises(BadInput, match="cannot be read"):
        open_limited(tmp_path / ("x" * 5_000), 1, "text")


def test_entries_are_sorted_and_hidden_ones_left_out(tmp_path: Path) -> None:
    for name in ("b", "a", ".DS_Store", "C"):
        (tmp_path / name).touch()
    assert [path.name for path in entries(tmp_path)] == ["C", "a", "b"]
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(BadInput, match=r"link is a link"):
        entries(tmp_path)
    with pytest.raises(BadInput, match="expected a folder"):
        entries(tmp_path / "nowhere")
