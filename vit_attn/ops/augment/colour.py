"""Changes of colour, as the TensorFlow code of AutoAugment has them, of one image of bytes.

Source: tensorflow/tpu on GitHub, models/official/efficientnet/autoaugment.py (arXiv:1805.09501, 1909.13719), which follows PIL.
Where that code truncates a float32 that should be a whole number, it takes the rounding of the machine it runs on; here such a
number is always what it is in exact arithmetic, so that all platforms make the same pixels.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from vit_attn.ops.augment.table import counts, look_up

Image = UInt8[Array, "Y X 3"]

ABOVE_NOISE = 2.0**-9  # more than float32's errors in numbers up to 1500, less than the distance of k / 100 or k / 255 to 1
GRAY_BITS = 22  # the most with which 256 levels fit int32
GRAY = [round(weight * 255.5 / 255 * 2**GRAY_BITS) for weight in (0.2989, 0.5870, 0.1140)]  # tf.image.rgb_to_grayscale's


def autocontrast(image: Image) -> Image:
    """Each channel stretched to 0...255: floor(255 (x - lo) / (hi - lo)); a channel of one value stays."""
    x = image.astype(jnp.float32)
    lo, hi = x.min((0, 1), keepdims=True), x.max((0, 1), keepdims=True)
    return jnp.where(hi > lo, whole((x - lo) * (255.0 / jnp.maximum(hi - lo, 1.0))), image)


def equalize(image: Image) -> Image:
    """Each channel through a table that makes its values nearly uniform: PIL's ImageOps.equalize."""
    histogram = counts(image)
    below = jnp.cumsum(histogram, axis=1) - histogram
    step = (image.shape[0] * image.shape[1] - last_count(histogram)) // 255
    table = jnp.minimum((below + step // 2) // jnp.maximum(step, 1), 255)
    return look_up(jnp.where(step == 0, jnp.arange(256)[None], table), image)


def last_count(histogram: Int[Array, "3 256"]) -> Int[Array, "3 1"]:
    """How many pixels have the highest value that occurs."""
    highest = jnp.where(histogram > 0, jnp.arange(256)[None], 0).max(1, keepdims=True)
    return jnp.where(jnp.arange(256)[None] == highest, histogram, 0).sum(1, keepdims=True)


def invert(image: Image) -> Image:
    """255 - x."""
    return 255 - image


def posterize(image: Image, bits: int) -> Image:
    """The upper `bits` of each byte, at least one (TensorFlow shifts by 7 at most)."""
    kept = min(max(bits, 1), 8)
    return image & jnp.uint8(256 - 2 ** (8 - kept))


def solarize(image: Image, threshold: int) -> Image:
    """x below the threshold, 255 - x from there on."""
    return jnp.where(image.astype(jnp.int32) < threshold, image, 255 - image)


def solarize_add(image: Image, addition: int) -> Image:
    """min(x + addition, 255) where x < 128."""
    x = image.astype(jnp.int32)
    return jnp.where(x < 128, jnp.clip(x + addition, 0, 255), x).astype(jnp.uint8)


def color(image: Image, factor: float | Float[Array, ""]) -> Image:
    """From its gray image (factor 0) to itself (1) and beyond."""
    return blend(gray(image)[..., None], image, factor)


def contrast(image: Image, factor: float | Float[Array, ""]) -> Image:
    """From one gray (factor 0) to the image (1) and beyond.

    The gray is Y X / 256, and 255 at most: the code sums the histogram where PIL would take the mean of the pixels.
    """
    return blend(jnp.full((1, 1, 1), min(image.shape[0] * image.shape[1] // 256, 255), jnp.uint8), image, factor)


def brightness(image: Image, factor: float | Float[Array, ""]) -> Image:
    """From black (factor 0) to the image (1) and beyond."""
    return blend(jnp.zeros((1, 1, 1), jnp.uint8), image, factor)


def sharpness(image: Image, factor: float) -> Image:
    """From the image smoothed by [1 1 1; 1 5 1; 1 1 1] / 13 (factor 0) to itself (1) and beyond. The border stays."""
    height, width = image.shape[:2]
    x = image.astype(jnp.int32)
    rows = x[:-2] + x[1:-1] + x[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * x[1:-1, 1:-1]
    smooth = jnp.pad(whole(total.astype(jnp.float32) * (1 / 13)), ((1, 1), (1, 1), (0, 0)))
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    inside = (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
    return blend(jnp.where(inside, smooth, image), image, factor)


def gray(image: Image) -> UInt8[Array, "Y X"]:
    """floor of 0.2989 R + 0.587 G + 0.114 B, times 255.5 / 255: tf.image.rgb_to_grayscale."""
    x = image.astype(jnp.int32)
    total = GRAY[0] * x[..., 0] + GRAY[1] * x[..., 1] + GRAY[2] * x[..., 2]
    return (total >> GRAY_BITS).astype(jnp.uint8)


def blend(degenerate: UInt8[Array, "#Y #X #3"], image: Image, factor: float | Float[Array, ""]) -> Image:
    """floor of degenerate + factor (image - degenerate), within 0...255."""
    start = degenerate.astype(jnp.float32)
    return whole(start + factor * (image.astype(jnp.float32) - start))


def whole(x: Float[Array, "Y X 3"]) -> Image:
    """floor of x within 0...255, where x may be a little below the number that is meant."""
    return jnp.clip(x + ABOVE_NOISE, 0.0, 255.0).astype(jnp.int32).astype(jnp.uint8)
