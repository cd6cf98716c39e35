"""How large attention weights are before the first training step.

One draw (a seed): tokens x ~ N(0, 1) of shape [L, H * d], through a LayerNorm, as at the start of a block; query = x W and
key = x W' with W, W' of shape [H * d, H * d] from Glorot's uniform distribution and biases 0, as the models start; with
qk-layernorm both pass it at scale 1 and bias 0 (over the d numbers of a head, or over all H * d). H = 6 and d = 64 are
those of ViT-S. Logits z = q.k / sqrt(d) of at most 256 queries with all L keys, in all heads; the tokens are drawn
independently, so that the first ones are as good a sample as any. With qk-layernorm over a head z has mean 0 and standard
deviation 8 / sqrt(63).

jax is imported when something is computed and not before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from etils import epy

from vit_attn.ops.nonlinearity import POINTWISE, Numbers, weights
from vit_attn.spec.resolve import DEFAULT_GAMMA

with epy.lazy_imports():
    import jax
    import jax.numpy as jnp
    from jaxtyping import Array, Float

    from vit_attn.ops import norm

HEADS, HEAD_WIDTH = 6, 64
MOST_QUERIES = 256
LEAST_MEAN = 0.05  # of a standard deviation: below, a mean is as good as 0


@dataclass(frozen=True)
class InitialWeights:
    """Of one h and alpha over `length` keys: moments over heads, queries, keys and seeds."""

    h: str
    alpha: float | None  # None: h has none
    length: int
    mean: float
    std: float
    spread: float  # standard deviation, over the seeds, of a seed's mean; 0 for one seed
    logit_std: float

    @property
    def sum(self) -> float:
        """mean * L: the sum over the keys of a query's weights, on average."""
        return self.mean * self.length

    @property
    def vanishes(self) -> bool:
        """The mean is 0, as identity's is, but for the luck of the draw."""
        return self.mean < LEAST_MEAN * self.std


def by_curve(rows: Iterable[InitialWeights]) -> dict[tuple[str, float | None], list[InitialWeights]]:
    """(h, alpha) -> its results, in their order."""
    curves: dict[tuple[str, float | None], list[InitialWeights]] = {}
    for row in rows:
        curves.setdefault((row.h, row.alpha), []).append(row)
    return curves


def slope(curve: Sequence[InitialWeights]) -> float | None:
    """d log(mean * L) / d log(L) by least squares: 1 - alpha, or 0 for an h without alpha. None: mean 0, or a single L."""
    if len(curve) < 2 or any(row.vanishes for row in curve):
        return None
    return float(np.polyfit(np.log([row.length for row in curve]), np.log([row.sum for row in curve]), 1)[0])


def logits(key: Array, length: int, qk_norm: str = "head") -> Float[Array, "H q k"]:
    """z = q.k / sqrt(d) of one draw."""
    of_tokens, of_query, of_key = jax.random.split(key, 3)
    width = HEADS * HEAD_WIDTH
    x = norm.layer_norm(jax.random.normal(of_tokens, (1, length, HEADS, HEAD_WIDTH)), "width", None, None)
    x = x.reshape(length, width)

    def projected(key: Array, x: Float[Array, "L D"]) -> Float[Array, "1 L H d"]:
        kernel = jax.nn.initializers.xavier_uniform()(key, (width, width), jnp.float32)
        return (x @ kernel).reshape(1, -1, HEADS, HEAD_WIDTH)

    q, k = norm.normalized(projected(of_query, x[:MOST_QUERIES]), projected(of_key, x), qk_norm, norm.QKNorm())
    return jnp.einsum("bqhd,bkhd->hqk", q, k) / math.sqrt(HEAD_WIDTH)


def row_moments(h: str, z: Float[Array, "H q k"], alpha: float) -> tuple[Array, Array]:
    """(mean, mean square) of the weights of each query, [H, q]; clipped softmax with the gamma that configs have by default."""
    w = weights(h, z, Numbers(alpha=alpha, gamma=DEFAULT_GAMMA))
    return w.mean(axis=-1), jnp.square(w).mean(axis=-1)


def measure(
    hs: Sequence[str], alphas: Sequence[float], lengths: Sequence[int], seeds: int, qk_norm: str = "head"
) -> list[InitialWeights]:
    """One result for each h, alpha (once for an h that has none) and length, in this order. Seeds are 0, 1, ...

    Moments are summed in float32 over the keys of a query and in float64 from there on.
    """
    cases = [(h, alpha) for h in hs for alpha in (alphas if h in POINTWISE else (None,))]
    sampled, moments_of = jax.jit(logits, static_argnums=(1, 2)), jax.jit(row_moments, static_argnums=0)
    found = {}
    for length in lengths:
        draws = [sampled(jax.random.key(seed), length, qk_norm) for seed in range(seeds)]
        logit_std = float(np.mean([np.asarray(z, np.float64).std() for z in draws]))
        for h, alpha in cases:
            moments = [moments_of(h, z, alpha or 0.0) for z in draws]
            means, squares = (np.array([np.asarray(m, np.float64).mean() for m in part]) for part in zip(*moments, strict=True))
            mean = float(means.mean())
            std = math.sqrt(max(0.0, float(squares.mean()) - mean**2))
            found[h, alpha, length] = InitialWeights(h, alpha, length, mean, std, float(means.std()), logit_std)
    return [found[h, alpha, length] for h, alpha in cases for length in lengths]
