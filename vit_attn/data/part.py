"""A box of an encoded image -> its pixels."""

from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import UInt8

from vit_attn.data.crop import Box
from vit_attn.data.decode import JPEG_START, BadImageError, decode

DecodeBox = Callable[[bytes, Box], np.ndarray | None]


def decode_part(encoded: bytes, box: Box) -> UInt8[np.ndarray, "Y X 3"]:
    """The pixels of `box` = (y, x, height, width): decode(encoded)[y : y + height, x : x + width], but faster.

    They are on loan: this thread's next call may write others to the same memory.

    Of a JPEG of the common kind (see jpeg.head) little more than the box is decoded: its pixels differ from those of `decode`
    by rounding, at most by 4 levels, and damage behind its last row is not seen. Raises BadImageError otherwise.
    """
    if encoded.startswith(JPEG_START) and (decode_box := _decode_box()) and (pixels := decode_box(encoded, box)) is not None:
        return pixels
    y, x, height, width = box
    pixels = decode(encoded)
    if y + height > pixels.shape[0] or x + width > pixels.shape[1]:
        raise BadImageError(f"the box {box} does not lie in this image of {pixels.shape[0]} x {pixels.shape[1]} pixels")
    return np.ascontiguousarray(pixels[y : y + height, x : x + width])


@cache
def _decode_box() -> DecodeBox | None:
    """jpeg.box.decode_box, which needs numba; None where that is not installed. Loading it takes a second."""
    try:
        from vit_attn.data.jpeg.box import decode_box
    except ImportError:
        return None
    return decode_box
