"""What the softmax kinds must know of a row of logits before they can weigh it: gathered a block of keys at a time.

Milakov and Gimelshein, arXiv:1805.02867.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.ops.nonlinearity import Rowwise


class Rows(NamedTuple):
    """softmax = exp(logit - top) / total, over the keys seen so far."""

    top: Float[Array, "*H q 1"]  # the largest logit; -inf before the first one
    total: Float[Array, "*H q 1"]  # sum of exp(logit - top)


def no_rows(q: Float[Array, "*H q d"]) -> Rows:
    """Of queries that have seen no key."""
    empty = jnp.zeros((*q.shape[:-1], 1), jnp.float32)
    return Rows(empty - jnp.inf, empty)


def seen(rows: Rows, s: Float[Array, "*H q k"]) -> tuple[Rows, Float[Array, "*H q k"], Float[Array, "*H q 1"]]:
    """(rows that have seen the logits `s` too, exp(s - top), the factor for sums made with the old top)."""
    top = jnp.maximum(rows.top, s.max(axis=-1, keepdims=True))
    reference = jnp.where(top == -jnp.inf, 0.0, top)  # all hidden so far
    e, old = jnp.exp(s - reference), jnp.exp(rows.top - reference)
    return Rows(top, rows.total * old + e.sum(axis=-1, keepdims=True)), e, old


def merged(a: Rows, b: Rows) -> tuple[Rows, Float[Array, "*H q 1"], Float[Array, "*H q 1"]]:
    """(rows over the keys of both, the factors for sums made with a's top and with b's)."""
    top = jnp.maximum(a.top, b.top)
    reference = jnp.where(top == -jnp.inf, 0.0, top)
    of_a, of_b = jnp.exp(a.top - reference), jnp.exp(b.top - reference)
    return Rows(top, a.total * of_a + b.total * of_b), of_a, of_b


def closed(kind: Rowwise, rows: Rows) -> tuple[Rows, Float[Array, "*H q 1"]]:
    """(rows that have seen all keys, the factor for sums made with the old top): the zero logit, if there is one, joins.

    A row whose keys are all hidden gets weights of 0.
    """
    top = jnp.where(rows.top == -jnp.inf, 0.0, rows.top)
    if kind.zero_logit:
        top = jnp.maximum(top, 0.0)
    old = jnp.exp(rows.top - top)
    total = rows.total * old + (jnp.exp(-top) if kind.zero_logit else 0.0)
    return Rows(top, jnp.where(total == 0.0, 1.0, total)), old


def softmax_of(s: Float[Array, "*H q k"], rows: Rows) -> Float[Array, "*H q k"]:
    """The weights of logits whose rows are closed."""
    return jnp.exp(s - rows.top) / rows.total
