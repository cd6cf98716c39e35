"""Products of integers against sums in int64, and the kernel for TPUs against them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_attn.ops.attend import attend
from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.ops.norm import PLAIN
from vit_attn.ops.pallas.int8 import bounds
from vit_attn.ops.tile import product
from vit_attn.quant.grid import Grid, asymmetric, symmetric
from vit_attn.quant.integer import AttentionProduct, FusedAttention, integers_of
from vit_attn.quant.network import kernel_product

DRAW = np.random.default_rng(7)
ZEROS = [0, 3, 128, 255]  # of 0 ... 255: at the ends the corrections are largest


def whole(zero):
    """Steps of 1: numbers are integers, and results are the accumulators."""
    return Grid(jnp.float32(1), jnp.float32(zero), jnp.float32(0), jnp.float32(255))


def numbers_on(zero, *shape):
    """All of 0 ... 255 - zero, the ends among them."""
    x = DRAW.integers(0, 256, shape)
    x.flat[:2] = 0, 255
    return (x - zero).astype(np.float32)


@pytest.mark.parametrize("zero", ZEROS)
def test_accumulators_of_a_kernel(zero):
    x, kernel = numbers_on(zero, 2, 5, 131), DRAW.integers(-128, 128, (131, 7)).astype(np.float32)
    one = kernel_product(
        "Dense_0/kernel", jnp.int8(kernel), symmetric(jnp.float32(127), 8), integers_of(whole(zero)), "numbers"
    )
    found = one(jax.lax.dot_general, jnp.asarray(x), jnp.asarray(kernel), (((2,), (0,)), ((), ())))
    wanted = np.einsum("blk,kn->bln", x.astype(np.int64), kernel.astype(np.int64))
    np.testing.assert_array_equal(np.asarray(found, np.int64), wanted)


@pytest.mark.parametrize("left", ZEROS)
@pytest.mark.parametrize("right", ZEROS)
def test_accumulators_of_attention(left, right):
    for which, pattern, a, b in (
        ("logits", "bqhd,bkhd->bhqk", (2, 5, 3, 11), (2, 7, 3, 11)),
        ("context", "bhqk,bkhd->bqhd", (2, 3, 5, 7), (2, 7, 3, 11)),
    ):
        x, y = numbers_on(left, *a), numbers_on(right, *b)
        one = AttentionProduct(which, integers_of(whole(left)), integers_of(whole(right)), jnp.float32(1))
        found = one(partial(product, pattern), jnp.asarray(x), jnp.asarray(y))
        np.testing.assert_array_equal(np.asarray(found, np.int64), np.einsum(pattern, x.astype(np.int64), y.astype(np.int64)))


@pytest.mark.parametrize(("low", "high"), [(-1.7, 3.1), (0.0, 2.3), (-5.0, 0.0)])
def test_integers_are_the_simulated_ones(low, high):
    grid = asymmetric(jnp.float32(low), jnp.float32(high), jnp.float32(255))
    ours, x = integers_of(grid), DRAW.normal(0, 2, 9973).astype(np.float32)
    scale, zero = np.float64(grid.scale), np.float64(grid.zero)
    wanted = np.clip(np.round(x / scale) + zero, 0, 255)
    steps = np.abs(x / scale)
    clear = np.abs(steps % 1 - 0.5) > 4e-7 * np.maximum(steps, 1)  # not half-way, as float32 can tell
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(np.asarray(ours(jnp.asarray(x)), np.int64)[clear], (wanted - 128)[clear])
    np.testing.assert_array_equal(ours.codes(jnp.asarray(x)), np.asarray(ours(jnp.asarray(x)), np.float32))
    np.testing.assert_allclose(ours.rounded(jnp.asarray(x))[clear], (scale * (wanted - zero))[clear], rtol=1e-6)


@pytest.mark.parametrize("h", ["softmax", "softmax1", "clipped_softmax", "relu", "identity"])
@pytest.mark.parametrize(("length", "heads", "width"), [(37, 2, 64), (36, 4, 64), (37, 1, 128), (23, 4, 32)])
@pytest.mark.parametrize("bounded", [True, False, "barely"])
def test_kernel_for_tpus(h, length, heads, width, bounded):
    """In the interpreter: the same integers as the two products with what lies between them."""
    shape = 6, length, heads, width
    q, k, v = (jnp.asarray(DRAW.normal(mean, 1.5, shape), jnp.float32) for mean in (0.3, -0.2, 0.5))
    if bounded == "barely":  # logits in an interval as wide as exp without a maximum of the row can take
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / width**0.5
        q *= 155 / (logits.max() - logits.min())
    form, numbers, ranges = Form(h=h), Numbers(alpha=0.8, gamma=-0.01, zeta=1.02), {}

    def look(name, x):
        ranges[name] = x
        return x

    ranges["context"] = attend(q, k, v, form, numbers, at=look)
    to = {name: integers_of(asymmetric(x.min(), x.max(), jnp.float32(255))) for name, x in ranges.items()}
    of_q, of_k, of_v = (integers_of(asymmetric(x.min(), x.max(), jnp.float32(255))) for x in (q, k, v))
    left = of_q.times(width**-0.5)
    products = {
        "logits_product": AttentionProduct("logits", left, of_k, left.scale * of_k.scale),
        "context_product": AttentionProduct("context", to["weights"], of_v, to["weights"].scale * of_v.scale),
    }
    at = lambda name, x: to[name].rounded(x) if name == "logits" else x
    wanted = attend(q, k, v, form, numbers, at=at, product_at=lambda name, one: partial(products[name], one))
    fused = FusedAttention(of_q, of_k, of_v, to["logits"], to["weights"], to["context"], bool(bounded), "numbers")
    assert bounds(float(ranges["logits"].max() - ranges["logits"].min()))
    found = fused(attend, q, k, v, form, numbers, mask=None, norm=PLAIN)
    difference = np.asarray(to["context"](found), int) - np.asarray(to["context"](wanted), int)
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.005
