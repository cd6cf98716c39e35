"""ops.attend at every length and width, with masks, against the float64 judge, flax and torch."""

import math

import attention_oracle as oracle
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_attn.ops.attend import attend
from vit_attn.ops.choice import Sizes, choose_impl
from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import NONLINEARITY, Numbers, weights

NUMBERS = Numbers(**oracle.NUMBERS)


def qkv(shape_q, shape_k, dtype=jnp.float32, scale=1.0):
    keys = jax.random.split(jax.random.key(7), 3)
    return [
        (scale * jax.random.normal(key, shape)).astype(dtype)
        for key, shape in zip(keys, (shape_q, shape_k, shape_k), strict=True)
    ]


def run(h, impl, q, k, v, mask=None, causal=False, numbers=NUMBERS, **form):
    """(output, gradients of a fixed random sum of it)."""
    form = Form(h, causal=causal, **form)
    cotangent = jax.random.normal(jax.random.key(3), q.shape).astype(v.dtype)

    @jax.jit
    def both(q, k, v):
        out, pull = jax.vjp(lambda *x: attend(*x, form, numbers, impl=impl, mask=mask), q, k, v)
        return out, pull(cotangent)

    return both(q, k, v), np.asarray(cotangent, np.float64)


def close(got, want, tolerance=2e-5):
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=0, atol=tolerance * np.abs(want).max() + 1e-30)


@pytest.mark.parametrize("length", [1, 2, 47, 197, 785])
@pytest.mark.parametrize("impl", ["dense", "blockwise"])
@pytest.mark.parametrize("h", ["relu", "sigmoid_bias", "softmax", "clipped_softmax"])
def test_any_length(h, impl, length):
    """Head width 64; blocks of 100 keys and tiles of 64 queries, so that none divides."""
    q, k, v = qkv((1, length, 2, 64), (1, length, 2, 64))
    (out, grads), cotangent = run(h, impl, q, k, v, block=100, tile_logits=1)
    inputs = dict(zip("qkv", (np.asarray(x, np.float64) for x in (q, k, v)), strict=True))
    close(out, oracle.attend(h, **inputs, **oracle.NUMBERS))
    for name, gradient in zip("qkv", grads, strict=True):
        gradient, direction = np.asarray(gradient, np.float64), np.random.default_rng(1).normal(size=gradient.shape)
        slope = oracle.slope(lambda i: np.sum(oracle.attend(h, **i, **oracle.NUMBERS) * cotangent), inputs, name, direction)
        assert np.sum(gradient * direction) == pytest.approx(slope, abs=4e-5 * float(max(map(np.linalg.norm, grads))))


@pytest.mark.parametrize("impl", ["dense", "blockwise"])
@pytest.mark.parametrize("h", NONLINEARITY)
@pytest.mark.parametrize("causal", [False, True])
def test_masks_add_to_the_logits_and_hide_keys(h, impl, causal):
    """Hidden keys weigh exactly nothing and still count in L; a row without any key is zero, and has no gradient."""
    q, k, v = qkv((2, 11, 3, 5), (2, 11, 3, 5))
    rng = np.random.default_rng(0)
    mask = np.where(rng.random((2, 1, 11, 11)) < 0.3, -np.inf, rng.normal(size=(2, 1, 11, 11)))
    mask[:, :, 4] = -np.inf
    (out, grads), _ = run(h, impl, q, k, v, jnp.asarray(mask, jnp.float32), causal, block=4)
    hidden = np.broadcast_to(np.isinf(mask) | (causal & (np.arange(11) > np.arange(11)[:, None])), (2, 3, 11, 11))
    z = np.einsum("bqhd,bkhd->bhqk", *(np.asarray(x, np.float64) for x in (q, k))) / math.sqrt(5) + np.where(hidden, 0, mask)
    w = np.zeros_like(z)
    for place in np.ndindex(2, 3, 11):
        shown = ~hidden[place]
        if h in oracle.POINTWISE or h == "sigmoid_bias":
            w[place][shown] = oracle.weights(h, z[place], **oracle.NUMBERS)[shown]
        elif shown.any():
            w[place][shown] = oracle.weights(h, z[place][shown], **oracle.NUMBERS)
    close(out, np.einsum("bhqk,bkhd->bqhd", w, np.asarray(v, np.float64)))
    assert (np.asarray(out)[:, 4] == 0).all()
    assert (np.asarray(grads[0])[:, 4] == 0).all()
    assert all(np.isfinite(g).all() for g in grads)


def test_a_causal_query_never_sees_what_comes():
    q, k, v = qkv((1, 9, 2, 5), (1, 9, 2, 5))
    before = attend(q, k, v, Form("softmax", causal=True, block=4), NUMBERS, impl="blockwise")
    after = attend(
        q, k.at[:, 5:].add(3.0), v.at[:, 5:].add(3.0), Form("softmax", causal=True, block=4), NUMBERS, impl="blockwise"
    )
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] != after[:, 5:]).any()


