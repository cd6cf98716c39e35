"""Judges of augmentation: numpy in whole numbers from the definitions, Pillow and TensorFlow; and images to judge on."""

import math
import os
from fractions import Fraction

import numpy as np
from PIL import Image, ImageOps

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


SHAPE = (101, 97)


def photographs() -> dict[str, np.ndarray]:
    """Parts of three."""
    import matplotlib.cbook
    from sklearn.datasets import load_sample_image

    hopper = np.asarray(Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB"))
    china, flower = load_sample_image("china.jpg"), load_sample_image("flower.jpg")
    corners = {"china": (china, 100, 200), "flower": (flower, 40, 100), "hopper": (hopper, 0, 50)}
    return {name: x[top : top + SHAPE[0], left : left + SHAPE[1]] for name, (x, top, left) in corners.items()}


def images() -> dict[str, np.ndarray]:
    """Photographs, noise, few values, one value, a ramp: all of one shape, so that an operation is compiled once."""
    random = np.random.default_rng(7)
    ramp = np.arange(SHAPE[1], dtype=np.uint8)[None, :, None] + np.uint8([3, 90, 158])
    return photographs() | {
        "noise": random.integers(0, 256, (*SHAPE, 3), np.uint8),
        "dim": random.integers(40, 60, (*SHAPE, 3), np.uint8),
        "two values": random.choice(np.uint8([0, 255]), (*SHAPE, 3)),
        "constant": np.full((*SHAPE, 3), 77, np.uint8),
        "ramp": np.broadcast_to(ramp, (*SHAPE, 3)).copy(),
    }


def as_pillow(operation, image, *arguments):
    return np.asarray(operation(Image.fromarray(image), *arguments))


def equalize(image):
    return as_pillow(ImageOps.equalize, image)


def autocontrast(image):
    """floor(255 (x - lo) / (hi - lo))."""
    x = image.astype(np.int64)
    lo, hi = x.min((0, 1)), x.max((0, 1))
    return np.where(hi > lo, (x - lo) * 255 // np.maximum(hi - lo, 1), x).astype(np.uint8)


def blend(degenerate, image, factor: Fraction):
    start = degenerate.astype(np.int64)
    total = start * factor.denominator + factor.numerator * (image.astype(np.int64) - start)
    return np.clip(total // factor.denominator, 0, 255).astype(np.uint8)


def gray(image):
    """floor((0.2989 R + 0.587 G + 0.114 B) 255.5 / 255)."""
    x = image.astype(np.int64)
    return ((2989 * x[..., 0] + 5870 * x[..., 1] + 1140 * x[..., 2]) * 511 // 5100000).astype(np.uint8)


def smooth(image):
    """floor of the sum over 3 x 3 pixels and four times the middle one, by 13; the border as it is."""
    out, x = image.copy(), image.astype(int)
    around = sum(np.roll(x, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1))
    out[1:-1, 1:-1] = ((around + 4 * x) // 13)[1:-1, 1:-1]
    return out


def solarize_add(image, addition: int):
    return np.array([min(v + addition, 255) if v < 128 else v for v in range(256)], np.uint8)[image]


def cutout(image, pad: int, centre):
    out = image.copy()
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            if -pad <= row - centre[0] < pad and -pad <= column - centre[1] < pad:
                out[row, column] = 128
    return out


def transform(image, numbers):
    """TensorFlow's projective transform, nearest; gray where the added fourth channel is 0, as the original code does it."""
    import tensorflow as tf

    wrapped = np.concatenate([image, np.ones_like(image[..., :1])], -1)
    out = tf.raw_ops.ImageProjectiveTransformV3(
        images=wrapped[None],
        transforms=np.float32([numbers]),
        output_shape=image.shape[:2],
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    ).numpy()[0]
    return np.where(out[..., 3:] == 0, np.uint8(128), out[..., :3])


def rotation(image, degrees: float):
    height, width = image.shape[0] - 1.0, image.shape[1] - 1.0
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x = (width - (cos * width - sin * height)) / 2
    y = (height - (sin * width + cos * height)) / 2
    return transform(image, [cos, -sin, x, sin, cos, y, 0, 0])
