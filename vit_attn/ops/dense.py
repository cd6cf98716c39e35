"""Attention with all weights in memory at once."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import Numbers, unscaled_weights
from vit_attn.ops.tile import product

ProductAt = Callable[[str, Callable[..., Array]], Callable[..., Array]]


def plain(name: str, product: Callable[..., Array]) -> Callable[..., Array]:
    """The product as it is."""
    return product


def dense(
    form: Form,
    q: Float[Array, "B q H d"],
    k: Float[Array, "B k H d"],
    v: Float[Array, "B k H d"],
    numbers: Numbers,
    mask: Float[Array, "b h r k"] | None = None,
    dropout_key: Array | None = None,
    on_logits: Callable[[Array], Array] = lambda z: z,
    on_weights: Callable[[Array], Array] = lambda w: w,
    product_at: ProductAt = plain,
) -> Float[Array, "B q H d"]:
    """sum_j w_ij v_j but for L^-alpha, in float32; logits and weights are float32. `q` comes scaled by 1/sqrt(d).

    `on_logits` and `on_weights`: what q.k/sqrt(d), before the mask, and h of it go through on their way.
    `product_at`: given "logits_product" or "context_product" and a product of two arrays, the one that is to be taken.
    """
    scores = on_logits(product_at("logits_product", partial(product, "bqhd,bkhd->bhqk"))(q, k))
    if mask is not None:
        scores = scores + mask
    hidden = hidden_keys(form.causal, mask, q.shape[1], k.shape[1])
    w = unscaled_weights(form.h, form.keys(k.shape[1]), scores, numbers, hidden)
    if dropout_key is not None and form.dropout:
        kept = jax.random.bernoulli(dropout_key, 1.0 - form.dropout, w.shape)
        w = jnp.where(kept, w / (1.0 - form.dropout), 0.0)
    return product_at("context_product", partial(product, "bhqk,bkhd->bqhd"))(on_weights(w), v)


def hidden_keys(causal: bool, mask: Float[Array, "b h r k"] | None, queries: int, keys: int) -> Bool[Array, "..."] | None:
    """Where weights must be exactly zero: the mask is -inf, or the key comes after the query. None: nowhere."""
    hidden = None if mask is None else mask == -jnp.inf
    if causal:
        later = (jnp.arange(keys)[None] > jnp.arange(queries)[:, None])[None, None]
        hidden = later if hidden is None else hidden | later
    return hidden
