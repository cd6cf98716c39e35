"""An encoded image -> its pixels, on the host: the whole image, or its shape without decoding. Any thread may call these."""

import io
import struct
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image

FORMATS = ("JPEG", "PNG")  # what TFDS stores
JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
PNG_SHAPE_AT = 16  # width and height, behind the signature and the head of the first chunk
FRAME_HEADS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 ... SOF15 without tables (DHT, JPG, DAC)
BARE_MARKERS = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length: TEM, RST0 ... RST7, SOI
SCAN_HEAD, IMAGE_END = 0xDA, 0xD9


class BadImageError(ValueError):
    """Bytes that are no JPEG or PNG, or a damaged one. The message says which and why."""


def decode(encoded: bytes) -> UInt8[np.ndarray, "Y X 3"]:
    """The RGB pixels (0 to 255) of a JPEG or PNG, whatever its file is called.

    Gray becomes three equal channels, CMYK and YCCK become RGB (Adobe's, which are stored inverted, too), a palette its
    colours; of 16 bits the upper 8 are taken; transparency is dropped. The orientation that EXIF names is not applied, as
    tensorflow does not. Raises BadImageError, also for an image that ends early.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow: a palette's transparency in bytes, and others of no effect
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as opened:
                opened.load()
                return np.asarray(_eight_bits(opened).convert("RGB"))
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, zlib.error and others
        raise BadImageError(_reason(encoded, error)) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """The upper bytes of 16-bit gray, which Pillow would clip at 255; other images as they are."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))


def _reason(encoded: bytes, error: Exception) -> str:
    if not encoded.startswith((JPEG_START, PNG_START)):
        return f"these {len(encoded)} bytes are not an image of the format {' or '.join(FORMATS)}"
    return f"this {'JPEG' if encoded.startswith(JPEG_START) else 'PNG'} of {len(encoded)} bytes is damaged: {error}"


def image_shape(encoded: bytes) -> tuple[int, int]:
    """(height, width) in pixels, from the head of the file. Raises BadImageError where that has none."""
    try:
        if encoded.startswith(JPEG_START):
            height, width = _jpeg_shape(encoded)
        elif encoded.startswith(PNG_START):
            width, height = struct.unpack_from(">II", encoded, PNG_SHAPE_AT)
        else:
            raise ValueError("it starts like neither")
        if not (height and width):
            raise ValueError(f"its head says {height} x {width} pixels")
    except (ValueError, IndexError, struct.error) as error:
        raise BadImageError(_reason(encoded, error)) from error
    return height, width


def _jpeg_shape(encoded: bytes) -> tuple[int, int]:
    """(height, width) from the frame header. Raises ValueError or struct.error where there is none."""
    at = 2
    while True:
        at = encoded.index(b"\xff", at)
        while encoded[at] == 0xFF:  # any number of them may come before a marker
            at += 1
        marker = encoded[at]
        if marker in FRAME_HEADS:
            return struct.unpack_from(">HH", encoded, at + 4)
        if marker in (SCAN_HEAD, IMAGE_END):
            raise ValueError("pixels come before the head of the frame")
        at += 1 if marker in BARE_MARKERS else 1 + struct.unpack_from(">H", encoded, at + 1)[0]
