"""The ViT against one made of flax's own parts, and its forms against their definitions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.flax_vit import FlaxViT
from vit_attn.models.posemb import sincos2d
from vit_attn.models.vit import ViT
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.spec.resolve import resolve
from vit_attn.spec.variants import SIZES

IMAGES = jax.random.normal(jax.random.key(5), (3, 14, 14, 3))


def model_spec(**model):
    sizes = {"variant": "mu/7", "image_size": 14, "width": 24, "depth": 2, "mlp_dim": 37, "heads": 3, "num_classes": 11}
    attention = {"h": model.pop("h", "softmax"), "qk_norm": model.pop("qk_norm", "head")}
    return resolve({"model": {**sizes, **model, "attention": attention}}).model


def perturbed(params):
    """Zeros and ones would hide errors: every parameter gets noise."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [x + 0.3 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


@pytest.mark.parametrize("pool", ["gap", "tok", "map"])
@pytest.mark.parametrize("rep_size", [False, True])
@pytest.mark.parametrize("qk_norm", ["none", "head"])
def test_softmax_is_flax(pool, rep_size, qk_norm):
    ours = ViT(model_spec(pool=pool, rep_size=rep_size, qk_norm=qk_norm))
    peer = FlaxViT(11, 7, 24, 2, 3, 37, pool=pool, rep_size=rep_size, qk_norm=qk_norm == "head")
    params = ours.init(jax.random.key(0), IMAGES, Numbers())["params"]
    theirs = peer.init(jax.random.key(0), IMAGES)["params"]
    jax.tree.map(np.testing.assert_array_equal, params, theirs)  # names, shapes and the very numbers
    params = perturbed(params)
    want = peer.apply({"params": params}, IMAGES)
    got, extra = ours.apply({"params": params}, IMAGES, Numbers())
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * float(jnp.abs(want).max()) + 1e-6)
    assert extra["pre_logits"].shape == (3, 24)


