"""The mesh axis that splits the tokens, seen from inside `jax.shard_map`."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SEQ = "seq"


def devices() -> int:
    """How many share the tokens."""
    return jax.lax.axis_size(SEQ)


def gathered(x: Float[Array, "b l H c"]) -> Float[Array, "b L H c"]:
    """The tokens of all devices. One all-gather."""
    return jax.lax.all_gather(x, SEQ, axis=1, tiled=True)


def exchanged(x: Float[Array, "b L H c"]) -> Float[Array, "n b l H c"]:
    """What each of the n devices has of this device's tokens. One all-to-all."""
    batch, length, *rest = x.shape
    parts = x.reshape(batch, devices(), length // devices(), *rest)
    return jnp.moveaxis(jax.lax.all_to_all(parts, SEQ, split_axis=1, concat_axis=1), 1, 0)


def scattered_sum(x: Float[Array, "b L H c"]) -> Float[Array, "b l H c"]:
    """The sum over the devices, of this device's tokens. One reduce-scatter.

    Over an axis of its own: along the tokens XLA:TPU makes it an all-reduce, twice the bytes, wherever a device's part of
    them does not fill whole tiles (196 tokens, for example).
    """
    batch, length, *rest = x.shape
    parts = jnp.moveaxis(x.reshape(batch, devices(), length // devices(), *rest), 1, 0)
    return jax.lax.psum_scatter(parts, SEQ, scatter_dimension=0)


def passed_on(x: Float[Array, "b l H c"]) -> Float[Array, "b l H c"]:
    """What the device before this one has. One collective permute: every device sends to the next one."""
    n = devices()
    return jax.lax.ppermute(x, SEQ, [(i, (i + 1) % n) for i in range(n)])


def hides(length: int, keys: int, hops: int = 0) -> Float[Array, "1 1 1 k"] | None:
    """A mask of -inf for the padding, at the end of the sequence, among the keys of the device `hops` before this one.

    `keys` is how many a device holds, `length` how many there are without the padding; None if nothing is padded.
    """
    n = devices()
    if length == n * keys:
        return None
    first = (jax.lax.axis_index(SEQ) - hops) % n * keys
    return jnp.where(first + jnp.arange(keys) < length, 0.0, -jnp.inf)[None, None, None]


def later(saved: Any, d_out: Float[Array, "b l H d"]) -> tuple[Any, Float[Array, "b l H d"]]:
    """Both, for a backward. The compiler would otherwise do the forward's collectives once for both passes, and keep what all
    devices hold in between: what is in memory then would not be a device's share.
    """
    return jax.lax.optimization_barrier((saved, d_out))
