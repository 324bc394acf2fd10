"""Folders of pictures: pixels as Pillow sees them, sizes, modes, parts; and files that are traps."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atoll.errors import BadInput
from atoll.training.data.formats.found import Options
from atoll.training.data.formats.images import has_images, read_images

RANDOM = np.random.default_rng(5)


def picture(path: Path, height: int = 4, width: int = 6, channels: int = 3) -> np.ndarray:
    """Write a picture of random pixels and return them as [height, width(, 3)]."""
    pixels = RANDOM.integers(0, 256, (height, width, 3) if channels == 3 else (height, width), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def png(width: int, height: int, data: bytes = b"", chunks: bytes = b"") -> bytes:
    """A PNG file of grey pixels, written by hand."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunks + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_classes_are_folders_and_colours_come_first(tmp_path: Path) -> None:
    dog, cat, last = (picture(tmp_path / name) for name in ("dog/a.png", "cat/1.png", "cat/2.bmp"))
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    found = read_images(tmp_path, Options())
    assert has_images(tmp_path)
    assert found.names == ("cat", "dog")
    assert found.data.y.tolist() == [0, 0, 1]
    assert found.data.x.shape == (3, 3, 4, 6)
    for kept, pixels in zip(found.data.x, (cat, last, dog), strict=True):
        assert np.array_equal(kept.transpose(1, 2, 0), pixels)


def test_grey_pictures_have_one_channel(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "a" / "1.png", channels=1)
    deep = (RANDOM.integers(0, 256, (4, 6)) * 257).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "a" / "2.png")  # 16 bits a pixel
    found = read_images(tmp_path, Options())
    assert found.data.x.shape == (2, 1, 4, 6)
    assert np.array_equal(found.data.x[0, 0], pixels)
    assert np.array_equal(found.data.x[1, 0], deep >> 8)
    coloured = picture(tmp_path / "b" / "3.png")
    assert read_images(tmp_path, Options()).data.x.shape == (3, 3, 4, 6)
    grey = read_images(tmp_path, Options(grey=True)).data.x
    weights = np.array([0.299, 0.587, 0.114])  # ITU-R 601-2, which Pillow uses
    assert np.abs(grey[2, 0] - coloured @ weights).max() < 1


def test_pictures_of_several_sizes_need_a_common_one(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "b" / "2.png", 5, 7)
    with pytest.raises(BadInput, match=r"2.png has 7 x 5 pixels, .*1.png 6 x 4: bring all to one size with --size"):
        read_images(tmp_path, Options())
    found = read_images(tmp_path, Options(size=(8, 9)))
    assert found.data.x.shape == (2, 3, 8, 9)
    with Image.open(tmp_path / "b" / "2.png") as image:
        assert np.array_equal(found.data.x[1].transpose(1, 2, 0), np.asarray(image.resize((9, 8))))


def test_a_part_that_is_kept_apart(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/b/2.png", "test/b/3.png"):
        picture(tmp_path / name)
    assert has_images(tmp_path)
    found = read_images(tmp_path, Options())
    assert found.held_out is not None
    assert (found.data.y.tolist(), found.held_out.y.tolist()) == ([0, 1], [1])


def test_jpeg_is_read_as_pillow_does(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.jpg", 16, 16)
    with Image.open(tmp_path / "a" / "1.jpg") as image:
        wanted = np.asarray(image)
    assert np.array_equal(read_images(tmp_path, Options()).data.x[0].transpose(1, 2, 0), wanted)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (png(100_000, 100_000, bytes(1000)), "has 100000 x 100000 pixels|exceeds limit"),  # 10^10 pixels
        (png(10_000, 10_000, bytes(1000)), "has 10000 x 10000 pixels|exceeds limit"),
        (png(4, 4, bytes(3)), "is not a picture that can be read"),
        (png(0, 4), "is not a picture that can be read"),
        (png(4, 4)[:40], "is not a picture that can be read"),
        (b"", "is not a picture that can be read"),
        (b"<svg/>", "is not a picture that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture that can be read"),
    ],
)
def test_traps(tmp_path: Path, content: bytes, why: str) -> None:
    picture(tmp_path / "a" / "1.png", 4, 4, channels=1)
    (tmp_path / "a" / "2.png").write_bytes(content)
    with pytest.raises(BadInput, match=why):
        read_images(tmp_path, Options())


def test_a_bomb_of_compressed_text_in_a_picture(tmp_path: Path) -> None:
    content = b"comment\0\0" + zlib.compress(bytes(80_000_000), 9)
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(png(1, 1, bytes(2), chunk))
    with pytest.raises(BadInput, match="is not a picture that can be read"):
        read_images(tmp_path, Options())


def test_links_are_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    picture(folder / "a" / "1.png")
    picture(tmp_path / "secret" / "2.png")
    for link, aim in (("a/2.png", tmp_path / "secret" / "2.png"), ("b", tmp_path / "secret")):
        (folder / link).symlink_to(aim)
        with pytest.raises(BadInput, match=r"is a link: put the file itself there"):
            read_images(folder, Options())
        (folder / link).unlink()
    (folder / "a" / "loop").symlink_to(folder)
    with pytest.raises(BadInput, match="is a link"):
        read_images(folder, Options())


def test_folders_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no folders"):
        read_images(tmp_path, Options())
    (tmp_path / "a").mkdir()
    with pytest.raises(BadInput, match="holds no picture"):
        read_images(tmp_path, Options())
    (tmp_path / "a" / "1.png").mkdir()
    with pytest.raises(BadInput, match="is not a plain file"):
        read_images(tmp_path, Options())
    with pytest.raises(BadInput, match="leave out --group"):
        read_images(tmp_path, Options(group="who"))
