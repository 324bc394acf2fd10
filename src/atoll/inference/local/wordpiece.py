"""From a text to the token numbers of a BERT model without cases: words, punctuation, then the longest known parts.

The rules of the original (Devlin et al., https://arxiv.org/abs/1810.04805, and its published tokeniser): control
characters go, accents go, letters become small, every punctuation mark and every Chinese character is a word of its
own; a word is cut greedily into the longest parts of the vocabulary, those inside a word marked with `##`. Names of
special tokens in a text are plain text here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

LONGEST_WORD = 100  # characters; a longer one is unknown
INSIDE = "##"
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """A vocabulary and the way to cut a text by it."""

    def __init__(self, vocabulary: Iterable[str]) -> None:
        self._numbers = {word: number for number, word in enumerate(vocabulary)}
        self._first, self._last = self._numbers["[CLS]"], self._numbers["[SEP]"]
        self._unknown = self._numbers["[UNK]"]

    def encode(self, text: str, limit: int) -> list[int]:
        """Token numbers with the marks of begin and end, at most `limit` (>= 2): what is longer is cut at its end."""
        found: list[int] = []
        for word in words(text):
            found += self._parts(word)
            if len(found) > limit - 2:
                break
        return [self._first, *found[: limit - 2], self._last]

    def _parts(self, word: str) -> list[int]:
        if len(word) > LONGEST_WORD:
            return [self._unknown]
        parts: list[int] = []
        start = 0
        while start < len(word):
            end, number = len(word), None
            while start < end and number is None:
                part = word[start:end]
                number = self._numbers.get(INSIDE + part if start else part)
                end -= 1
            if number is None:
                return [self._unknown]
            parts.append(number)
            start = end + 1
        return parts


def words(text: str) -> Iterator[str]:
    """The words of a text, small and without accents, punctuation marks each for themselves."""
    for chunk in _plain(text).split():
        word = ""
        for character in chunk:
            if _is_mark(character):
                yield from (word, character) if word else (character,)
                word = ""
            else:
                word += character
        if word:
            yield word


def _plain(text: str) -> str:
    if text.isascii():  # nothing to take apart, and most texts are
        return "".join(" " if one.isspace() else one for one in text if one.isprintable() or one in "\t\n\r").lower()
    kept = (_spaced(one) for one in text if one in "\t\n\r" or not _is_dropped(one))
    parted = unicodedata.normalize("NFD", "".join(kept))
    return "".join(one.lower() for one in parted if unicodedata.category(one) != "Mn")


def _is_dropped(character: str) -> bool:
    return character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs")


def _spaced(character: str) -> str:
    code = ord(character)
    if code >= 0x3400 and any(low <= code <= high for low, high in _IDEOGRAPHS):
        return f" {character} "
    return " " if character.isspace() else character


def _is_mark(character: str) -> bool:
    code = ord(character)
    if code < 128:
        return 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return unicodedata.category(character)[0] == "P"
