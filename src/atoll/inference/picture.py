"""From a picture file to the input of a model: greyscale or colour, resized, uint8."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from atoll.errors import BadInput

MAX_PIXELS = 64_000_000
FORMATS = ("PNG", "JPEG", "BMP", "PPM", "GIF", "WEBP")


def read_picture(data: bytes, shape: Sequence[int], invert: bool = False) -> NDArray[np.uint8]:
    """The picture as uint8 of `shape` [1 or 3, height, width]; `invert` for dark ink on light paper.

    Raises BadInput for a file that is no picture, is too large, or for a model that takes no pictures.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise BadInput(f"The model takes inputs of shape {list(shape)}, not pictures.")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise BadInput(f"The picture has {image.width} x {image.height} pixels; at most {MAX_PIXELS} are read.")
        if image.mode.startswith("I"):  # 16 bits a pixel, which `convert` would cut off at 255
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = image.convert("L" if shape[0] == 1 else "RGB").resize((shape[2], shape[1]))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        kinds = ", ".join(FORMATS)
        raise BadInput(f"The file is not a picture that can be read ({error}); use one of {kinds}.") from None
    pixels = np.asarray(image, np.uint8)
    if invert:
        pixels = (255 - pixels).astype(np.uint8)
    return pixels[None] if shape[0] == 1 else pixels.transpose(2, 0, 1)
