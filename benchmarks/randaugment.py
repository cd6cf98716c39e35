"""RandAugment(2, 10) on the host in tensorflow's ops, for the comparison in benchmarks/input_pipeline.py.

The sixteen classic operations with the strengths of Cubuk et al. (2019) at magnitude 10 of 10. Pixels are uint8[S, S, 3]; what
comes in from outside the image is gray.
"""

import math
from collections.abc import Callable

import tensorflow as tf

GRAY = 128
LAYERS = 2
DEGREES, SHEAR, TRANSLATE, CUTOUT, POSTERIZE_BITS, SOLARIZE_ADD, ENHANCE = 30.0, 0.3, 100.0, 40, 4, 110, 1.9


def randaugment(image: tf.Tensor) -> tf.Tensor:
    """Two operations, drawn with equal chances."""
    for _ in range(LAYERS):
        number = tf.random.uniform([], 0, len(OPERATIONS), tf.int32)
        image = tf.switch_case(number, [lambda op=op, image=image: op(image) for op in OPERATIONS])
    return image


def _sign() -> tf.Tensor:
    return tf.where(tf.random.uniform([]) < 0.5, -1.0, 1.0)


def _blend(first: tf.Tensor, second: tf.Tensor, factor: float) -> tf.Tensor:
    first, second = tf.cast(first, tf.float32), tf.cast(second, tf.float32)
    return tf.cast(tf.clip_by_value(first + factor * (second - first), 0, 255), tf.uint8)


def _project(image: tf.Tensor, transform: list[tf.Tensor | float]) -> tf.Tensor:
    """The pixel at (x, y) comes from (a x + b y + c, d x + e y + f); nearest neighbour."""
    size = tf.shape(image)[:2]
    row = tf.stack([tf.cast(number, tf.float32) for number in (*transform, 0.0, 0.0)])[None]
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image[None], tf.int32) - GRAY,  # outside is 0
        transforms=row,
        output_shape=size,
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )
    return tf.cast(moved[0] + GRAY, tf.uint8)


def _rotate(image: tf.Tensor) -> tf.Tensor:
    angle = _sign() * math.radians(DEGREES)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    middle_y, middle_x = ((tf.cast(side, tf.float32) - 1) / 2 for side in tf.unstack(tf.shape(image)[:2]))
    shift_x = middle_x - cosine * middle_x + sine * middle_y
    return _project(image, [cosine, -sine, shift_x, sine, cosine, middle_y - sine * middle_x - cosine * middle_y])


def _autocontrast(image: tf.Tensor) -> tf.Tensor:
    low = tf.cast(tf.reduce_min(image, [0, 1]), tf.float32)
    high = tf.cast(tf.reduce_max(image, [0, 1]), tf.float32)
    scaled = (tf.cast(image, tf.float32) - low) * 255 / tf.maximum(high - low, 1)
    return tf.where(high > low, tf.cast(tf.clip_by_value(scaled, 0, 255), tf.uint8), image)


def _equalize(image: tf.Tensor) -> tf.Tensor:
    def channel(values: tf.Tensor) -> tf.Tensor:
        counts = tf.math.bincount(tf.reshape(tf.cast(values, tf.int32), [-1]), minlength=256)
        step = (tf.reduce_sum(counts) - counts[tf.reduce_max(tf.cast(values, tf.int32))]) // 255
        table = tf.clip_by_value((tf.cumsum(counts, exclusive=True) + step // 2) // tf.maximum(step, 1), 0, 255)
        return tf.where(step > 0, tf.cast(tf.gather(table, tf.cast(values, tf.int32)), tf.uint8), values)

    return tf.stack([channel(image[..., c]) for c in range(3)], -1)


def _color(image: tf.Tensor) -> tf.Tensor:
    return _blend(tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image)), image, ENHANCE)


def _contrast(image: tf.Tensor) -> tf.Tensor:
    mean = tf.reduce_mean(tf.cast(tf.image.rgb_to_grayscale(image), tf.float32))
    return _blend(tf.fill(tf.shape(image), mean), image, ENHANCE)


def _sharpness(image: tf.Tensor) -> tf.Tensor:
    kernel = tf.tile(tf.constant([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]])[:, :, None, None] / 13, [1, 1, 3, 1])
    smooth = tf.nn.depthwise_conv2d(tf.cast(image, tf.float32)[None], kernel, [1, 1, 1, 1], "VALID")[0]
    inner = tf.pad(tf.ones_like(smooth), [[1, 1], [1, 1], [0, 0]])
    smooth = tf.where(inner > 0, tf.pad(smooth, [[1, 1], [1, 1], [0, 0]]), tf.cast(image, tf.float32))
    return _blend(smooth, image, ENHANCE)


def _cutout(image: tf.Tensor) -> tf.Tensor:
    size = tf.shape(image)
    centre = [tf.random.uniform([], 0, size[axis], tf.int32) for axis in (0, 1)]
    rows = tf.abs(tf.range(size[0]) - centre[0]) < CUTOUT
    columns = tf.abs(tf.range(size[1]) - centre[1]) < CUTOUT
    return tf.where((rows[:, None] & columns[None])[..., None], tf.cast(GRAY, tf.uint8), image)


def _solarize_add(image: tf.Tensor) -> tf.Tensor:
    added = tf.cast(tf.minimum(tf.cast(image, tf.int32) + SOLARIZE_ADD, 255), tf.uint8)
    return tf.where(image < GRAY, added, image)


OPERATIONS: tuple[Callable[[tf.Tensor], tf.Tensor], ...] = (
    _autocontrast,
    _equalize,
    lambda image: 255 - image,
    _rotate,
    lambda image: tf.bitwise.left_shift(tf.bitwise.right_shift(image, 8 - POSTERIZE_BITS), 8 - POSTERIZE_BITS),
    lambda image: image,  # solarizing above 256
    _color,
    _contrast,
    lambda image: _blend(tf.zeros_like(image), image, ENHANCE),  # brightness
    _sharpness,
    lambda image: _project(image, [1.0, _sign() * SHEAR, 0.0, 0.0, 1.0, 0.0]),
    lambda image: _project(image, [1.0, 0.0, 0.0, _sign() * SHEAR, 1.0, 0.0]),
    lambda image: _project(image, [1.0, 0.0, _sign() * TRANSLATE, 0.0, 1.0, 0.0]),
    lambda image: _project(image, [1.0, 0.0, 0.0, 0.0, 1.0, _sign() * TRANSLATE]),
    _cutout,
    _solarize_add,
)
