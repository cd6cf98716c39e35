"""An encoded image -> the uint8 square that a batch holds, on the host. Flips and colours come later, on the device."""

from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vit_attn.data.crop import inception_crop
from vit_attn.data.decode import BadImageError, decode, image_shape
from vit_attn.data.part import decode_part

Method = Literal["bilinear", "area"]
Fit = Literal["square", "small"]

MOST_RATIO = 100  # of the sides of an image: resized by its smaller one, a line would fill the memory

cv2.setNumThreads(0)  # the callers are threads themselves: OpenCV's own would fight them for the cores


def train_view(
    encoded: bytes, image_size: int, rng: np.random.Generator, min_area: float = 0.05, out: np.ndarray | None = None
) -> UInt8[np.ndarray, "{image_size} {image_size} 3"]:
    """A random crop of at least `min_area` of the image, resized to the square bilinearly, without antialiasing.

    Written to `out` if that is given: memory that is asked for anew for each image costs a tenth of the time. Of a JPEG only
    the crop is decoded. Raises BadImageError for what cannot be decoded; damage behind the last row of the crop is not seen.
    """
    box = inception_crop(rng, *image_shape(encoded), min_area)
    return cv2.resize(decode_part(encoded, box), (image_size, image_size), dst=out, interpolation=cv2.INTER_LINEAR)


def whole_view(encoded: bytes, image_size: int) -> UInt8[np.ndarray, "{image_size} {image_size} 3"]:
    """The whole image as a square: its own pixels where it has that size, else resized by Pillow, bilinearly, antialiased.

    The ratio of the sides is not kept. For sets of small images. Raises BadImageError.
    """
    pixels = decode(encoded)
    if pixels.shape[:2] == (image_size, image_size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((image_size, image_size), Image.Resampling.BILINEAR))


def eval_view(
    encoded: bytes, image_size: int, fit: Fit = "small", resize_pixels: int = 256, method: Method = "bilinear"
) -> UInt8[np.ndarray, "{image_size} {image_size} 3"]:
    """The whole image, resized, then its central square of image_size <= resize_pixels.

    `fit` "square": both sides become `resize_pixels`. "small": the smaller side does, the longer one shrinks or grows by the
    same factor, to the nearest integer (big_vision's resize_small). Raises BadImageError.
    """
    pixels = decode(encoded)
    height, width = pixels.shape[:2]
    if max(height, width) > MOST_RATIO * min(height, width):
        raise BadImageError(f"an image of {height} x {width} pixels is too long and thin")
    if fit == "square":
        height = width = resize_pixels
    else:
        factor = resize_pixels / min(height, width)
        height, width = round(height * factor), round(width * factor)
    y, x = (height - image_size) // 2, (width - image_size) // 2
    return np.ascontiguousarray(resize(pixels, height, width, method)[y : y + image_size, x : x + image_size])


def resize(pixels: UInt8[np.ndarray, "Y X 3"], height: int, width: int, method: Method) -> np.ndarray:
    """uint8[height, width, 3], as tf.image.resize(method, antialias=False) rounded to the nearest integer.

    "bilinear" takes the four neighbours of each new pixel's centre, "area" the mean over the area that the new pixel covers.
    """
    if method == "bilinear":
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    if height <= pixels.shape[0] and width <= pixels.shape[1]:
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    rows, columns = _overlaps(pixels.shape[0], height), _overlaps(pixels.shape[1], width)
    wide = np.einsum("Xx,yxc->yXc", columns, pixels.astype(np.float32), optimize=True)
    return np.rint(np.einsum("Yy,yXc->YXc", rows, wide, optimize=True)).astype(np.uint8, order="C")


def _overlaps(old: int, new: int) -> np.ndarray:
    """float32[new, old]: the share of each old pixel in the stretch that a new one covers."""
    edges = np.arange(new + 1) * (old / new)
    start, stop = edges[:-1, None], edges[1:, None]
    at = np.arange(old)
    overlap = np.clip(np.minimum(stop, at + 1) - np.maximum(start, at), 0, None)
    return (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)