@pytest.mark.parametrize("impl", ["dense", "blockwise"])
@pytest.mark.parametrize("normalize_qk", [False, True])
def test_softmax_is_flax(impl, normalize_qk):
    """nn.MultiHeadDotProductAttention with identities for projections: D = H * d."""
    x, heads, d = jax.random.normal(jax.random.key(0), (2, 7, 12)), 3, 4
    module = nn.MultiHeadDotProductAttention(heads, normalize_qk=normalize_qk, deterministic=True)
    params = module.init(jax.random.key(1), x, x)["params"]
    eye = jnp.eye(12)
    for name, shape in {"query": (12, 3, 4), "key": (12, 3, 4), "value": (12, 3, 4), "out": (3, 4, 12)}.items():
        params[name]["kernel"] = eye.reshape(shape)
    split = x.reshape(2, 7, heads, d)
    form = Form("softmax", qk_norm="head" if normalize_qk else "none", block=3)
    got = attend(split, split, split, form, NUMBERS, impl=impl).reshape(x.shape)
    np.testing.assert_allclose(got, module.apply({"params": params}, x, x), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("impl", ["dense", "blockwise"])
def test_softmax_is_torch(impl):
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install torch, to compare with it)")
    q, k, v = qkv((2, 7, 3, 5), (2, 11, 3, 5))
    heads_first = [torch.tensor(np.asarray(x)).transpose(1, 2) for x in (q, k, v)]
    want = torch.nn.functional.scaled_dot_product_attention(*heads_first).transpose(1, 2).numpy()
    np.testing.assert_allclose(attend(q, k, v, Form("softmax", block=4), NUMBERS, impl=impl), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("h", NONLINEARITY)
@pytest.mark.parametrize("impl", ["dense", "blockwise"])
def test_the_result_has_the_type_of_the_values(h, impl):
    q, k, v = qkv((2, 5, 3, 8), (2, 13, 3, 8), jnp.bfloat16)
    got = attend(q, k, v, Form(h, block=4), NUMBERS, impl=impl)
    want = oracle.attend(h, *(np.asarray(x, np.float64) for x in (q, k, v)), **oracle.NUMBERS)
    assert got.dtype == jnp.bfloat16
    close(got, want, 2**-6)


@pytest.mark.parametrize("h", ["relu", "softmax", "clipped_softmax"])
def test_blockwise_under_vmap_and_remat(h):
    q, k, v = qkv((3, 2, 7, 2, 5), (3, 2, 11, 2, 5))

    def total(impl, alpha, q, k, v):
        return jnp.sum(attend(q, k, v, Form(h, block=4), NUMBERS._replace(alpha=alpha), impl=impl) ** 2)

    grads = {}
    for impl in ("dense", "blockwise"):
        one = jax.checkpoint(jax.grad(lambda *x, impl=impl: total(impl, *x), argnums=(0, 1, 2, 3)))
        grads[impl] = jax.jit(jax.vmap(one))(jnp.array([0.5, 1.0, 1.5]), q, k, v)
    for dense, blocks in zip(grads["dense"], grads["blockwise"], strict=True):
        close(blocks, np.asarray(dense, np.float64))


@pytest.mark.parametrize("h", ["relu", "softmax", "clipped_softmax"])
def test_blockwise_memory_is_linear(h):
    """Temporary memory of forward and gradients, as compiled: twice the length takes about twice, and no L x L array."""

    def temporary(length):
        q = jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32)
        form = Form(h, block=64, tile_logits=2**13)

        def both(q, k, v):
            out, pull = jax.vjp(lambda *x: attend(*x, form, NUMBERS, impl="blockwise"), q, k, v)
            return pull(out)

        return jax.jit(both).lower(q, q, q).compile().memory_analysis().temp_size_in_bytes

    short, long = temporary(1021), temporary(2039)
    assert long < 2.2 * short
    assert long < 2039 * 2039 * 4 * 2 / 8  # a quarter of one head's logits


def test_weights_are_what_attend_sums_with():
    q, k, v = qkv((1, 3, 2, 5), (1, 7, 2, 5))
    for h in NONLINEARITY:
        w = weights(h, jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(5), NUMBERS)
        summed = jnp.einsum("bhqk,bkhd->bqhd", w, v)
        np.testing.assert_allclose(summed, attend(q, k, v, Form(h), NUMBERS), rtol=1e-5, atol=1e-6)


def test_gamma_per_length_is_gamma():
    q, k, v = qkv((1, 3, 2, 5), (1, 7, 2, 5))
    by_length = attend(q, k, v, Form("clipped_softmax"), Numbers(gamma_per_length=0.7))
    np.testing.assert_array_equal(by_length, attend(q, k, v, Form("clipped_softmax"), Numbers(gamma=-0.7 / 7)))
    assert (by_length != attend(q, k, v, Form("clipped_softmax"), Numbers())).any()


@pytest.mark.parametrize(
    ("impl", "platform", "dropout", "keys", "width", "dtype", "chosen"),
    [
        ("auto", "cpu", 0.0, 49, 64, "float32", "blockwise"),
        ("auto", "cpu", 0.1, 49, 64, "float32", "dense"),
        ("auto", "gpu", 0.0, 197, 64, "bfloat16", "blockwise"),
        ("auto", "tpu", 0.0, 197, 64, "bfloat16", "pallas"),
        ("auto", "tpu", 0.0, 197, 80, "bfloat16", "dense"),
        ("auto", "tpu", 0.0, 3136, 80, "bfloat16", "blockwise"),
        ("auto", "tpu", 0.0, 12544, 64, "bfloat16", "pallas"),
        ("auto", "tpu", 0.0, 12544, 64, "float32", "blockwise"),
        ("dense", "cpu", 0.0, 49, 64, "float32", "dense"),
    ],
)
def test_auto(impl, platform, dropout, keys, width, dtype, chosen):
    assert choose_impl(impl, platform, dropout, Sizes(keys, 8, width, dtype)) == chosen


def test_what_an_implementation_lacks_is_refused():
    q, k, v = qkv((1, 3, 2, 64), (1, 3, 2, 64))
    with pytest.raises(ValueError, match=r"pallas.* no mask"):
        attend(q, k, v, Form(), NUMBERS, impl="pallas", mask=jnp.zeros((1, 1, 3, 3)))
    for impl in ("blockwise", "pallas"):
        with pytest.raises(ValueError, match=rf"{impl}.* no dropout"):
            attend(q, k, v, Form(dropout=0.1), NUMBERS, impl=impl, dropout_key=jax.random.key(0))
