"""Counting the values of an image and looking them up, by the means that a platform is good at.

CPU and GPU address memory pixel by pixel. A TPU takes more than two cycles for each pixel so read; it counts and looks up with
its matrix units: the two halves of a byte as two one-hot vectors of 16. The same numbers come out.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, BFloat16, Int, UInt8


def counts(image: UInt8[Array, "Y X C"]) -> Int[Array, "C 256"]:
    """The histogram of each channel."""
    return jax.lax.platform_dependent(image, tpu=counts_by_product, default=counts_by_address)


def look_up(table: Int[Array, "C 256"], image: UInt8[Array, "Y X C"]) -> UInt8[Array, "Y X C"]:
    """table[c, value] of each value; entries are bytes."""
    return jax.lax.platform_dependent(table, image, tpu=look_up_by_product, default=look_up_by_address)


def counts_by_address(image: UInt8[Array, "Y X C"]) -> Int[Array, "C 256"]:
    channels = jnp.moveaxis(image, -1, 0).reshape(image.shape[-1], -1)
    return jax.vmap(lambda values: jnp.zeros(256, jnp.int32).at[values].add(1, mode="promise_in_bounds"))(channels)


def look_up_by_address(table: Int[Array, "C 256"], image: UInt8[Array, "Y X C"]) -> UInt8[Array, "Y X C"]:
    places = image.astype(jnp.int32) + 256 * jnp.arange(image.shape[-1])[None, None]
    return table.astype(jnp.uint8).reshape(-1).at[places].get(mode="promise_in_bounds")


def counts_by_product(image: UInt8[Array, "Y X C"]) -> Int[Array, "C 256"]:
    """sum over pixels of upper half (x) lower half, exact: float32 sums of up to 2^24 ones."""
    upper, lower = halves(image)
    pairs = jnp.einsum("cuyx,clyx->cul", upper, lower, preferred_element_type=jnp.float32)
    return pairs.reshape(-1, 256).astype(jnp.int32)


def look_up_by_product(table: Int[Array, "C 256"], image: UInt8[Array, "Y X C"]) -> UInt8[Array, "Y X C"]:
    """upper^T table lower, exact: one addend is not 0, and bfloat16 holds bytes."""
    upper, lower = halves(image)
    square = table.reshape(-1, 16, 16).astype(jnp.bfloat16)
    columns = jnp.einsum("cul,clyx->cuyx", square, lower, preferred_element_type=jnp.float32)
    return jnp.moveaxis((columns * upper).sum(1), 0, -1).astype(jnp.int32).astype(jnp.uint8)


def halves(image: UInt8[Array, "Y X C"]) -> tuple[BFloat16[Array, "C 16 Y X"], BFloat16[Array, "C 16 Y X"]]:
    """One-hot vectors of the upper and the lower four bits."""
    values = jnp.moveaxis(image, -1, 0)[:, None].astype(jnp.int32)
    places = jnp.arange(16)[None, :, None, None]
    return (values >> 4 == places).astype(jnp.bfloat16), ((values & 15) == places).astype(jnp.bfloat16)
