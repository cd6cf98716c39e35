"""A box of a JPEG -> RGB. Only the bits above its lower edge are read, only its blocks transformed."""

import threading
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from vit_attn.data.crop import Box
from vit_attn.data.jpeg.codes import make_codes
from vit_attn.data.jpeg.head import Component, Head, read_head
from vit_attn.data.jpeg.scan import OK, PADDING, read_units, unstuff

MOST_PIXELS = 2**26  # of an image; what claims to have more is left to the other decoder, which has limits of its own
PLACES = np.full(256, 64)
PLACES[:64] = sorted(range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8))  # zigzag

_scratch = threading.local()


def decode_box(encoded: bytes, box: Box) -> UInt8[np.ndarray, "Y X 3"] | None:
    """The RGB pixels of `box` = (y, x, height, width), in memory that this thread's next call uses again.

    None for a JPEG of a kind that `read_head` leaves out, one whose bits are not valid or end above the box's lower edge, and
    a box that does not lie in it. Memory is kept because the system clears what is fresh, page by page.
    """
    head = read_head(encoded)
    y, x, height, width = box
    if head is None or y + height > head.height or x + width > head.width or head.height * head.width > MOST_PIXELS:
        return None
    planes = _planes(encoded, head, box)
    if planes is None:
        return None
    luma, blue, red = planes if len(planes) == 3 else planes * 3
    pixels = cv2.merge((luma, red, blue), _image("pixels", height, width))
    return cv2.cvtColor(pixels, cv2.COLOR_YCrCb2RGB, _image("rgb", height, width)) if len(planes) == 3 else pixels


def _planes(encoded: bytes, head: Head, box: Box) -> list[np.ndarray] | None:
    """uint8[height, width] of the box for each component, at the resolution of luma."""
    y, x, height, width = box
    luma = head.components[0]
    unit_y, unit_x = 8 * luma.down, 8 * luma.across
    # Chroma of half the resolution is interpolated: it needs a pixel more on each side.
    top, left = max(0, y - luma.down + 1) // unit_y, max(0, x - luma.across + 1) // unit_x
    bottom = -(-min(head.height, y + height + luma.down - 1) // unit_y)
    right = -(-min(head.width, x + width + luma.across - 1) // unit_x)
    read = _read(encoded, head, (left, right, top, bottom))
    if read is None:
        return None
    shape = min(head.height - top * unit_y, (bottom - top) * unit_y), min(head.width - left * unit_x, (right - left) * unit_x)
    y, x = y - top * unit_y, x - left * unit_x
    full = [read[0], *(_at_full_resolution(plane, luma, shape) for plane in read[1:])]
    return [plane[y : y + height, x : x + width] for plane in full]


def _at_full_resolution(plane: np.ndarray, luma: Component, shape: tuple[int, int]) -> np.ndarray:
    """A chroma plane of which `shape` pixels of luma lie in the image, interpolated bilinearly, as libjpeg does."""
    if luma.across == luma.down == 1:
        return plane
    height, width = -(-shape[0] // luma.down), -(-shape[1] // luma.across)
    return cv2.resize(plane[:height, :width], (width * luma.across, height * luma.down), interpolation=cv2.INTER_LINEAR)


def _read(encoded: bytes, head: Head, units: tuple[int, int, int, int]) -> list[np.ndarray] | None:
    """The planes of the units left <= x < right, top <= y < bottom, each at its own resolution."""
    left, right, top, bottom = units
    parts = head.components
    codes = make_codes(tuple(code for part in parts for code in (part.dc_code, part.ac_code)))
    if codes is None:
        return None
    layout = _layout(tuple((part.across, part.down) for part in parts), right - left, bottom - top)
    data = _buffer("data", len(encoded) + PADDING, np.uint8)
    out = _buffer("out", 65 * layout.columns, np.float32).reshape(65, layout.columns)
    out[:] = 0
    planes = _buffer("planes", layout.words, np.uint64)
    span = (-(-head.width // (8 * parts[0].across)), left, right, top, bottom)
    quants = _quants(tuple(part.quant for part in parts))
    count = unstuff(np.frombuffer(encoded, np.uint8), head.scan_start, data)
    if read_units(data, count, span, layout.blocks, layout.strips, codes, quants, PLACES, out, planes) != OK:
        return None
    return [planes[at : at + rows * words].view(np.uint8).reshape(rows, 8 * words) for at, rows, words in layout.planes]


def _buffer(name: str, size: int, dtype: type) -> np.ndarray:
    """An array that belongs to this thread; the next call of the same name gets it again."""
    have = getattr(_scratch, name, None)
    if have is None or have.size < size:
        have = np.empty(size + size // 4, dtype)
        setattr(_scratch, name, have)
    return have[:size]


def _image(name: str, height: int, width: int) -> np.ndarray:
    return _buffer(name, height * width * 3, np.uint8).reshape(height, width, 3)


@lru_cache(256)
def _quants(tables: tuple[bytes, ...]) -> np.ndarray:
    quants = np.zeros((len(tables), 256), np.float32)
    quants[:, :64] = [list(table) for table in tables]
    return quants


class Layout(NamedTuple):
    """Where scan.read_units puts things."""

    blocks: np.ndarray
    strips: np.ndarray
    planes: list[tuple[int, int, int]]  # first word, rows, words in a row
    columns: int
    words: int


@lru_cache(4096)
def _layout(sampling: tuple[tuple[int, int], ...], wide: int, high: int) -> Layout:
    """For wide x high units with components of (across, down) blocks."""
    blocks: list[tuple[int, ...]] = []
    strips: list[tuple[int, ...]] = []
    planes: list[tuple[int, int, int]] = []
    column = word = 0
    for c, (across, down) in enumerate(sampling):
        for row in range(down):
            strips.append((column, wide * across, word + 8 * row * wide * across, wide * across, 8 * down))
            blocks += [(c, 2 * c, 2 * c + 1, column + i, across) for i in range(across)]
            column += wide * across
        planes.append((word, 8 * high * down, wide * across))
        word += 8 * high * down * wide * across
    return Layout(np.array(blocks), np.array(strips), planes, column, word)
