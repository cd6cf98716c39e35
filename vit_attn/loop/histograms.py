"""Histograms of parameters, counted on the devices: only the counts come to the host."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from vit_attn.parallel.mesh import replicated
from vit_attn.store.metrics import Histogram
from vit_attn.store.paths import paths_of

BUCKETS = 30  # as TensorBoard's own


def histograms(params: Any, mesh: Mesh) -> dict[str, Histogram]:
    """{"params/head/kernel": ...}: of each parameter. All processes have to ask."""
    count = _counter(mesh)
    found = jax.device_get({f"params/{name}": count(x) for name, x in paths_of(params).items()})
    return {tag: Histogram(float(low), float(high), counts.tolist()) for tag, (low, high, counts) in found.items()}


@cache
def _counter(mesh: Mesh) -> Callable[[Array], tuple[Array, Array, Array]]:
    """Compiled at its first use, once a shape: most runs never ask."""
    return jax.jit(histogram, out_shardings=replicated(mesh))


def histogram(x: Float[Array, "..."]) -> tuple[Float[Array, ""], Float[Array, ""], Int[Array, "buckets"]]:  # noqa: F821
    """(smallest, largest, how many numbers are in each of BUCKETS equal parts of that range, the upper end in the last).

    A parameter whose numbers are all the same has them in the middle of a range of 1.
    """
    low, high = x.min(), x.max()
    spread = jnp.where(low == high, 0.5, 0.0)
    low, high = low - spread, high + spread
    edges = low + (high - low) * (jnp.arange(1, BUCKETS) / BUCKETS)
    below = jax.lax.map(lambda edge: jnp.sum(x < edge, dtype=jnp.int32), edges)  # in turn: all at once need 29 times x
    return low, high, jnp.diff(below, prepend=0, append=x.size)
