"""Attention as a pure function of queries, keys and values: one mathematics, several implementations."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.ops.blockwise import blockwise
from vit_attn.ops.dense import ProductAt, dense, plain
from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import POINTWISE, Numbers, length_scale
from vit_attn.ops.norm import PLAIN, QKNorm, normalized


def attend(
    q: Float[Array, "B q H d"],
    k: Float[Array, "B k H d"],
    v: Float[Array, "B k H d"],
    form: Form,
    numbers: Numbers,
    *,
    impl: str = "dense",
    norm: QKNorm = PLAIN,
    mask: Float[Array, "b h r k"] | None = None,
    dropout_key: Array | None = None,
    at: Callable[[str, Array], Array] | None = None,
    product_at: ProductAt = plain,
) -> Float[Array, "B q H d"]:
    """sum_j w_ij v_j with w = L^-alpha * h(z), z = q.k/sqrt(d), or w = softmax(z) or one of its relatives.

    arXiv:2309.08586, section 3; clipped softmax: arXiv:2306.12929, section 4.1. L is the number of keys, a CLS token
    included. Queries and keys first pass the LayerNorms `norm` if form.qk_norm asks for it. `mask` is added to the logits
    (-inf hides a key: its weight is exactly zero whatever h is, and it still counts in L; no gradient reaches the mask);
    form.causal hides the keys after a query; a row whose keys are all hidden gives zeros. `dropout_key`: None: no dropout.

    Logits, h and the sum over keys are float32 whatever the inputs are; the result has v's type. 1/sqrt(d) multiplies q and
    L^-alpha the result: both are short arrays, while the logits are L x L. All implementations compute the same. ValueError
    for what one lacks: blockwise and pallas know no dropout and no `at`, pallas neither mask nor causal.

    `at`, called with a name and an array, gives what goes on in its place: q_norm and k_norm (behind their LayerNorms), logits
    (before the mask), unscaled_weights (h(z), where h has an alpha) and weights (all of w: L^-alpha multiplies here already).
    Where there is `at`, `product_at` gives what computes the two products in the place of the one it is given: see ops.dense.

    Extremes: logits of any finite size are fine, for a softmax is taken relative to the row's largest. Where every score is
    negative relu and relu2 give exactly 0, and no gradient. NaN in a query stays in its row, NaN in a key or value reaches
    all rows of its head (in pallas: of the heads that share its 128 lanes). float16 meets float32 weights, since relu2 alone
    exceeds 65504; only what the result itself cannot hold becomes infinite.
    """
    if impl == "pallas" and mask is not None:
        raise ValueError("impl='pallas' knows no mask: take dense or blockwise")
    if impl != "dense" and form.dropout and dropout_key is not None:
        raise ValueError(f"impl={impl!r} knows no dropout of attention weights: take dense")
    if impl != "dense" and at is not None:
        raise ValueError(f"impl={impl!r} has no logits and weights to be looked at: take dense")
    mask = None if mask is None else jax.lax.stop_gradient(mask)
    length = form.keys(k.shape[1])
    scale = jnp.broadcast_to(length_scale(form.h, length, numbers.alpha), q.shape[2])
    if impl == "pallas":
        from vit_attn.ops.pallas.attention import fused  # here: Mosaic takes a while to import

        return fused(form, q, k, v, scale, numbers.stretch(length), norm)
    q, k = normalized(q, k, form.qk_norm, norm)
    if at is not None and form.qk_norm != "none":
        q, k = at("q_norm", q), at("k_norm", k)
    scaled = q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    if impl == "blockwise":
        out = blockwise(form, scaled, k, v, numbers, mask)
    elif at is None:
        out = dense(form, scaled, k, v, numbers, mask, dropout_key)
    else:
        weighed = partial(_weights_at, at, form.h, scale)
        hooks = (partial(at, "logits"), weighed, product_at)
        return dense(form, scaled, k, v, numbers, mask, dropout_key, *hooks).astype(v.dtype)
    return (out * scale[None, None, :, None]).astype(v.dtype)


def _weights_at(
    at: Callable[[str, Array], Array], h: str, scale: Float[Array, "H"], w: Float[Array, "B H q k"]
) -> Float[Array, "B H q k"]:
    if h in POINTWISE:
        w = at("unscaled_weights", w) * scale[None, :, None, None]
    return at("weights", w)
