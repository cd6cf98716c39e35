"""Random crops of training images, as pure functions of (seed, epoch, example)."""

import math

import numpy as np

ATTEMPTS = 100  # then the whole image
WORD = 2**64

Box = tuple[int, int, int, int]  # y, x, height, width


def crop_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of example `index` in epoch `epoch`: the same in any process, unrelated to those of any other.

    Philox is a counter put through a cipher (Salmon et al. 2011): (seed, epoch) is the key, `index` the upper word of the
    counter, so the streams cannot overlap. Takes a few microseconds.
    """
    return np.random.Generator(np.random.Philox(key=[seed % WORD, epoch % WORD], counter=[0, 0, 0, index % WORD]))


def inception_crop(
    rng: np.random.Generator,
    height: int,
    width: int,
    min_area: float = 0.05,
    max_area: float = 1.0,
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A box (y, x, height, width) in an image of height x width pixels, drawn as by tf.image.sample_distorted_bounding_box.

    That is, with the whole image as its bounding box: width / height uniform in `ratio`, then the height uniform among those
    with which the box lies in the image and has `min_area` to `max_area` of its area, then the place; the whole image after
    100 attempts without such a box. Like there, a box that is smaller than the image never touches its far edge.
    """
    least, most = min_area * height * width, max_area * height * width
    for _ in range(ATTEMPTS):
        shape = _box_shape(rng, height, width, least, most, rng.uniform(*ratio))
        if shape:
            box_height, box_width = shape
            return _offset(rng, height - box_height), _offset(rng, width - box_width), box_height, box_width
    return 0, 0, height, width


def _box_shape(
    rng: np.random.Generator, height: int, width: int, least: float, most: float, ratio: float
) -> tuple[int, int] | None:
    """(height, width) of a box of `least` to `most` pixels with width / height = `ratio`, or None if it does not fit."""
    lowest, highest = round(math.sqrt(least / ratio)), round(math.sqrt(most / ratio))
    if round(highest * ratio) > width:
        highest = int((width + 0.5 - 1e-7) / ratio)
        highest -= round(highest * ratio) > width
    highest = min(highest, height)
    box_height = highest if lowest >= highest else int(rng.integers(lowest, highest + 1))
    if box_height * round(box_height * ratio) < least:  # rounding may have taken it out of the range, by one pixel
        box_height += 1
    if box_height * round(box_height * ratio) > most:
        box_height -= 1
    box_width = round(box_height * ratio)
    fits = 0 < box_height <= height and 0 < box_width <= width and least <= box_height * box_width <= most
    return (box_height, box_width) if fits else None


def _offset(rng: np.random.Generator, room: int) -> int:
    return int(rng.integers(room)) if room else 0
