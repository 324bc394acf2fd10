"""Plain text, UTF-8: cut into windows of tokens, each with the tokens that come next as its target.

Tokens are bytes (256 classes), the different characters of the text, or those of a file in JSON,
`{"tokens": ["the", "a", ...]}`, of which the longest that fits is taken, from left to right.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from atoll.errors import BadInput
from atoll.training.data.formats.files import entries, read_limited
from atoll.training.data.formats.found import Found, Options, check_names
from atoll.training.data.samples import DataSet

MAX_TEXT_BYTES = 1 << 28  # of all files together
MAX_TOKEN_FILE_BYTES = 1 << 22
MAX_WINDOW = 65_536
BYTES, CHARACTERS = "bytes", "characters"
FILE = "file"  # what --group says to keep files apart


class _TokenFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of tokens."""

    tokens: tuple[str, ...]


def read_text(path: Path, options: Options) -> Found:
    """Windows of text, x and y int64 [N, window]. Raises BadInput with what cannot be used.

    `path` is a text file, or a folder of *.txt files; no window reaches across files, and text after a file's last
    whole window is left out.
    """
    if not 1 <= options.window <= MAX_WINDOW:
        raise BadInput(f"--window {options.window}: expected 1 to {MAX_WINDOW} tokens.")
    if options.group not in ("", FILE):
        raise BadInput(f"--group {options.group}: text is grouped by --group {FILE} only.")
    paths = [one for one in entries(path) if one.suffix == ".txt"] if path.is_dir() else [path]
    texts = _texts(paths, path)
    vocabulary = _vocabulary(texts, options)
    windows, groups = [], []
    for name, text in texts.items():
        codes = _codes(text, vocabulary, options, name)
        count = max(0, len(codes) - 1) // options.window
        windows.append(codes[: count * options.window + 1])
        groups += [name] * count
    length = options.window
    if not groups:
        raise BadInput(
            f"{path} holds fewer than {length + 1} tokens in each file: say a smaller --window, or add text."
        )
    full = [codes for codes in windows if len(codes) > length]
    x = np.concatenate([codes[:-1].reshape(-1, length) for codes in full])
    y = np.concatenate([codes[1:].reshape(-1, length) for codes in full])
    names = tuple(vocabulary)
    told = tuple(groups) if options.group else ()
    return Found(DataSet(x, y), classes=len(names) or 256, names=names, by=options.group, groups=told)


def _texts(paths: list[Path], where: Path) -> dict[str, str]:
    """Name without .txt -> content."""
    texts: dict[str, str] = {}
    left = MAX_TEXT_BYTES
    for path in paths:
        raw = read_limited(path, left, "text")
        left -= len(raw)
        try:
            texts[path.stem] = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadInput(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8 text.") from error
        if "\0" in texts[path.stem]:
            raise BadInput(f"{path} holds a NUL byte: expected text.")
    if not texts:
        raise BadInput(f"{where} holds no *.txt file: expected text.")
    check_names(texts, f"{where}: names of files")
    return texts


def _vocabulary(texts: Mapping[str, str], options: Options) -> dict[str, int]:
    """Token -> its number; empty for bytes."""
    if options.tokens == BYTES:
        return {}
    if options.tokens == CHARACTERS:
        tokens = sorted(set().union(*map(set, texts.values())))
        check_names(tokens, "the text")
    else:
        tokens = read_tokens(Path(options.tokens).expanduser())
    return {token: place for place, token in enumerate(tokens)}


def read_tokens(path: Path) -> list[str]:
    """The tokens of a file, in order; raises BadInput."""
    try:
        tokens = msgspec.json.decode(
            read_limited(path, MAX_TOKEN_FILE_BYTES, "a file of tokens"), type=_TokenFile
        ).tokens
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f'{path} is not a file of tokens ({error}): expected {{"tokens": ["a", "b", ...]}}.') from error
    check_names(tokens, str(path))
    if not tokens or len(set(tokens)) < len(tokens):
        raise BadInput(f"{path} names a token twice, or none: expected each once.")
    return list(tokens)


def _codes(text: str, vocabulary: Mapping[str, int], options: Options, name: str) -> NDArray[np.int64]:
    """Numbers of the tokens of a text, int64 [n]."""
    if not vocabulary:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64)
    longest = max(map(len, vocabulary))
    codes, place = [], 0
    while place < len(text):
        for length in range(min(longest, len(text) - place), 0, -1):
            code = vocabulary.get(text[place : place + length])
            if code is not None:
                break
        else:
            line = text.count("\n", 0, place) + 1
            raise BadInput(
                f"{name}, line {line}: no token of {options.tokens} begins {text[place : place + 8]!r}: add one."
            )
        codes.append(code)
        place += length
    return np.array(codes, np.int64)
