"""Pixels moved: affine maps with the nearest pixel taken, and a box cut out. What comes from outside is the gray FILL.

Source: github.com/tensorflow/tpu, models/official/efficientnet/autoaugment.py, and the transforms of TensorFlow that it calls.
A pixel (y, x) of the result is the pixel (b y + a x + c) of the image, rounded half away from 0. Angles and amounts are static,
so where each pixel comes from is known when the program is traced.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Int, UInt8

from vit_attn.ops.augment.move import Map, Row, moved

Image = UInt8[Array, "Y X 3"]
FILL = 128


def rotate(image: Image, level: float) -> Image:
    """Turned clockwise about the middle."""
    height, width = image.shape[0] - 1, image.shape[1] - 1
    cos, sin = math.cos(math.radians(level)), math.sin(math.radians(level))
    x = (cos, -sin, (width - (cos * width - sin * height)) / 2)
    y = (sin, cos, (height - (sin * width + cos * height)) / 2)
    return affine(image, x, y)


def shear_x(image: Image, level: float) -> Image:
    """Row y moved left by level * y."""
    return affine(image, (1.0, level, 0.0), (0.0, 1.0, 0.0))


def shear_y(image: Image, level: float) -> Image:
    """Column x moved up by level * x."""
    return affine(image, (1.0, 0.0, 0.0), (level, 1.0, 0.0))


def translate_x(image: Image, level: float) -> Image:
    """Moved left."""
    return affine(image, (1.0, 0.0, level), (0.0, 1.0, 0.0))


def translate_y(image: Image, level: float) -> Image:
    """Moved up."""
    return affine(image, (1.0, 0.0, 0.0), (0.0, 1.0, level))


def affine(image: Image, x: Row, y: Row) -> Image:
    return moved(image, Map((image.shape[0], image.shape[1]), x, y), FILL)


def cutout(image: Image, pad: int, centre: Int[Array, "2"]) -> Image:
    """A box of 2 pad x 2 pad around `centre` (y, x), as far as it lies in the image, filled."""
    y, x = (jnp.arange(size) - centre[axis] for axis, size in enumerate(image.shape[:2]))
    inside = ((y >= -pad) & (y < pad))[:, None, None] & ((x >= -pad) & (x < pad))[None, :, None]
    return jnp.where(inside, jnp.uint8(FILL), image)
