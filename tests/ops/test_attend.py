"""ops.attend against a float64 oracle written from the formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_attn.ops.attend import IMPLEMENTATIONS, attend, choose_impl
from vit_attn.ops.nonlinearity import NONLINEARITY, POINTWISE, weights

ORACLE = {
    "relu": lambda z: np.maximum(z, 0),
    "relu2": lambda z: np.maximum(z, 0) ** 2,
    "gelu": lambda z: z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2,
    "softplus": lambda z: np.logaddexp(0, z),
    "identity": lambda z: z,
    "relu6": lambda z: np.clip(z, 0, 6),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
}


def oracle(h, q, k, v, alpha):
    """Loops over nothing but heads: [B, L, H, d] -> [B, L, H, d] in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros(q.shape)
    for head in range(q.shape[2]):
        z = q[:, :, head] @ k[:, :, head].swapaxes(1, 2) / math.sqrt(q.shape[-1])
        if h == "softmax":
            e = np.exp(z - z.max(-1, keepdims=True))
            w = e / e.sum(-1, keepdims=True)
        else:
            w = k.shape[1] ** -float(alpha) * ORACLE[h](z)
        out[:, :, head] = w @ v[:, :, head]
    return out


def qkv(shape_q, shape_k, dtype=jnp.float32, scale=1.0):
    keys = jax.random.split(jax.random.key(7), 3)
    return [
        (scale * jax.random.normal(key, shape)).astype(dtype)
        for key, shape in zip(keys, (shape_q, shape_k, shape_k), strict=True)
    ]


def test_the_oracle_knows_every_h():
    assert set(ORACLE) == set(POINTWISE)
    assert set(NONLINEARITY) == {"softmax", *POINTWISE}


@pytest.mark.parametrize("h", NONLINEARITY)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0, -0.7])
def test_equals_the_formula(h, alpha):
    q, k, v = qkv((2, 5, 3, 7), (2, 11, 3, 7), scale=3.0)
    got = np.asarray(jax.jit(lambda a: attend(q, k, v, h, a))(alpha))
    want = oracle(h, q, k, v, alpha)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6 * np.abs(want).max())


@pytest.mark.parametrize("h", NONLINEARITY)
@pytest.mark.parametrize("batch", [1, 7, 6])
def test_chunks_change_nothing(h, batch, monkeypatch):
    """Chunks of one image (7 is prime), of two or three, or of all: the same outputs and gradients as in one piece."""
    monkeypatch.setattr("vit_attn.ops.attend.CHUNK_LOGITS", 4 * 3 * 5 * 11)
    q, k, v = qkv((batch, 5, 3, 7), (batch, 11, 3, 7))
    out, grads = {}, {}
    for impl in IMPLEMENTATIONS:
        out[impl], pull = jax.vjp(lambda *x, i=impl: attend(*x, h, 0.5, i), q, k, v)
        grads[impl] = pull(jnp.cos(jnp.arange(out[impl].size, dtype=jnp.float32)).reshape(out[impl].shape))
    np.testing.assert_allclose(out["chunked"], out["dense"], rtol=1e-5, atol=1e-6)
    for chunked, dense in zip(grads["chunked"], grads["dense"], strict=True):
        np.testing.assert_allclose(chunked, dense, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("impl", "platform", "devices", "chosen"),
    [("auto", "cpu", 1, "chunked"), ("auto", "cpu", 8, "dense"), ("auto", "tpu", 1, "dense"), ("dense", "cpu", 1, "dense")],
)
def test_auto(impl, platform, devices, chosen):
    assert choose_impl(impl, platform, devices) == chosen


@pytest.mark.parametrize("h", NONLINEARITY)
@pytest.mark.parametrize("length", [1, 2, 47, 197])
def test_any_length(h, length):
    q, k, v = qkv((1, length, 2, 5), (1, length, 2, 5))
    want = oracle(h, q, k, v, 1.0)
    np.testing.assert_allclose(np.asarray(attend(q, k, v, h, 1.0)), want, rtol=0, atol=2e-6 * np.abs(want).max())


@pytest.mark.parametrize("h", NONLINEARITY)
def test_gradients_equal_finite_differences_of_the_oracle(h):
    q, k, v = qkv((1, 3, 1, 2), (1, 5, 1, 2))
    direction = np.asarray(jax.random.normal(jax.random.key(3), q.shape))
    grads = jax.grad(lambda *x: jnp.sum(attend(*x, h, 1.0) * direction), argnums=(0, 1, 2))(q, k, v)
    for index, grad in enumerate(grads):
        inputs = [np.asarray(x, np.float64) for x in (q, k, v)]
        for place in np.ndindex(*grad.shape):
            ends = []
            for sign in (1e-6, -1e-6):
                moved = [x.copy() for x in inputs]
                moved[index][place] += sign
                ends.append(np.sum(oracle(h, *moved, 1.0) * direction))
            assert grad[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=2e-5)


@pytest.mark.parametrize("h", NONLINEARITY)
def test_bfloat16_stays_near_and_keeps_its_type(h):
    q, k, v = qkv((2, 5, 3, 8), (2, 13, 3, 8), jnp.bfloat16)
    got, want = attend(q, k, v, h, 1.0), oracle(h, q, k, v, 1.0)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=0, atol=2**-6 * np.abs(want).max())


def test_softmax_ignores_alpha():
    q, k, v = qkv((1, 3, 2, 5), (1, 3, 2, 5))
    assert (attend(q, k, v, "softmax", 0.0) == attend(q, k, v, "softmax", 2.0)).all()


@pytest.mark.parametrize("h", NONLINEARITY)
def test_weights_are_what_attend_sums_with(h):
    q, k, v = qkv((1, 3, 2, 5), (1, 7, 2, 5))
    w = weights(h, jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(5), 0.5)
    np.testing.assert_allclose(jnp.einsum("bhqk,bkhd->bqhd", w, v), attend(q, k, v, h, 0.5), rtol=1e-5, atol=1e-6)
