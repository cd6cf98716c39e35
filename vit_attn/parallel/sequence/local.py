"""What one device computes in the queries and ring layouts: some keys' share in the attention of some queries."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.ops import blockwise
from vit_attn.ops.attend import attend
from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import ROWWISE, Numbers
from vit_attn.ops.rows import Rows, closed, merged
from vit_attn.parallel.sequence.wire import LOWEST


class Softmaxed(NamedTuple):
    """The attention over some keys alone, and log sum_j exp(logit_ij), by which shares of other keys can be weighed."""

    out: Float[Array, "b q H d"]
    lse: Float[Array, "b q H 1"]


def sum_of(
    form: Form, impl: str, q: Float[Array, "b q H d"], k: Float[Array, "b k H d"], v: Float[Array, "b k H d"]
) -> Float[Array, "b q H d"]:
    """sum_j h(z_ij) v_j of a pointwise h, without L^-alpha: the sum over all keys needs it once. form.length is set."""
    return attend(q, k, v, form, Numbers(), impl=impl)


def softmax_share(
    form: Form, q: Float[Array, "b q H d"], k: Float[Array, "b k H d"], v: Float[Array, "b k H d"], mask: Array | None
) -> Softmaxed:
    """Of the keys given; `q` is scaled by 1/sqrt(d). No key, or none that is not hidden: zeros, and an lse that weighs 0."""
    out, rows = blockwise.over_images(form, blockwise.row_parts, _inputs(q, k, v, mask))
    empty = rows.total == 0.0
    total = jnp.where(empty, 1.0, rows.total)
    return Softmaxed(*map(_swap, (out / total, jnp.where(empty, LOWEST, rows.top + jnp.log(total)))))


def together(a: Softmaxed, b: Softmaxed) -> Softmaxed:
    """Of the keys of both."""
    rows, of_a, of_b = merged(_rows(a.lse), _rows(b.lse))
    return Softmaxed((a.out * of_a + b.out * of_b) / rows.total, rows.top + jnp.log(rows.total))


def finished(form: Form, share: Softmaxed) -> Softmaxed:
    """The share of all keys, once the zero logit of softmax1 has joined."""
    rows, old = closed(ROWWISE[form.h], _rows(share.lse))
    return Softmaxed(share.out * (old / rows.total), rows.top + jnp.log(rows.total))


def pull_softmax(
    form: Form,
    q: Float[Array, "b q H d"],
    k: Float[Array, "b k H d"],
    v: Float[Array, "b k H d"],
    mask: Array | None,
    lse: Float[Array, "b q H 1"],
    delta: Float[Array, "b q H 1"],
    d_out: Float[Array, "b q H d"],
) -> tuple[Float[Array, "b q H d"], Float[Array, "b k H d"], Float[Array, "b k H d"]]:
    """The gradients of q, k and v that these keys cause, in float32. `lse` is that of all keys, `delta` is d_out . out."""
    rows, delta, d_out = Rows(_swap(lse), jnp.ones_like(_swap(lse))), _swap(delta), _swap(d_out.astype(v.dtype))
    d = blockwise.over_images(form, blockwise.backward, _inputs(q, k, v, mask), rows, delta, d_out)
    return _swap(d.q), _swap(d.k), _swap(d.v)


def softmax_form(form: Form, impl: str) -> Form:
    """dense: as blockwise, all keys in one block."""
    return replace(form, block=2**31, tile_logits=None) if impl == "dense" else form


def _inputs(q: Array, k: Array, v: Array, mask: Array | None) -> blockwise.Inputs:
    nothing = jnp.zeros((), jnp.float32)
    return blockwise.Inputs(_swap(q), _swap(k), _swap(v), mask, nothing, nothing)


def _rows(lse: Float[Array, "b q H 1"]) -> Rows:
    """A share that is divided by its total has sum_j exp(logit - lse) = 1."""
    return Rows(lse, jnp.ones_like(lse))


def _swap(x: Float[Array, "b x y c"]) -> Float[Array, "b y x c"]:
    """Heads first, or tokens first again."""
    return jnp.swapaxes(x, 1, 2)


def pull_sum(
    form: Form,
    impl: str,
    q: Float[Array, "b q H d"],
    k: Float[Array, "b k H d"],
    v: Float[Array, "b k H d"],
    d_out: Float[Array, "b q H d"],
) -> tuple[Array, Array, Array]:
    """The gradients of q, k and v through `sum_of`."""
    return jax.vjp(lambda *x: sum_of(form, impl, *x), q, k, v)[1](d_out.astype(v.dtype))