def test_big_visions_names():
    params = ViT(model_spec(pool="tok", rep_size=True)).init(jax.random.key(0), IMAGES, Numbers())["params"]
    names = {"/".join(part.key for part in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    block = "Transformer/encoderblock_1"
    assert {
        "embedding/kernel",
        "pos_embedding",
        "cls",
        "Transformer/encoder_norm/scale",
        f"{block}/LayerNorm_0/scale",
        f"{block}/LayerNorm_1/bias",
        f"{block}/MlpBlock_0/Dense_0/kernel",
        f"{block}/MlpBlock_0/Dense_1/bias",
        f"{block}/MultiHeadDotProductAttention_0/query/kernel",
        f"{block}/MultiHeadDotProductAttention_0/out/bias",
        f"{block}/MultiHeadDotProductAttention_0/query_ln/scale",
        "pre_logits/kernel",
        "head/kernel",
    } <= names


def test_head_starts_at_its_bias():
    logits, _ = ViT(spec := model_spec(head_bias=-6.9)).init_with_output(jax.random.key(0), IMAGES, Numbers())[0]
    np.testing.assert_allclose(logits, np.full((3, spec.num_classes), -6.9), rtol=1e-6)


@pytest.mark.parametrize(("h", "pool"), [("relu", "gap"), ("relu2", "tok"), ("sigmoid", "map")])
def test_alpha_is_traced_and_scales_by_the_number_of_keys(h, pool):
    """Scaling the value projection by L^alpha undoes L^-alpha; L counts the CLS token."""
    model = ViT(model_spec(h=h, pool=pool, depth=1, qk_norm="none"))
    params = perturbed(model.init(jax.random.key(0), IMAGES, Numbers(alpha=1.0))["params"])
    apply = jax.jit(lambda p, alpha: model.apply({"params": p}, IMAGES, Numbers(alpha=alpha))[0])
    length = 4 + (pool == "tok")
    block = params["Transformer"]["encoderblock_0"]["MultiHeadDotProductAttention_0"]
    block["value"] = jax.tree.map(lambda x: x * length**0.5, block["value"])
    scaled = apply(params, 1.5)
    block["value"] = jax.tree.map(lambda x: x * length**-0.5, block["value"])
    np.testing.assert_allclose(scaled, apply(params, 1.0), rtol=2e-5, atol=2e-5)
    assert apply._cache_size() == 1
    assert not np.allclose(apply(params, 1.0), apply(params, 0.5))


def test_sincos2d_layout():
    """First quarter sin(x w), then cos(x w), sin(y w), cos(y w), with w_i = 10000^(-i/(D/4 - 1)); x is the column."""
    got, width = sincos2d(3, 5, 12), 12
    for row, column in np.ndindex(3, 5):
        w = 10_000.0 ** -(np.arange(3) / 2)
        want = np.concatenate([np.sin(column * w), np.cos(column * w), np.sin(row * w), np.cos(row * w)])
        np.testing.assert_allclose(got[0, row * 5 + column], want, atol=1e-6)
    assert got.shape == (1, 15, width)


def test_sincos2d_has_no_parameters():
    params = ViT(model_spec(posemb="sincos2d")).init(jax.random.key(0), IMAGES, Numbers())["params"]
    assert "pos_embedding" not in params


def noisy(spec):
    return perturbed(ViT(spec).init(jax.random.key(0), IMAGES, Numbers())["params"])


def test_layer_scale_multiplies_each_branch():
    """Factors of 1 change nothing; of 0, the encoder is its last LayerNorm; each branch has its own."""
    plain, scaled = model_spec(depth=1), model_spec(depth=1, layer_scale=0.25)
    params = noisy(plain)
    fresh = ViT(scaled).init(jax.random.key(0), IMAGES, Numbers())["params"]["Transformer"]["encoderblock_0"]
    assert all((fresh[f"layer_scale_{i}"] == jnp.full(24, 0.25)).all() for i in (0, 1))
    block = params["Transformer"]["encoderblock_0"]
    want = ViT(plain).apply({"params": params}, IMAGES, Numbers())[0]
    got = {}
    for factors in ((1.0, 1.0), (0.0, 0.0), (0.0, 1.0), (2.0, 1.0)):
        with_factors = block | {f"layer_scale_{i}": jnp.full(24, f) for i, f in enumerate(factors)}
        tree = params | {"Transformer": params["Transformer"] | {"encoderblock_0": with_factors}}
        got[factors] = ViT(scaled).apply({"params": tree}, IMAGES, Numbers())[0]
    np.testing.assert_array_equal(got[1.0, 1.0], want)
    none = params | {"Transformer": {"encoder_norm": params["Transformer"]["encoder_norm"]}}
    without = ViT(dataclasses.replace(plain, depth=0)).apply({"params": none}, IMAGES, Numbers())[0]
    np.testing.assert_allclose(got[0.0, 0.0], without, atol=1e-6)
    attention = block["MultiHeadDotProductAttention_0"]
    doubled = attention | {"out": jax.tree.map(lambda x: 2 * x, attention["out"])}
    tree = params | {
        "Transformer": params["Transformer"] | {"encoderblock_0": block | {"MultiHeadDotProductAttention_0": doubled}}
    }
    np.testing.assert_allclose(got[2.0, 1.0], ViT(plain).apply({"params": tree}, IMAGES, Numbers())[0], atol=2e-5)
    assert not np.allclose(got[0.0, 1.0], got[0.0, 0.0])


@pytest.mark.parametrize("patch_norm", ["patches", "tokens"])
def test_patch_norm(patch_norm):
    """LayerNorm of the embedded patches: before positions and CLS, or of all tokens behind them."""
    spec = model_spec(pool="tok", patch_norm=patch_norm)
    params = noisy(spec)
    _, seen = ViT(spec).apply({"params": params}, IMAGES, Numbers(), capture_intermediates=True)
    seen = seen["intermediates"]
    patches, got = (np.asarray(seen[name]["__call__"][0], np.float64) for name in ("embedding", "patch_norm"))
    x = patches.reshape(3, 4, 24)
    if patch_norm == "tokens":
        x = np.concatenate([np.tile(np.asarray(params["cls"]), (3, 1, 1)), x + np.asarray(params["pos_embedding"])], axis=1)
    scale, bias = (np.asarray(params["patch_norm"][name], np.float64) for name in ("scale", "bias"))
    want = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * scale + bias
    np.testing.assert_allclose(got, want, atol=2e-5)
    logits = lambda p: ViT(spec).apply({"params": p}, IMAGES, Numbers())[0]
    moved = params | {"patch_norm": {"scale": 2 * params["patch_norm"]["scale"], "bias": params["patch_norm"]["bias"]}}
    assert not np.allclose(logits(moved), logits(params), atol=1e-3)


def test_bfloat16_computes_near_float32_with_float32_parameters():
    spec = model_spec(h="relu")
    params = perturbed(ViT(spec).init(jax.random.key(0), IMAGES, Numbers(alpha=1.0))["params"])
    half = ViT(dataclasses.replace(spec, dtype="bfloat16"))
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(half.init(jax.random.key(0), IMAGES, Numbers(alpha=1.0))))
    want, _ = ViT(spec).apply({"params": params}, IMAGES, Numbers(alpha=1.0))
    got, _ = half.apply({"params": params}, IMAGES, Numbers(alpha=1.0))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=0.05 * float(jnp.abs(want).max()))


@pytest.mark.parametrize(
    ("variant", "millions"),
    [("Ti/16", 5.7), ("S/16", 22.0), ("B/16", 86.6), ("L/16", 304.3), ("H/14", 632.0), ("g/14", 1011.2)],
)
def test_published_parameter_counts(variant, millions):
    """Of the published table: with the CLS token and a 1000-way head, without qk-layernorm."""
    model = {"variant": variant, "pool": "tok", "attention": {"qk_norm": "none"}}
    spec = resolve({"model": model}).model
    shapes = jax.eval_shape(lambda: ViT(spec).init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), Numbers()))
    count = sum(x.size for x in jax.tree.leaves(shapes)) / 1e6
    assert count == pytest.approx(millions, rel=0.005)
    assert variant.partition("/")[0] in SIZES
