"""Attention a block of keys at a time: memory O(L * block), forward and backward.

A pointwise h needs nothing across the keys: what a block gives is added and forgotten. The softmax kinds carry the largest
logit and the sum of exponentials of each row along, and meet them again in the backward; clipped softmax needs them before
its first weight. The backward makes the logits anew. The mathematics is that of one image, [H, L, d].
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import ROWWISE, Numbers, Rowwise, clip_stretched, pointwise
from vit_attn.ops.rows import Rows, closed, no_rows, seen, softmax_of
from vit_attn.ops.tile import add, cut, over_blocks, product, put

FEWEST_QUERIES = 64  # of a tile: fewer would read all keys too often


class Inputs(NamedTuple):
    """Of one image (or, with one more axis in front, of all). q is scaled; gamma and zeta are clipped softmax's."""

    q: Float[Array, "*B H q d"]
    k: Float[Array, "*B H k d"]
    v: Float[Array, "*B H k d"]
    mask: Float[Array, "*b h r k"] | None
    gamma: Float[Array, ""]
    zeta: Float[Array, ""]


def blockwise(
    form: Form,
    q: Float[Array, "B q H d"],
    k: Float[Array, "B k H d"],
    v: Float[Array, "B k H d"],
    numbers: Numbers,
    mask: Float[Array, "b h r k"] | None = None,
) -> Float[Array, "B q H d"]:
    """sum_j w_ij v_j but for L^-alpha, in float32. `q` comes scaled by 1/sqrt(d); no gradient reaches the mask."""
    gamma, zeta = (jnp.asarray(x, jnp.float32) for x in numbers.stretch(form.keys(k.shape[1])))
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    return jnp.swapaxes(_blockwise(form, Inputs(q, k, v, mask, gamma, zeta)), 1, 2)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _blockwise(form: Form, x: Inputs) -> Float[Array, "B H q d"]:
    return _forward(form, x)[0]


def _forward(form: Form, x: Inputs) -> tuple[Array, Any]:
    out, rows = over_images(form, forward, x)
    return out, (x, rows, out) if form.h in ROWWISE else (x, None, None)


def _backward(form: Form, saved: tuple[Inputs, Rows | None, Array | None], d_out: Float[Array, "B H q d"]) -> tuple[Inputs]:
    x, rows, out = saved
    delta = None if out is None else (d_out * out).sum(axis=-1, keepdims=True)
    if x.v.dtype != jnp.float16:  # which cannot hold what L^-alpha has left of it
        d_out = d_out.astype(x.v.dtype)
    d = over_images(form, backward, x, rows, delta, d_out)
    d_mask = None if x.mask is None else jnp.zeros_like(x.mask)
    dq, dk, dv = (dx.astype(y.dtype) for dx, y in ((d.q, x.q), (d.k, x.k), (d.v, x.v)))
    return (Inputs(dq, dk, dv, d_mask, d.gamma.sum(), d.zeta.sum()),)


_blockwise.defvjp(_forward, _backward)


def over_images(form: Form, function: Callable[..., Any], x: Inputs, *more: Any) -> Any:
    """function(form, inputs of an image, *more of an image) for all images; a few at a time if form.tile_logits says so."""
    own_mask = x.mask is not None and x.mask.shape[0] > 1

    def one(arrays: Any) -> Any:
        q, k, v, mask, *rest = arrays
        shared = x.mask[0] if x.mask is not None and not own_mask else None
        return function(form, Inputs(q, k, v, mask if own_mask else shared, x.gamma, x.zeta), *rest)

    arrays = (*x[:3], x.mask if own_mask else None, *more)
    images, heads, queries, _ = x.q.shape
    most = images if form.tile_logits is None else form.tile_logits // (heads * queries * min(form.block, x.k.shape[2]))
    return jax.vmap(one)(arrays) if most >= images else jax.lax.map(one, arrays, batch_size=max(1, most))


