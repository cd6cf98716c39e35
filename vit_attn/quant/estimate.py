"""Range estimators: which part of a tensor's numbers a grid is to span. Pure functions of arrays.

Of activations, of one batch each; running ranges are new = momentum * old + (1 - momentum) * batch, from the first batch on:

    min_max           the extremes; over batches, the extremes of all
    running_min_max   the extremes of a batch, running
    percentile_P      the (100 - P)-th and P-th percentile of a batch, running
    mse               the range whose rounded batch has the least mean squared error, running; golden section, see `least_error`

A channel that is 200 times as large as the others makes up nearly all of a tensor's squares: mse keeps it and lets the others
round to 0. Percentiles drop it where P is low enough: one channel of 128 is 0.8 % of the numbers.

arXiv:2306.12929 takes running_min_max for BERT and ViT; there, and here, a point sees what the points before it have rounded.

Weights of softmax-free attention (L^-alpha relu(z): unbounded, non-negative, about 1/L) get their range in the same way as any
other activation, not [0, 1] as a softmax could: their smallest number is 0, so zero = 0 and all 2^b steps lie between 0 and the
largest weight seen. One large weight thus widens the steps for all. L^-alpha is the same for all weights of a tensor (unless
each head learns its own alpha), so that quantizing h(z) and multiplying later (config.fold_length) rounds to the same
integers; it differs where each head has its own alpha, and where L^-alpha makes the step smaller than 1e-8.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vit_attn.quant.grid import asymmetric, symmetric

CANDIDATES = 100  # of the grid search for weights
SECTIONS = 20  # of the golden section: the range is known to 0.618^20 < 1e-4 of itself
GOLDEN = (5**0.5 - 1) / 2
Range = tuple[Float[Array, ""], Float[Array, ""]]


def extremes(x: Float[Array, "..."]) -> Range:
    return x.min(), x.max()


def percentiles(x: Float[Array, "..."], outside: Array | float) -> Range:
    """Beyond each end lies a share `outside` of the numbers, at most 0.5; linear between neighbours, as numpy.percentile.

    Ranks are counted from both ends, so that those of the tails are exact however many numbers there are.
    """
    last = x.size - 1
    place = jnp.float32(outside) * last
    rank = jnp.floor(place).astype(jnp.int32)
    behind = jnp.minimum(rank + 1, last)
    low, high, above, below = _smallest(x, jnp.stack([rank, last - rank, behind, last - behind]))
    part = place - rank
    return low + part * (above - low), high + part * (below - high)


def _smallest(x: Float[Array, "..."], ranks: Int[Array, " r"]) -> Float[Array, " r"]:
    """The numbers of these ranks, 0 the least: by 32 halvings of all floats, in a sixth of the time of a sort (XLA:CPU)."""
    keys = _in_order(jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32))
    ends = jnp.iinfo(jnp.int32)

    def halve(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low & high) + ((low ^ high) >> 1)
        enough = jnp.stack([(keys <= one).sum(dtype=jnp.int32) for one in middle]) > ranks
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    found, _ = jax.lax.fori_loop(0, 32, halve, (jnp.full_like(ranks, ends.min), jnp.full_like(ranks, ends.max)))
    return jax.lax.bitcast_convert_type(_in_order(found), jnp.float32)


def _in_order(bits: Int[Array, "..."]) -> Int[Array, "..."]:
    """The bits of floats -> integers in the floats' order, and back."""
    return jnp.where(bits < 0, bits ^ jnp.iinfo(jnp.int32).max, bits)


def least_error(x: Float[Array, "..."], highest_integer: Float[Array, ""]) -> Range:
    """Golden sections: for a part of both ends, then for `high` with `low` held, then for `low` with `high` held.

    Never worse than the extremes. (The error is not convex, least of all with few bits: it may not be the very best range.)
    """
    lowest, highest = jnp.minimum(x.min(), 0.0), jnp.maximum(x.max(), 0.0)

    def error(low: Array, high: Array) -> Array:
        return jnp.square(asymmetric(low, high, highest_integer)(x) - x).mean()

    part = golden_section(lambda part: error(part * lowest, part * highest))
    low = part * lowest
    high = highest * golden_section(lambda part: error(low, part * highest))
    ranges = [(lowest, highest), (low, part * highest), (low, high)]
    ranges.append((lowest * golden_section(lambda part: error(part * lowest, high)), high))
    lows, highs = (jnp.stack(ends) for ends in zip(*ranges, strict=True))
    best = jnp.argmin(jnp.stack([error(*ends) for ends in ranges]))
    return lows[best], highs[best]


def golden_section(error: Callable[[Array], Array]) -> Array:
    """Where in [0, 1] `error` is least, if it falls and then rises."""

    def narrow(_: Any, state: tuple[Array, ...]) -> tuple[Array, ...]:
        a, b, c, d, at_c, at_d = state
        left = at_c < at_d
        a, b = jnp.where(left, a, c), jnp.where(left, d, b)
        new = jnp.where(left, b - GOLDEN * (b - a), a + GOLDEN * (b - a))
        at_new = error(new)
        c, d = jnp.where(left, new, d), jnp.where(left, c, new)
        at_c, at_d = jnp.where(left, at_new, at_d), jnp.where(left, at_c, at_new)
        return a, b, c, d, at_c, at_d

    c, d = jnp.float32(1 - GOLDEN), jnp.float32(GOLDEN)
    start = (jnp.float32(0), jnp.float32(1), c, d, error(c), error(d))
    a, b, *_ = jax.lax.fori_loop(0, SECTIONS, narrow, start)
    return (a + b) / 2


def largest(x: Float[Array, "..."], axes: tuple[int, ...]) -> Float[Array, "..."]:
    """max |x| over `axes`, which stay as 1."""
    return jnp.abs(x).max(axis=axes, keepdims=True)


def largest_of_least_error(x: Float[Array, "..."], axes: tuple[int, ...], bits: int) -> Float[Array, "..."]:
    """The one of k/100 max |x|, k = 1 ... 100, at which the symmetric grid has the least squared error over `axes`."""
    most = largest(x, axes)

    def error(part: Array) -> Array:
        return jnp.square(symmetric(part * most, bits)(x) - x).sum(axis=axes, keepdims=True)

    parts = jnp.arange(1, CANDIDATES + 1, dtype=jnp.float32) / CANDIDATES
    return parts[jnp.argmin(jax.lax.map(error, parts), axis=0)] * most
