"""Random colours, and random boxes of noise."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, UInt8

from vit_attn.ops.augment.colour import blend, brightness, color, gray

AREA, LOG_ASPECT, ATTEMPTS = (0.02, 1 / 3), math.log(0.3), 10  # timm's defaults of random erasing


def color_jitter(keys: Key[Array, "B"], images: UInt8[Array, "B Y X 3"], strength: float) -> UInt8[Array, "B Y X 3"]:
    """Brightness, contrast and saturation, in this order, each by a factor uniform in [max(0, 1 - strength), 1 + strength].

    Contrast is relative to the mean gray, as in PIL and torchvision, not as in RandAugment.
    """

    def one(key: Key[Array, ""], image: UInt8[Array, "Y X 3"]) -> UInt8[Array, "Y X 3"]:
        light, spread, depth = jax.random.uniform(key, (3,), minval=max(0.0, 1 - strength), maxval=1 + strength)
        return color(contrast_to_mean(brightness(image, light), spread), depth)

    return jax.vmap(one)(keys, images) if strength else images


def contrast_to_mean(image: UInt8[Array, "Y X 3"], factor: float | Float[Array, ""]) -> UInt8[Array, "Y X 3"]:
    """From its mean gray, rounded (factor 0), to the image (1) and beyond: PIL's ImageEnhance.Contrast."""
    mean = gray(image).sum(dtype=jnp.int32).astype(jnp.float32) / (image.shape[0] * image.shape[1])
    return blend((mean + 0.5).astype(jnp.int32).astype(jnp.uint8)[None, None, None], image, factor)


def random_erasing(keys: Key[Array, "B"], images: Float[Array, "B Y X 3"], probability: float) -> Float[Array, "B Y X 3"]:
    """With `probability` a box of the image becomes Gaussian noise (arXiv:1708.04896).

    Its area is uniform in 2...33 % of the image's, the logarithm of height / width uniform between those of 0.3 and 1 / 0.3.
    Of ten such boxes the first that fits is taken; none if none does.
    """

    def one(key: Key[Array, ""], image: Float[Array, "Y X 3"]) -> Float[Array, "Y X 3"]:
        erased, box, noise = jax.random.split(key, 3)
        inside = random_box(box, (image.shape[0], image.shape[1])) & jax.random.bernoulli(erased, probability)
        return jnp.where(inside[..., None], jax.random.normal(noise, image.shape, image.dtype), image)

    return jax.vmap(one)(keys, images) if probability else images


def random_box(key: Key[Array, ""], shape: tuple[int, int]) -> Bool[Array, "Y X"]:
    """True inside the box."""
    key_area, key_aspect, key_place = jax.random.split(key, 3)
    area = jax.random.uniform(key_area, (ATTEMPTS,), minval=AREA[0], maxval=AREA[1]) * (shape[0] * shape[1])
    aspect = jnp.exp(jax.random.uniform(key_aspect, (ATTEMPTS,), minval=LOG_ASPECT, maxval=-LOG_ASPECT))
    sides = jnp.round(jnp.sqrt(jnp.stack([area * aspect, area / aspect], -1))).astype(jnp.int32)
    fits = (sides < jnp.asarray(shape)[None]).all(-1)
    side = sides[jnp.argmax(fits)]
    first = jax.random.randint(key_place, (2,), 0, jnp.maximum(jnp.asarray(shape) - side + 1, 1))
    rows, columns = (
        (jnp.arange(size) >= first[axis]) & (jnp.arange(size) < first[axis] + side[axis]) for axis, size in enumerate(shape)
    )
    return rows[:, None] & columns[None, :] & fits.any()