def _tile_queries(form: Form, x: Inputs) -> int:
    """How many queries of an image are worked on at a time."""
    heads, queries, _ = x.q.shape
    if form.tile_logits is None:
        return queries
    return min(queries, max(FEWEST_QUERIES, form.tile_logits // (heads * min(form.block, x.k.shape[1]))))


def _queries(x: Inputs, at: Any, size: int) -> Inputs:
    mask = None if x.mask is None else cut(x.mask, at, size, axis=1)
    return x._replace(q=cut(x.q, at, size, axis=1), mask=mask)


def forward(form: Form, x: Inputs) -> tuple[Float[Array, "H q d"], Rows]:
    """(sum_j w_ij v_j in float32, the rows that the backward needs)."""

    def tile(at: Any, size: int, done: Any) -> Any:
        return jax.tree.map(lambda whole, new: put(whole, new, at), done, _tile(form, _queries(x, at, size), at))

    out = jnp.zeros((*x.q.shape[:2], x.v.shape[2]), jnp.float32)
    return over_blocks(tile, (out, no_rows(x.q)), x.q.shape[1], _tile_queries(form, x))


def _tile(form: Form, x: Inputs, first: Any) -> tuple[Float[Array, "H q d"], Rows]:
    """Of a few queries; `first` is the number of the first one."""
    kind = ROWWISE.get(form.h)
    if kind is None:
        return _sum(form, x, first, pointwise(form.h, form.keys(x.k.shape[1]))), no_rows(x.q)
    out, rows = row_parts(form, x, first, values=not kind.clipped)
    rows, old = closed(kind, rows)
    if kind.clipped:
        return _sum(form, x, first, lambda s: clip_stretched(softmax_of(s, rows), x.gamma, x.zeta)), rows
    return out * (old / rows.total), rows


def row_parts(form: Form, x: Inputs, first: Any = 0, values: bool = True) -> tuple[Float[Array, "H q d"], Rows]:
    """(sum_j exp(s_ij - top_i) v_j, rows): a softmax that is not divided by its total yet, and can meet more keys."""

    def block(at: Any, size: int, carry: tuple[Array, Rows]) -> tuple[Array, Rows]:
        out, rows = carry
        s, hidden, _, v = _block(form, x, first, at, size)
        rows, e, old = seen(rows, s if hidden is None else jnp.where(hidden, -jnp.inf, s))
        return (out * old + product("hqk,hkd->hqd", e, v) if values else out), rows

    out = jnp.zeros((*x.q.shape[:2], x.v.shape[2]), jnp.float32)
    return over_blocks(block, (out, no_rows(x.q)), x.k.shape[1], form.block)


def _sum(form: Form, x: Inputs, first: Any, weights_of: Callable[[Array], Array]) -> Float[Array, "H q d"]:
    """sum_j weights_of(s_ij) v_j, for weights that need nothing but their own logit."""

    def block(at: Any, size: int, out: Array) -> Array:
        s, hidden, _, v = _block(form, x, first, at, size)
        return out + product("hqk,hkd->hqd", _shown(hidden, weights_of(s)), v)

    out = jnp.zeros((*x.q.shape[:2], x.v.shape[2]), jnp.float32)
    return over_blocks(block, out, x.k.shape[1], form.block)


def backward(
    form: Form, x: Inputs, rows: Rows | None, delta: Float[Array, "H q 1"] | None, d_out: Float[Array, "H q d"]
) -> Inputs:
    """The gradients of all inputs but the mask, in float32. `delta` is d_out . out; a pointwise h needs neither it nor rows."""

    def tile(at: Any, size: int, sums: Inputs) -> Inputs:
        part = _queries(x, at, size)
        of_rows, of_delta, of_out = jax.tree.map(lambda y: cut(y, at, size, axis=1), (rows, delta, d_out))
        d = _pull(form, part, at, of_rows, of_delta, of_out, sums)
        return d._replace(q=put(sums.q, d.q, at))

    zero = jnp.float32(0.0)
    dq, dk, dv = (jnp.zeros(y.shape, jnp.float32) for y in (x.q, x.k, x.v))
    sums = Inputs(dq, dk, dv, None, zero, zero)
    return over_blocks(tile, sums, x.q.shape[1], _tile_queries(form, x))


def _pull(form: Form, x: Inputs, first: Any, rows: Rows | None, delta: Array | None, d_out: Array, sums: Inputs) -> Inputs:
    """`sums` with the gradients of a few queries: those of k, v, gamma and zeta added, that of q by itself."""
    of_logits = _pointwise_gradient(form, x) if rows is None else _row_gradient(ROWWISE[form.h], x, rows)

    def sum_of_clipped(at: Any, size: int, sums: Array) -> Array:
        s, hidden, _, v = _block(form, x, first, at, size)
        _, ds, *_ = of_logits(s, hidden, product("hqd,hkd->hqk", d_out, v), None)
        return sums + ds.sum(axis=-1, keepdims=True)

    def block(at: Any, size: int, d: Inputs) -> Inputs:
        s, hidden, k, v = _block(form, x, first, at, size)
        w, ds, d_gamma, d_zeta = of_logits(s, hidden, product("hqd,hkd->hqk", d_out, v), delta)
        dq, dk = product("hqk,hkd->hqd", ds, k), product("hqk,hqd->hkd", ds, x.q)
        dv = product("hqk,hqd->hkd", w, d_out)
        return Inputs(d.q + dq, add(d.k, dk, at), add(d.v, dv, at), None, d.gamma + d_gamma, d.zeta + d_zeta)

    if rows is not None and ROWWISE[form.h].clipped:  # what was clipped is a part of d_out . out and has no gradient
        delta = over_blocks(sum_of_clipped, jnp.zeros_like(rows.total), x.k.shape[1], form.block)
    return over_blocks(block, sums._replace(q=jnp.zeros(x.q.shape, jnp.float32)), x.k.shape[1], form.block)


Gradient = Callable[[Array, Array | None, Array, Array | None], tuple[Array, Array, Array, Array]]


def _pointwise_gradient(form: Form, x: Inputs) -> Gradient:
    """(logits, hidden, dw, delta) -> (w, ds, d_gamma, d_zeta) of a block."""
    h, zero = pointwise(form.h, form.keys(x.k.shape[1])), jnp.float32(0.0)

    def of_logits(s: Array, hidden: Array | None, dw: Array, delta: Array | None) -> tuple[Array, Array, Array, Array]:
        w, back = jax.vjp(h, _shown(hidden, s))
        return _shown(hidden, w), _shown(hidden, back(dw)[0]), zero, zero

    return of_logits


def _row_gradient(kind: Rowwise, x: Inputs, rows: Rows) -> Gradient:
    """The same, of the softmax kinds; p * dp for ds where there is no delta yet."""

    def of_logits(s: Array, hidden: Array | None, dw: Array, delta: Array | None) -> tuple[Array, Array, Array, Array]:
        p = softmax_of(s if hidden is None else jnp.where(hidden, -jnp.inf, s), rows)
        delta = jnp.float32(0.0) if delta is None else delta
        if not kind.clipped:
            return p, p * (dw - delta), jnp.float32(0.0), jnp.float32(0.0)
        w, back = jax.vjp(clip_stretched, p, x.gamma, x.zeta)
        dp, d_gamma, d_zeta = back(dw)
        return w, p * (dp - delta), d_gamma, d_zeta

    return of_logits


def _block(form: Form, x: Inputs, first: Any, at: Any, size: int) -> tuple[Array, Array | None, Array, Array]:
    """(logits, where a weight must be exactly 0, keys, values) of a block of keys that begins at `at`."""
    k, v = cut(x.k, at, size, axis=1), cut(x.v, at, size, axis=1)
    s, hidden = product("hqd,hkd->hqk", x.q, k), None
    if x.mask is not None:
        mask = cut(x.mask, at, size, axis=2)
        s, hidden = s + mask, mask == -jnp.inf
    if form.causal:
        later = at + jnp.arange(size)[None, None] > first + jnp.arange(x.q.shape[1])[None, :, None]
        hidden = later if hidden is None else hidden | later
    return s, hidden, k, v


def _shown(hidden: Bool[Array, "..."] | None, x: Float[Array, "H q k"]) -> Float[Array, "H q k"]:
    return x if hidden is None else jnp.where(hidden, 0.0, x)
