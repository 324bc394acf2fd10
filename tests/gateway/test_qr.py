"""QR codes: read back module by module, and against the worked example of a format word."""

from __future__ import annotations

import pytest

from atoll.gateway import qr


def read(rows: list[list[int]]) -> bytes:
    """What a reader makes of a code of one block (versions 1 to 3), by the standard's layout; no error correction."""
    size = len(rows)
    # Format bits 14 to 10 lie at (8, 0..4): level (2 bits) and mask (3), behind the standard's fixed pattern.
    word = int("".join(str(rows[8][column]) for column in range(5)), 2) ^ 0b10101
    assert word >> 3 == 0, "level M"
    rules = [
        lambda r, c: (r + c) % 2, lambda r, c: r % 2, lambda r, c: c % 3, lambda r, c: (r + c) % 3,
        lambda r, c: (r // 2 + c // 3) % 2, lambda r, c: r * c % 2 + r * c % 3,
        lambda r, c: (r * c % 2 + r * c % 3) % 2, lambda r, c: ((r + c) % 2 + r * c % 3) % 2,
    ]  # fmt: skip
    rule = rules[word & 7]

    def is_data(r: int, c: int) -> bool:
        corner = (r < 9 and c < 9) or (r < 9 and c >= size - 8) or (r >= size - 8 and c < 9)
        aligned = size > 21 and abs(r - (size - 7)) <= 2 and abs(c - (size - 7)) <= 2
        return not (corner or aligned or 6 in (r, c))

    bits, column, upwards = [], size - 1, True
    while column > 0:
        column -= column == 6
        for step in range(size):
            r = size - 1 - step if upwards else step
            bits += [rows[r][c] ^ (not rule(r, c)) for c in (column, column - 1) if is_data(r, c)]
        column, upwards = column - 2, not upwards
    stream = "".join(str(int(bit)) for bit in bits)
    assert stream[:4] == "0100", "byte mode"
    length = int(stream[4:12], 2)
    return bytes(int(stream[12 + 8 * i : 20 + 8 * i], 2) for i in range(length))


@pytest.mark.parametrize("text", ["a", "http://10.0.0.1/join", "http://192.168.178.123:8470/join", "é" * 20])
def test_what_is_written_can_be_read(text: str) -> None:
    assert read(qr.matrix(text)).decode() == text


def test_the_size_grows_with_the_text_up_to_its_end() -> None:
    assert [len(qr.matrix("x" * length)) for length in (14, 15, 26, 42, 62, 84, 106)] == [21, 25, 25, 29, 33, 37, 41]
    with pytest.raises(ValueError, match="107 bytes"):
        qr.matrix("x" * 107)


def test_check_codewords_are_those_of_the_standard() -> None:
    # Annex I of ISO/IEC 18004: version 1-M, "01234567".
    data = bytes([0x10, 0x20, 0x0C, 0x56, 0x61, 0x80, *([0xEC, 0x11] * 5)])
    assert qr._checks(data, 10) == bytes([0xA5, 0x24, 0xD4, 0xC1, 0xED, 0x36, 0xC7, 0x87, 0x2C, 0x55])


def test_format_words_are_those_of_the_standard() -> None:
    words = ["".join(map(str, qr._format_bits(mask))) for mask in range(8)]
    assert words == [
        "101010000010010", "101000100100101", "101111001111100", "101101101001011",
        "100010111111001", "100000011001110", "100111110010111", "100101010100000",
    ]  # fmt: skip


def test_the_picture_holds_every_dark_module() -> None:
    picture = qr.svg("http://10.0.0.1/join")
    assert picture.count("h1v1h-1z") == sum(map(sum, qr.matrix("http://10.0.0.1/join")))
    assert "style" not in picture
    assert "script" not in picture
