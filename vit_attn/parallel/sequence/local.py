"""What one device computes in the queries and ring layouts: some keys' share in the attention of some queries."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.ops import blockwise
from vit_attn.ops.attend import attend
from vit_attn.ops.dense import dense
from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import ROWWISE, Numbers
from vit_attn.ops.rows import Rows, closed, merged
from vit_attn.parallel.sequence.wire import LOWEST


class Softmaxed(NamedTuple):
    """sum_j exp(logit_ij - top_i) v_j over some keys alone, and their rows, by which shares of other keys can be weighed.

    Top and total stay two numbers: the one number top + log(total) would have an ulp of 1e-3 at logits of 1e4.
    """

    out: Float[Array, "b q H d"]
    rows: Rows  # [b, q, H, 1] each


def sum_of(
    form: Form, impl: str, q: Float[Array, "b q H d"], k: Float[Array, "b k H d"], v: Float[Array, "b k H d"]
) -> Float[Array, "b q H d"]:
    """sum_j h(z_ij) v_j of a pointwise h in float32, without L^-alpha: the sum over all keys needs it once. form.length is set.

    pallas: of bfloat16 v the kernel gives bfloat16, which is only widened here.
    """
    q, k, v = _wide(q, k, v)
    if impl == "pallas":
        return attend(q, k, v, form, Numbers(), impl=impl).astype(jnp.float32)
    scaled = q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    return (blockwise.blockwise if impl == "blockwise" else dense)(form, scaled, k, v, Numbers())


def softmax_share(
    form: Form, q: Float[Array, "b q H d"], k: Float[Array, "b k H d"], v: Float[Array, "b k H d"], mask: Array | None
) -> Softmaxed:
    """Of the keys given; `q` is scaled by 1/sqrt(d). No key, or none that is not hidden: zeros, and a top that weighs 0."""
    out, rows = blockwise.over_images(form, blockwise.row_parts, _inputs(q, k, v, mask))
    return Softmaxed(_swap(out), Rows(_swap(jnp.maximum(rows.top, LOWEST)), _swap(rows.total)))


def together(a: Softmaxed, b: Softmaxed) -> Softmaxed:
    """Of the keys of both."""
    rows, of_a, of_b = merged(a.rows, b.rows)
    return Softmaxed(a.out * of_a + b.out * of_b, rows)


def finished(form: Form, share: Softmaxed) -> tuple[Float[Array, "b q H d"], Rows]:
    """(the attention, the rows that `pull_softmax` needs) of the share of all keys: the zero logit of softmax1 joins."""
    rows, old = closed(ROWWISE[form.h], share.rows)
    return share.out * (old / rows.total), rows


def pull_softmax(
    form: Form,
    q: Float[Array, "b q H d"],
    k: Float[Array, "b k H d"],
    v: Float[Array, "b k H d"],
    mask: Array | None,
    rows: Rows,
    delta: Float[Array, "b q H 1"],
    d_out: Float[Array, "b q H d"],
) -> tuple[Float[Array, "b q H d"], Float[Array, "b k H d"], Float[Array, "b k H d"]]:
    """The gradients of q, k and v that these keys cause, in float32. `rows` are those of all keys, `delta` is d_out . out."""
    heads_first = (Rows(*map(_swap, rows)), _swap(delta), _swap(d_out if v.dtype == jnp.float16 else d_out.astype(v.dtype)))
    d = blockwise.over_images(form, blockwise.backward, _inputs(q, k, v, mask), *heads_first)
    return _swap(d.q), _swap(d.k), _swap(d.v)


def softmax_form(form: Form, impl: str) -> Form:
    """dense: as blockwise, all keys in one block."""
    return replace(form, block=2**31, tile_logits=None) if impl == "dense" else form


def _inputs(q: Array, k: Array, v: Array, mask: Array | None) -> blockwise.Inputs:
    nothing = jnp.zeros((), jnp.float32)
    return blockwise.Inputs(_swap(q), _swap(k), _swap(v), mask, nothing, nothing)


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
    """The gradients of q, k and v through `sum_of`; of float16 inputs in float32."""
    return jax.vjp(lambda *x: sum_of(form, impl, *x), *_wide(q, k, v))[1](d_out.astype(jnp.float32))


def _wide(*arrays: Array) -> list[Array]:
    """float16 as float32, as which it is multiplied anyway: neither a sum nor a gradient without L^-alpha fits float16."""
    return [x.astype(jnp.float32) if x.dtype == jnp.float16 else x for x in arrays]
