"""The kernels, interpreted, against the float64 judge: output and every gradient."""

import attention_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import pointwise
from vit_attn.ops.norm import QKNorm
from vit_attn.ops.pallas.attention import fused, supported
from vit_attn.ops.pallas.slopes import SLOPES, slope
from vit_attn.ops.pallas.tiles import Tiles, choose

NORMS = ("query_scale", "query_bias", "key_scale", "key_bias")


def inputs_of(batch, queries, keys, heads, width, norms=NORMS):
    """Everything that `fused` is differentiable in, by name, in float64."""
    rng = np.random.default_rng(0)
    shapes = {"q": (batch, queries, heads, width), "k": (batch, keys, heads, width), "v": (batch, keys, heads, width)}
    inputs = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    inputs["q"] += 0.5  # so that a mean is there to subtract
    inputs["scale"] = rng.uniform(0.2, 1.0, heads)
    inputs |= {"gamma": np.float64(-0.4 / keys), "zeta": np.float64(1.1)}
    for name in norms:
        inputs[name] = 0.3 * rng.normal(size=width) + (1.0 if name.endswith("scale") else 0.0)
    return inputs


def judge(h, qk_norm, i):
    """What `fused` is to give, in float64."""
    q, k = i["q"], i["k"]
    if qk_norm == "head":
        parts = [{p: i[f"{x}_{p}"] for p in ("scale", "bias") if f"{x}_{p}" in i} for x in ("query", "key")]
        q, k = (oracle.layer_norm(x, (-1,), p) for x, p in zip((q, k), parts, strict=True))
    return oracle.attend(h, q, k, i["v"], 0.0, i["gamma"], i["zeta"]) * i["scale"][:, None]


def kernel(h, qk_norm, tiles=None, length=None):
    """`fused` of the inputs by name."""

    def function(i):
        norm = QKNorm(**{name: i.get(name) for name in NORMS})
        form = Form(h, qk_norm=qk_norm, length=length)
        return fused(form, i["q"], i["k"], i["v"], i["scale"], (i["gamma"], i["zeta"]), norm, tiles)

    return function


def check(h, qk_norm, inputs, tiles=None, dtype=jnp.float32, tolerance=2e-5, gradient_tolerance=4e-5):
    """Output and the slope of a random sum of it along a random direction of each input, relative to their size.

    A bias of all keys moves a softmax not at all: its gradient is judged by the size of the scale's.
    """
    arrays = {name: jnp.asarray(x, dtype if name in "qkv" else jnp.float32) for name, x in inputs.items()}
    inputs = oracle.float64(arrays)
    rng = np.random.default_rng(1)
    cotangent = np.asarray(jnp.asarray(rng.normal(size=inputs["q"].shape), dtype), np.float64)
    out, pull = jax.vjp(jax.jit(kernel(h, qk_norm, tiles)), arrays)
    gradients = oracle.float64(jax.jit(pull)(jnp.asarray(cotangent, dtype))[0])
    want = judge(h, qk_norm, inputs)
    assert out.dtype == dtype
    np.testing.assert_allclose(np.asarray(out, np.float64), want, rtol=0, atol=tolerance * np.abs(want).max())
    for name, gradient in gradients.items():
        direction = rng.normal(size=gradient.shape)
        slope = oracle.slope(lambda i: np.sum(judge(h, qk_norm, i) * cotangent), inputs, name, direction, 1e-8)
        size = max(np.linalg.norm(gradients[x]) for x in (name, name.replace("bias", "scale")) if x in gradients)
        error = abs(np.sum(gradient * direction) - slope)
        assert error <= gradient_tolerance * max(size, 1e-3 * np.linalg.norm(gradients["v"])), name


@pytest.mark.parametrize("h", oracle.FORMS)
@pytest.mark.parametrize("qk_norm", ["none", "head"])
def test_every_nonlinearity(h, qk_norm):
    check(h, qk_norm, inputs_of(1, 47, 47, 2, 64, NORMS if qk_norm == "head" else ()))


@pytest.mark.parametrize("h", ["relu", "clipped_softmax"])
@pytest.mark.parametrize("shape", [(2, 2, 2, 4, 32), (1, 197, 197, 2, 64), (2, 1, 9, 1, 128), (1, 5, 3, 1, 256)])
def test_any_length_and_width(h, shape):
    check(h, "head", inputs_of(*shape))


@pytest.mark.parametrize("h", ["relu", "softmax", "clipped_softmax"])
def test_one_key(h):
    """Softmax of one logit has no slope; with gamma and zeta as they are here, nothing is at its bound."""
    check(h, "none", {**inputs_of(1, 1, 1, 2, 64, ()), "gamma": -0.2, "zeta": 1.1})


@pytest.mark.parametrize(("h", "keys"), [("relu", 32), ("clipped_softmax", 32), ("clipped_softmax", 16), ("softmax1", 16)])
def test_blocks(h, keys):
    """Several query blocks, the last in part behind the last query; few key blocks, and so many that they are looped over."""
    check(h, "head", inputs_of(1, 40, 90, 1, 128), Tiles(1, 16, keys))


