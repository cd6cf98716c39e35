"""Bytes -> numbers that the model takes."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def normalize(images: UInt8[Array, "B Y X C"]) -> Float[Array, "B Y X C"]:
    """0...255 -> [-1, 1], as big_vision's value_range(-1, 1)."""
    return images.astype(jnp.float32) / 127.5 - 1.0
