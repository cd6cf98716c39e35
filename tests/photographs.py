"""Real photographs as encoded images, and images of every unusual kind. Deterministic; made of what installed packages ship."""

import io
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.cbook
import numpy as np
import sklearn.datasets
from PIL import Image

SIDES = ((375, 500), (500, 375), (333, 500), (281, 383))  # height, width: ImageNet's most frequent, and primes


@cache
def pictures() -> tuple[np.ndarray, ...]:
    """uint8[Y, X, 3]: two photographs of scikit-learn and one of matplotlib."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file, Image.open(file) as opened:
        portrait = np.asarray(opened.convert("RGB"))
    folder = Path(sklearn.datasets.__file__).parent / "images"
    return (*(np.asarray(Image.open(path)) for path in sorted(folder.glob("*.jpg"))), portrait)


def tile(seed: int, height: int, width: int) -> np.ndarray:
    """A random part of one of the pictures, which is magnified first where it is too small."""
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(pictures()[seed % len(pictures())])
    zoom = max(1.0, height / picture.height, width / picture.width)
    whole = np.asarray(picture.resize((int(np.ceil(picture.width * zoom)), int(np.ceil(picture.height * zoom)))))
    y, x = rng.integers(whole.shape[0] - height + 1), rng.integers(whole.shape[1] - width + 1)
    return whole[y : y + height, x : x + width]


def photographs(n: int, seed: int = 0) -> list[bytes]:
    """n JPEGs at ImageNet's sizes, quality 92 to 95, of each chroma resolution in turn."""
    return [
        jpeg(tile(seed + i, *SIDES[i % len(SIDES)]), quality=92 + i % 4, subsampling=("4:2:0", "4:4:4", "4:2:2")[i % 3])
        for i in range(n)
    ]


def save(image: Image.Image, name: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, name, **options)
    return stream.getvalue()


def jpeg(pixels: np.ndarray, **options: Any) -> bytes:
    """A JPEG of uint8[Y, X, 3] or gray uint8[Y, X]; `options` are Pillow's: quality, subsampling, progressive, optimize."""
    return save(Image.fromarray(pixels), "JPEG", **options)


def png(pixels: np.ndarray) -> bytes:
    return save(Image.fromarray(pixels), "PNG")


def truncated(encoded: bytes, share: float = 0.6) -> bytes:
    return encoded[: int(len(encoded) * share)]


def corrupt(encoded: bytes, share: float = 0.4, length: int = 300) -> bytes:
    """With ones in place of some of the bits, which no Huffman code of JPEG starts with."""
    at = int(len(encoded) * share)
    return encoded[:at] + b"\xff\x00" * (length // 2) + encoded[at + length :]


def cmyk_jpeg(pixels: np.ndarray) -> bytes:
    """As Adobe's programs write it: inverted, with a marker that says so. Black is 0, cyan is 255 - red, and so on."""
    cyan = Image.fromarray(np.concatenate([255 - pixels, np.zeros_like(pixels[..., :1])], -1), "CMYK")
    return save(cyan, "JPEG", quality=95)


def ycck_jpeg(pixels: np.ndarray) -> bytes:
    """The same in YCCK: channels that already are it are stored as CMYK, then Adobe's marker is changed to name YCCK."""
    rgb = Image.fromarray(255 - pixels)
    luma, blue, red = (np.asarray(band) for band in rgb.convert("YCbCr").split())
    planes = np.stack([luma, blue, red, np.full_like(luma, 255)], -1)
    encoded = bytearray(save(Image.fromarray(255 - planes, "CMYK"), "JPEG", quality=95))  # Pillow inverts what it stores
    marker = encoded.index(b"Adobe")
    encoded[marker + 11] = 2
    return bytes(encoded)


def png_16_bits(values: np.ndarray) -> bytes:
    """A PNG of uint16[Y, X] or uint16[Y, X, 3], put together by hand: Pillow writes no colours of 16 bits."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 0 if values.ndim == 2 else 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def palette_png(pixels: np.ndarray, colours: int = 17) -> bytes:
    """With `colours` colours, of which one is transparent."""
    return save(Image.fromarray(pixels).quantize(colours), "PNG", transparency=3)
