"""Files and folders from strangers: sizes are looked at first, and links lead nowhere."""

from __future__ import annotations

import os
from pathlib import Path

from atoll.errors import BadInput

MAX_ENTRIES = 2_000_000  # of one folder


def open_limited(path: Path, limit: int, what: str) -> Path:
    """The path, if it is a plain file of at most `limit` bytes; raises BadInput."""
    try:
        size, plain = path.stat().st_size, path.is_file()
        if plain:
            path.open("rb").close()
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise BadInput(f"{path} cannot be read ({told}): expected {what}.") from error
    if not plain:
        raise BadInput(f"{path} is not a plain file: expected {what}.")
    if size > limit:
        raise BadInput(f"{path} has {size} bytes: at most {limit} are read as {what}; cut it into smaller data sets.")
    return path


def read_limited(path: Path, limit: int, what: str) -> bytes:
    """All bytes of a plain file of at most `limit` bytes; raises BadInput."""
    with open_limited(path, limit, what).open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BadInput(f"{path} grew while it was read: expected {what}.")
    return data


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted by name, without hidden files.

    Raises BadInput for links, which may lead anywhere.
    """
    found = []
    try:
        with os.scandir(folder) as listed:
            for entry in listed:
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    raise BadInput(f"{entry.path} is a link: put the file itself there.")
                found.append(folder / entry.name)
                if len(found) > MAX_ENTRIES:
                    raise BadInput(f"{folder} holds more than {MAX_ENTRIES} files: cut it into smaller data sets.")
    except OSError as error:
        raise BadInput(f"{folder} cannot be read ({error.strerror}): expected a folder.") from error
    return sorted(found, key=lambda path: path.name)
