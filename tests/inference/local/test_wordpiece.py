"""The tokeniser against the numbers that the `tokenizers` library gives for the same texts and vocabulary."""

from __future__ import annotations

import json
import time
from importlib import resources
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from atoll.inference.local.wordpiece import WordPiece, words

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "wordpiece.json").read_text("utf-8"))
VOCABULARY = resources.files("atoll.inference.local").joinpath("vocab.txt").read_text("utf-8").splitlines()
PIECES = WordPiece(VOCABULARY)


def test_the_same_numbers_as_the_library() -> None:
    assert len(VECTORS) >= 20
    for case in VECTORS:
        assert PIECES.encode(case["text"], 10_000) == case["tokens"], case["text"]


def test_small_vocabulary_by_hand() -> None:
    pieces = WordPiece(["[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "a", "!"])
    assert pieces.encode("Unaffable a!", 10) == [1, 3, 4, 5, 6, 7, 2]
    assert pieces.encode("unaffablex", 10) == [1, 0, 2]  # no part of a word that is not known to its end
    assert pieces.encode("a a a a", 4) == [1, 6, 6, 2]  # cut, and the end is marked still
    assert pieces.encode("", 10) == [1, 2]


def test_accents_case_and_marks() -> None:
    assert list(words("Déjà-vu, ÎLE")) == ["deja", "-", "vu", ",", "ile"]
    assert list(words("中国ab")) == ["中", "国", "ab"]
    assert list(words("a\u0000b\u200bc\u00a0d")) == ["abc", "d"]


@given(st.text(max_size=80))
def test_any_text_gives_numbers_of_the_vocabulary(text: str) -> None:
    found = PIECES.encode(text, 32)
    assert 2 <= len(found) <= 32 and found[0] == 101 and found[-1] == 102
    assert all(0 <= number < len(VOCABULARY) for number in found)


def test_long_texts_are_not_read_to_their_end() -> None:
    spent = time.process_time()
    assert len(PIECES.encode("word " * 500_000, 256)) == 256
    assert len(PIECES.encode("x" * 2_000_000, 256)) == 3
    assert time.process_time() - spent < 5