@pytest.mark.parametrize(
    ("h", "gradient_tolerance"),
    [("relu", 0.12), ("gelu", 0.04), ("sigmoid_bias", 0.04), ("softplus", 0.04), ("clipped_softmax", 0.12)],
)
def test_bfloat16(h, gradient_tolerance):
    """Operands, weights and gradients have 8 bits: 2 % of the largest output. Gradients: where h has a kink, rounding a logit
    from one side to the other changes all of its gradient; 1 in 2^8 does, which are 2^-4 of the gradient's norm.
    """
    check(h, "head", inputs_of(2, 47, 47, 2, 64), None, jnp.bfloat16, 2e-2, gradient_tolerance)


@pytest.mark.parametrize("h", [*SLOPES, "sigmoid_bias"])
def test_short_formulas_are_those_of_h(h):
    """Value and slope, at logits far out too."""
    z = jnp.linspace(-40.0, 40.0, 4001)
    w, tangent = jax.jvp(pointwise(h, 196), (z,), (jnp.ones_like(z),))
    for got, want in zip(slope(h, 196)(z), (w, tangent), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=5e-6)


def test_norm_without_parameters():
    check("relu", "head", inputs_of(1, 9, 9, 2, 64, ()))
    check("relu", "head", inputs_of(1, 9, 9, 2, 64, ("query_scale", "key_bias")))


def test_a_scale_of_zero_has_a_gradient():
    inputs = inputs_of(1, 9, 9, 2, 64, ())
    check("relu", "none", {**inputs, "scale": np.array([0.0, 1.0])})


def test_norm_over_the_width():
    inputs = inputs_of(1, 9, 9, 2, 64, ())
    arrays = {name: jnp.asarray(x, jnp.float32) for name, x in inputs.items()}
    shaped = {name: jnp.full((2, 64), 0.5) for name in NORMS}
    ln = lambda x: oracle.layer_norm(x, (-2, -1), {"scale": 0.5, "bias": 0.5})
    want = judge("relu", "none", {**inputs, "q": ln(inputs["q"]), "k": ln(inputs["k"])})
    np.testing.assert_allclose(kernel("relu", "width")({**arrays, **shaped}), want, atol=1e-4)


def test_float16_weights_may_exceed_its_range():
    arrays = {name: jnp.asarray(x, jnp.float16) for name, x in inputs_of(1, 4, 4, 2, 64, ()).items()}
    arrays |= {"q": 20 * jnp.ones_like(arrays["q"]), "k": 20 * jnp.ones_like(arrays["k"]), "scale": jnp.full(2, 1e-6)}
    out = kernel("relu2", "none")(arrays)
    assert out.dtype == jnp.float16
    np.testing.assert_allclose(out, judge("relu2", "none", oracle.float64(arrays)), rtol=2e-3)


def test_length_is_that_of_all_keys():
    """A part of the keys: sigmoid_bias subtracts the logarithm of the number of all."""
    arrays = {name: jnp.asarray(x, jnp.float32) for name, x in inputs_of(1, 4, 8, 2, 64, ()).items()}
    parts = [kernel("sigmoid_bias", "none", length=8)({**arrays, "k": k, "v": v})
             for k, v in zip(jnp.split(arrays["k"], 2, 1), jnp.split(arrays["v"], 2, 1), strict=True)]  # fmt: skip
    np.testing.assert_allclose(sum(parts), kernel("sigmoid_bias", "none")(arrays), atol=1e-5)


def test_remat_and_vmap():
    arrays = {name: jnp.asarray(x, jnp.float32) for name, x in inputs_of(1, 5, 5, 1, 128).items()}
    loss = lambda i: jnp.square(kernel("clipped_softmax", "head")(i)).sum()
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    gradient = jax.jit(jax.grad(loss))
    jax.tree.map(close, jax.jit(jax.grad(jax.checkpoint(loss)))(arrays), gradient(arrays))
    other = jax.tree.map(lambda x: 0.8 * x, arrays)
    mapped = jax.jit(jax.vmap(jax.grad(loss)))(jax.tree.map(lambda *x: jnp.stack(x), arrays, other))
    for i, one in enumerate((arrays, other)):
        jax.tree.map(lambda a, b, i=i: close(a[i], b), mapped, gradient(one))


def test_what_is_not_supported_says_why():
    assert not supported(6, 64)
    assert not supported(3, 128)
    assert "80" in supported(16, 80)
    assert "192" in supported(3, 64)
    arrays = {name: jnp.asarray(x, jnp.float32) for name, x in inputs_of(1, 4, 4, 3, 64, ()).items()}
    with pytest.raises(ValueError, match="3 heads of width 64"):
        kernel("relu", "none")(arrays)
    with pytest.raises(ValueError, match="causal"):
        fused(Form("relu", causal=True), *(arrays[x] for x in "qkv"), arrays["scale"], (0.0, 1.0), QKNorm())


@pytest.mark.parametrize(
    ("batch", "queries", "keys"), [(256, 196, 196), (250, 197, 197), (7, 1, 785), (1, 12544, 12544), (8, 3137, 3137)]
)
def test_tiles_cover_the_sequence(batch, queries, keys):
    tiles = choose(batch, queries, keys)
    assert batch % tiles.images == 0
    assert tiles.queries == queries or (tiles.queries % 16 == 0 and tiles.queries <= 1024)
    assert tiles.keys == keys or tiles.keys % 128 == 0
    assert tiles.images == 1 or tiles.queries == queries
