"""Picture files, made here byte by byte, as a model takes them."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from atoll.errors import BadInput
from atoll.inference.picture import MAX_PIXELS, read_picture

GREY, COLOUR = 0, 2  # colour types of PNG


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, colour: int, pixels: bytes, depth: int = 8) -> bytes:
    """A PNG by its specification: every row is preceded by filter 0."""
    line = len(pixels) // height
    rows = b"".join(b"\x00" + pixels[start : start + line] for start in range(0, len(pixels), max(line, 1)))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in parts)


def refused(data: bytes, shape: tuple[int, ...] = (1, 2, 2)) -> str:
    with pytest.raises(BadInput) as caught:
        read_picture(data, shape)
    return str(caught.value)


SMALL = png(3, 2, GREY, bytes([0, 1, 2, 100, 200, 255]))


def test_a_grey_picture_comes_as_it_is() -> None:
    found = read_picture(SMALL, (1, 2, 3))
    assert found.dtype == np.uint8
    assert found.tolist() == [[[0, 1, 2], [100, 200, 255]]]


def test_dark_ink_on_light_paper_is_inverted() -> None:
    assert read_picture(SMALL, (1, 2, 3), invert=True).tolist() == [[[255, 254, 253], [155, 55, 0]]]


def test_a_colour_picture_has_its_channels_first() -> None:
    data = png(2, 1, COLOUR, bytes([1, 2, 3, 4, 5, 6]))
    found = read_picture(data, (3, 1, 2))
    assert found.dtype == np.uint8
    assert found.tolist() == [[[1, 4]], [[2, 5]], [[3, 6]]]
    assert read_picture(data, (3, 1, 2), invert=True).tolist() == [[[254, 251]], [[253, 250]], [[252, 249]]]


def test_colours_become_grey_by_their_brightness() -> None:
    data = png(4, 1, COLOUR, bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]))
    # ITU-R 601: 0.299, 0.587 and 0.114 of 255
    assert read_picture(data, (1, 1, 4)).tolist() == [[[76, 150, 29, 255]]]


def test_grey_fills_all_three_channels() -> None:
    assert read_picture(SMALL, (3, 2, 3)).tolist() == [[[0, 1, 2], [100, 200, 255]]] * 3


def test_sixteen_bits_are_scaled_not_cut_off() -> None:
    data = png(4, 1, GREY, struct.pack(">4H", 0, 256, 32768, 65535), depth=16)
    assert read_picture(data, (1, 1, 4)).tolist() == [[[0, 1, 128, 255]]]
    assert read_picture(data, (3, 1, 4)).tolist() == [[[0, 1, 128, 255]]] * 3


def test_the_picture_is_resized_to_height_and_width() -> None:
    found = read_picture(png(40, 20, GREY, bytes([9] * 800)), (1, 28, 14))
    assert found.shape == (1, 28, 14)
    assert (found == 9).all()
    halves = png(40, 20, GREY, (bytes(20) + bytes([255] * 20)) * 20)
    left, right = np.split(read_picture(halves, (1, 4, 8))[0], 2, axis=1)
    assert left.mean() < 10
    assert right.mean() > 245


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "PPM", "GIF", "WEBP"])
def test_other_kinds_of_pictures(kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 200, 200)).save(buffer, kind)
    found = read_picture(buffer.getvalue(), (1, 8, 8)).astype(int)
    assert (abs(found - 200) <= 2).all()


@pytest.mark.parametrize("shape", [(), (784,), (28, 28), (2, 28, 28), (4, 28, 28), (1, 1, 28, 28)])
def test_a_model_that_takes_no_pictures(shape: tuple[int, ...]) -> None:
    assert "not pictures" in refused(SMALL, shape)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk" * 100,
        b"\x89PNG\r\n\x1a\n",
        SMALL[:40],
        SMALL[:48],
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",  # reading it would start another program
    ],
)
def test_junk(data: bytes) -> None:
    assert "not a picture that can be read" in refused(data)


def test_formats_that_are_not_listed_are_not_opened() -> None:
    buffer = io.BytesIO()
    Image.new("L", (2, 2)).save(buffer, "TIFF")
    assert "PNG, JPEG" in refused(buffer.getvalue())


def test_huge_pictures_are_refused_before_they_are_unpacked() -> None:
    assert str(MAX_PIXELS) in refused(png(8_001, 8_000, GREY, b"\x00"))
    for side in (20_000, 2**31 - 1):  # so many that the library itself refuses
        refused(png(side, side, GREY, b"\x00"))


def test_a_chunk_with_a_broken_name() -> None:
    # The data in two chunks, of which the second is none: found only when the pixels are unpacked.
    whole = png(40, 40, GREY, random.Random(5).randbytes(1600))
    body = whole[41:-16]
    parts = ((b"IDAT", body[:500]), (b"\x00\x01\x02\x03", body[500:]), (b"IEND", b""))
    assert "not a picture that can be read" in refused(whole[:33] + b"".join(chunk(*part) for part in parts))


def test_damaged_pictures_are_bad_input_and_nothing_else() -> None:
    draw = random.Random(5)
    whole = png(40, 40, GREY, draw.randbytes(1600))
    for _ in range(300):
        data = bytearray(whole)
        data[draw.randrange(len(data))] = draw.randrange(256)
        data[draw.randrange(60)] ^= 1 << draw.randrange(8)  # the header as well
        try:
            assert read_picture(bytes(data), (1, 8, 8)).shape == (1, 8, 8)
        except BadInput:
            continue
