"""What a layer's activations and attention weights are like: a few numbers of each image, in float32."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import ROWWISE, Numbers, length_scale, unscaled_weights
from vit_attn.ops.norm import QKNorm, normalized
from vit_attn.ops.tile import product

SIGMAS = 6.0  # arXiv:2306.12929, section 3: an outlier is further than that from the mean of its tensor
FLOOR = 1e-6  # added to std^4, as in the code of arXiv:2306.12929


def infinity_norm(x: Float[Array, "B L D"]) -> Float[Array, "B"]:
    """max |x| over an image's tokens and channels."""
    return jnp.abs(x.astype(jnp.float32)).max(axis=(1, 2))


def kurtosis(x: Float[Array, "B L D"]) -> Float[Array, "B"]:
    """mean((x - mean)^4) / (std^4 + 1e-6) over an image's n = L * D numbers, with the std of n - 1: about 3 for a Gaussian.

    The definition of arXiv:2306.12929's code. Two passes, and fourth powers of x - mean relative to the largest one, so that
    none leaves float32; 0 for a constant.
    """
    y = _centred(x)
    largest = jnp.abs(y).max(axis=(1, 2))
    unit = jnp.where(largest > 0.0, largest, 1.0)
    y = y / unit[:, None, None]
    return _mean(jnp.square(jnp.square(y))) / (jnp.square(_variance(y)) + FLOOR / unit**4)


def outliers(x: Float[Array, "B L D"]) -> Bool[Array, "B L D"]:
    """|x - mean| > 6 std, mean and std (of n - 1) over an image's tokens and channels."""
    y = _centred(x)
    return jnp.abs(y) > SIGMAS * jnp.sqrt(_variance(y))[:, None, None]


def _centred(x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
    """x - mean; twice, for the first mean is rounded to the size of x."""
    y = x.astype(jnp.float32)
    y = y - _mean(y)[:, None, None]
    return y - _mean(y)[:, None, None]


def _variance(centred: Float[Array, "B L D"]) -> Float[Array, "B"]:
    n = centred.shape[1] * centred.shape[2]
    return _mean(jnp.square(centred)) * (n / max(n - 1, 1))


def _mean(x: Float[Array, "B ..."]) -> Float[Array, "B"]:
    """Over all but the images, an axis at a time: one long sum would lose digits."""
    while x.ndim > 1:
        x = x.mean(axis=-1)
    return x


def logits_and_weights(
    q: Float[Array, "B q H d"], k: Float[Array, "B k H d"], form: Form, numbers: Numbers, norm: QKNorm
) -> tuple[Float[Array, "B H r l"], Float[Array, "B H r l"]]:
    """z = q.k/sqrt(d) and the weights w that ops.attend multiplies the values with, without dropout; L^-alpha included.

    Tokens from form.length on are padding, and left out.
    """
    length = form.keys(k.shape[1])
    q, k = normalized(q[:, :length], k[:, :length], form.qk_norm, norm)
    z = product("bqhd,bkhd->bhqk", q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype), k)
    scale = jnp.broadcast_to(length_scale(form.h, length, numbers.alpha), q.shape[2])
    return z, scale[None, :, None, None] * unscaled_weights(form.h, length, z, numbers)


def weight_statistics(
    q: Float[Array, "B q H d"], k: Float[Array, "B k H d"], form: Form, numbers: Numbers, norm: QKNorm, turns: int = 1
) -> dict[str, Float[Array, "B"]]:
    """Of an image's weights, over heads, queries and keys; computed for B / turns images at a time.

    weight_mean_times_L   mean weight times the number of keys: the mean sum of a row, 1 for softmax
    weight_zero_share     weights that are exactly 0 in float32, as a share of all
    logit_max_abs         max |z|
    weight_entropy        mean over rows of -sum w log w, in nats, where rows are distributions: for softmax, and for softmax1
                          with what goes nowhere, 1 - sum w, as one more outcome
    """

    def of_some(q: Float[Array, "b q H d"], k: Float[Array, "b k H d"]) -> dict[str, Float[Array, "b"]]:  # noqa: F821
        z, w = logits_and_weights(q, k, form, numbers, norm)
        found = {
            "weight_mean_times_L": _mean(w) * w.shape[-1],
            "weight_zero_share": _mean((w == 0.0).astype(jnp.float32)),
            "logit_max_abs": jnp.abs(z).max(axis=(1, 2, 3)),
        }
        if has_entropy(form.h):
            found["weight_entropy"] = _mean(_entropies(form.h, w))
        return found

    return _in_turns(of_some, (q, k), turns)


def has_entropy(h: str) -> bool:
    """Whether a row of weights is a distribution over the keys and, for softmax1, nothing. Clipped softmax's sum is not 1."""
    return h in ROWWISE and not ROWWISE[h].clipped


def _entropies(h: str, w: Float[Array, "B H q k"]) -> Float[Array, "B H q"]:
    entropies = jax.scipy.special.entr(w).sum(axis=-1)
    if ROWWISE[h].zero_logit:
        entropies = entropies + jax.scipy.special.entr(jnp.maximum(1.0 - w.sum(axis=-1), 0.0))
    return entropies


def _in_turns(function: Callable[..., Any], arrays: tuple[Float[Array, "B ..."], ...], turns: int) -> Any:
    """function(*arrays) for every turns-th image at a time: where images lie on several devices, all work in every turn."""
    if turns == 1:
        return function(*arrays)
    batch = arrays[0].shape[0]
    parts = tuple(x.reshape(batch // turns, turns, *x.shape[1:]).swapaxes(0, 1) for x in arrays)
    results = jax.lax.map(lambda part: function(*part), parts)
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(batch, *x.shape[2:]), results)
