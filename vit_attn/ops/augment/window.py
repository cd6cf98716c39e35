"""Windows and mirror images."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, UInt8


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
