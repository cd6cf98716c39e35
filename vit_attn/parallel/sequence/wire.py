"""Arrays side by side in one, so that one collective carries them all."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LOWEST = -1e30  # instead of -inf, which has no remainder


def wire_type(dtype: jnp.dtype) -> jnp.dtype:
    """What results travel as: bfloat16 stays, at half the bytes; float16 could not hold a sum before L^-alpha."""
    return jnp.dtype(jnp.bfloat16 if dtype == jnp.bfloat16 else jnp.float32)


def joined(arrays: Sequence[Float[Array, "... _"]], dtype: jnp.dtype) -> Float[Array, "... c"]:
    """Along the last axis."""
    return jnp.concatenate([x.astype(dtype) for x in arrays], axis=-1)


def parted(x: Float[Array, "... c"], widths: Sequence[int]) -> list[Float[Array, "... _"]]:
    """The arrays that `joined` has joined."""
    ends = [sum(widths[: i + 1]) for i in range(len(widths) - 1)]
    return jnp.split(x, ends, axis=-1)


def spelled(number: Float[Array, "... 1"], dtype: jnp.dtype) -> Float[Array, "... digits"]:
    """A float32 number as `digits(dtype)` numbers: as it is, or as three bfloat16 numbers of 8 bits whose sum it is exactly."""
    if dtype != jnp.bfloat16:
        return number
    high, rest = _first_bits(number)
    return jnp.concatenate([high, *_first_bits(rest)], axis=-1)


def digits(dtype: jnp.dtype) -> int:
    return 3 if dtype == jnp.bfloat16 else 1


def _first_bits(x: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """(x as a bfloat16 number, the remainder)."""
    high = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)  # a cast and back could be optimised away
    return high, x - high


def read(spelling: Float[Array, "... digits"]) -> Float[Array, "... 1"]:
    """The float32 number that is `spelled`."""
    return spelling.astype(jnp.float32).sum(axis=-1, keepdims=True)
