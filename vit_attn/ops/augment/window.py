"""Augmentation on the device, a pure function of (seed, step, place in the batch): a resumed run sees the same pixels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8


def example_keys(seed: int, step: Int[Array, ""], batch_images: int) -> Key[Array, "B"]:
    """One random key an image: (seed, step, place in the global batch) -> key."""
    step_key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda i: jax.random.fold_in(step_key, i))(jnp.arange(batch_images))


def random_crop(keys: Key[Array, "B"], images: UInt8[Array, "B Y X C"], padding: int) -> UInt8[Array, "B Y X C"]:
    """Reflects `padding` pixels around every image and cuts a random window of the old size out of it."""
    around = ((padding, padding), (padding, padding), (0, 0))

    def one(key: Key[Array, ""], image: UInt8[Array, "Y X C"]) -> UInt8[Array, "Y X C"]:
        y, x = jax.random.randint(key, (2,), 0, 2 * padding + 1)
        return jax.lax.dynamic_slice(jnp.pad(image, around, mode="reflect"), (y, x, 0), image.shape)

    return jax.vmap(one)(keys, images)


def random_flip(keys: Key[Array, "B"], images: UInt8[Array, "B Y X C"]) -> UInt8[Array, "B Y X C"]:
    """Mirrors each image left-right with probability 1/2."""
    flipped = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(flipped[:, None, None, None], images[:, :, ::-1], images)


def normalize(images: UInt8[Array, "B Y X C"]) -> Float[Array, "B Y X C"]:
    """0...255 -> [-1, 1], as big_vision's value_range(-1, 1)."""
    return images.astype(jnp.float32) / 127.5 - 1.0
