"""Folders of pictures: one folder a class, `CLASS/*.png`, or `train/CLASS/*.png` beside `test/CLASS/*.png`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from atoll.errors import BadInput
from atoll.training.data.formats.files import entries, open_limited
from atoll.training.data.formats.found import Found, Options, check_names
from atoll.training.data.samples import Bytes, DataSet

FORMATS = ("PNG", "JPEG", "BMP", "PPM", "GIF", "WEBP")
ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".gif", ".webp"})
MAX_PICTURE_BYTES = 1 << 26
MAX_PIXELS = 64_000_000  # of one picture, as stored
MAX_TOTAL_BYTES = 1 << 32  # of all pictures, as they are kept
TRAIN, HELD_OUT = ("train", "training"), ("test", "val", "valid", "validation", "held-out", "held_out")


def read_images(folder: Path, options: Options) -> Found:
    """Pictures as uint8 [N, 1 or 3, height, width], labelled by their folder; grey if all are.

    Raises BadInput with the file at fault.
    """
    if options.group:
        raise BadInput("Pictures have no column to group them by: leave out --group.")
    inside = [path for path in entries(folder) if path.is_dir()]
    train = [path for path in inside if path.name.lower() in TRAIN]
    held = [path for path in inside if path.name.lower() in HELD_OUT]
    parts = [*train, *held] if len(train) == len(held) == 1 else [folder]
    classes = sorted({path.name for part in parts for path in entries(part) if path.is_dir()})
    if not classes:
        raise BadInput(f"{folder} holds no folders: expected one folder with pictures for each class.")
    check_names(classes, str(folder))
    listed = [
        [(path, place) for place, name in enumerate(classes) for path in _pictures(part / name)] for part in parts
    ]
    if not all(listed):
        raise BadInput(f"{folder} holds no picture: expected files such as {classes[0]}/1.png; {_kinds()}.")
    sets = _read(listed, options)
    return Found(sets[0], sets[1] if len(sets) > 1 else None, classes=len(classes), names=tuple(classes))


def has_images(folder: Path) -> bool:
    """Whether some folder in a folder holds pictures, by their names."""
    inner = [path for path in entries(folder) if path.is_dir()]
    inner += [path for outer in inner if outer.name.lower() in TRAIN for path in entries(outer) if path.is_dir()]
    return any(path.suffix.lower() in ENDINGS for one in inner for path in entries(one))


def _pictures(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.suffix.lower() in ENDINGS] if folder.is_dir() else []


def _read(parts: Sequence[Sequence[tuple[Path, int]]], options: Options) -> list[DataSet]:
    """Pictures of one size and one mode; grey if all are."""
    paths = [path for part in parts for path, _ in part]
    grey = options.grey or all(_is_grey(path) for path in paths)
    first = read_image(paths[0], options.size, grey)
    if first.nbytes * len(paths) > MAX_TOTAL_BYTES:
        raise BadInput(
            f"{len(paths)} pictures of {first.nbytes} bytes: at most {MAX_TOTAL_BYTES} bytes are read; make them "
            "smaller with --size."
        )
    sets = []
    for part in parts:
        x = np.empty((len(part), *first.shape), np.uint8)
        for place, (path, _) in enumerate(part):
            picture = read_image(path, options.size, grey)
            if picture.shape != first.shape:
                raise BadInput(
                    f"{path} has {picture.shape[2]} x {picture.shape[1]} pixels, {paths[0]} {first.shape[2]} x "
                    f"{first.shape[1]}: bring all to one size with --size, as in --size 32x32."
                )
            x[place] = picture
        sets.append(DataSet(x, np.array([label for _, label in part], np.int64)))
    return sets


def read_image(path: Path, size: tuple[int, int] | None, grey: bool) -> Bytes:
    """One picture as uint8 [1 or 3, height, width]; raises BadInput."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with _opened(path) as image:
                turned = ImageOps.exif_transpose(_eight_bits(image)).convert("L" if grey else "RGB")
                fitted = turned.resize((size[1], size[0])) if size else turned
                pixels = np.asarray(fitted, np.uint8)
        except _PICTURE_ERRORS as error:
            raise _unreadable(path, error) from None
    return pixels[None] if grey else np.ascontiguousarray(pixels.transpose(2, 0, 1))


_PICTURE_ERRORS = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def _opened(path: Path) -> Image.Image:
    """A picture whose pixels are still packed; its header must promise no more than the limits allow."""
    image: Image.Image = Image.open(open_limited(path, MAX_PICTURE_BYTES, "a picture"), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise BadInput(f"{path} has {image.width} x {image.height} pixels: at most {MAX_PIXELS} are read.")
    return image


def _is_grey(path: Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with _opened(path) as image:
                return image.mode in ("1", "L", "LA") or image.mode.startswith("I")
        except _PICTURE_ERRORS as error:
            raise _unreadable(path, error) from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """16 bits a pixel are cut to their upper 8, where `convert` would cut off at 255."""
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if image.mode.startswith("I") else image


def _unreadable(path: Path, error: Exception) -> BadInput:
    return BadInput(f"{path} is not a picture that can be read ({str(error)[:200]}): {_kinds()}.")


def _kinds() -> str:
    return f"use {', '.join(FORMATS)}, of at most {MAX_PIXELS} pixels"
