"""How numbers, ids and reasons are written."""

from __future__ import annotations

import pytest

from atoll.gateway.pages import words
from atoll.wire.reasons import Reason


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0", "0"), (str(10**18), "1"), (str(1234567 * 10**18), "1\u202f234\u202f567"), (str(15 * 10**17), "1.5"),
     (str(10**18 - 1), "0.9999"), (str(-(10**18)), "−1"), ("no number", "0")],
)  # fmt: skip
def test_amounts_are_cut_and_never_rounded_up(amount: str, text: str) -> None:
    assert words.tokens(amount) == text


def test_small_words() -> None:
    assert words.percent(0.90819) == "90.82\u202f%"
    assert words.percent(None) == words.decimal(None) == "–"
    assert words.decimal(0.33719) == "0.3372"
    assert words.moment(0) == words.moment(None) == ""
    assert words.moment(1_790_000_000.9) == "2026-09-21 14:13:20 UTC"
    assert words.short("0x" + "ab" * 20) == "0xababab…abab"
    assert [words.counted(count, "job") for count in (0, 1, 2)] == ["0 jobs", "1 job", "2 jobs"]
    assert words.form("1", "epoch of payments", "epochs of payments") == "epoch of payments"
    assert words.whole(7850) == "7\u202f850"
    assert words.roles_of(1 | 8 | 16) == ["worker", "server", "gateway"]


def test_reasons_by_number() -> None:
    assert words.reason_name(33) == "SEGMENT_MISMATCH"
    assert words.reason_sentence(33) == Reason.SEGMENT_MISMATCH.sentence
    assert words.reason_name(999) == "reason 999"
    assert "update" in words.reason_sentence(999)


def test_text_from_outside_is_one_short_line() -> None:
    assert words.plain("a\nb\x00c\u202ed") == "a\ufffdb\ufffdc\ufffdd"
    assert words.plain("x" * 400) == "x" * 299 + "…"
    assert words.plain("ñandú 🦤") == "ñandú 🦤"
