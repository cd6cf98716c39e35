"""Position embeddings: fixed ones, and learned ones for another number of patches."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def sincos2d(rows: int, columns: int, width: int, temperature: float = 10_000.0) -> Float[Array, "1 L D"]:
    """Sines and cosines of x, then of y, a quarter of the width each (MoCo v3's layout, as big_vision)."""
    y, x = jnp.mgrid[:rows, :columns]
    omega = temperature ** -(jnp.arange(width // 4) / (width // 4 - 1))
    angles_x, angles_y = (jnp.einsum("m,d->md", axis.flatten(), omega) for axis in (x, y))
    parts = [jnp.sin(angles_x), jnp.cos(angles_x), jnp.sin(angles_y), jnp.cos(angles_y)]
    return jnp.concatenate(parts, axis=1)[None]


def resampled(positions: Float[Array, "1 L D"], length: int) -> Float[Array, "1 M D"]:
    """A square grid of positions as one of `length`: bilinear, and antialiased where it shrinks.

    (big_vision's load, scipy.ndimage.zoom, is bilinear too, but keeps the corners and takes single points where it shrinks.)
    """
    side, new = math.isqrt(positions.shape[1]), math.isqrt(length)
    grid = positions.reshape(side, side, -1)
    return jax.image.resize(grid, (new, new, grid.shape[-1]), "bilinear", antialias=True).reshape(1, length, -1)
