"""Calibrated networks: an outlier planted without changing the function, exact zeros, L^-alpha, layers, and damaged numbers."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_attn.models.vit import ViT
from vit_attn.ops.augment.pixels import normalize
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.quant.calibrate import Network, calibrate, roundings
from vit_attn.quant.names import names_of
from vit_attn.quant.weights import rounded, weight_grids
from vit_attn.spec.errors import UserError
from vit_attn.spec.quant import QuantSpec
from vit_attn.spec.resolve import resolve
from vit_attn.store.paths import nested, paths_of

SIZES = {"variant": "mu/7", "image_size": 14, "width": 96, "depth": 2, "mlp_dim": 61, "heads": 3, "num_classes": 11}
IMAGES = jax.random.randint(jax.random.key(0), (7, 14, 14, 3), 0, 256).astype(jnp.uint8)
SECOND = "Transformer/encoderblock_1"


@cache
def built(h="softmax", alpha=None, gate="none", noise=0.05, learned="none", **model):
    """(model, parameters)."""
    attention = {"h": h, "alpha": alpha, "gate": gate, "qk_norm": "none", "alpha_learned": learned}
    spec = resolve({"model": {**SIZES, **model, "attention": attention}}).model
    leaves, tree = jax.tree.flatten(ViT(spec).init(jax.random.key(0), normalize(IMAGES), Numbers(alpha=alpha or 0.0))["params"])
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return spec, jax.tree.unflatten(
        tree, [x + noise * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )


def exact(spec, params, numbers=None):
    return ViT(spec).apply({"params": params}, normalize(IMAGES), numbers or Numbers())[0]


def quantized(spec, params, quant, estimator="min_max", numbers=None, batches=(IMAGES,)):
    """(logits, what the points learned, Names)."""
    numbers, names = numbers or Numbers(), names_of(spec, params, quant)
    low = rounded(params, weight_grids(params, names, quant))
    learned = calibrate(Network(replace(spec, scan_layers=True), low, numbers), names, quant, estimator, batches)
    given = {"params": low, "points": roundings(learned)}
    return jax.jit(lambda given: ViT(spec).apply(given, normalize(IMAGES), numbers)[0])(given), learned, names


def off(got, want):
    """How far logits are from the exact ones, in terms of how much these vary."""
    return float(jnp.linalg.norm(got - want) / jnp.linalg.norm(want - want.mean(axis=0, keepdims=True)))


def test_a_planted_outlier():
    """A gain of a LayerNorm times 200, the next weights through 200: the same function, and far away on a grid."""
    spec, params = built()
    flat = dict(paths_of(params))
    for name in ("scale", "bias"):
        flat[f"{SECOND}/LayerNorm_1/{name}"] = flat[f"{SECOND}/LayerNorm_1/{name}"].at[5].multiply(200)
    flat[f"{SECOND}/MlpBlock_0/Dense_0/kernel"] = flat[f"{SECOND}/MlpBlock_0/Dense_0/kernel"].at[5].divide(200)
    planted, want = nested(flat), exact(spec, params)
    np.testing.assert_allclose(exact(spec, planted), want, atol=1e-4)
    scales, hit = ("*/scale",), ("*/scale", "encoderblock_1/norm_1", "encoderblock_1/mlp/Dense_0/kernel")
    before = off(quantized(spec, params, QuantSpec())[0], want)
    collapsed = off(quantized(spec, planted, QuantSpec())[0], want)
    widened = off(quantized(spec, planted, QuantSpec(exclude=scales))[0], want)
    clipped = off(quantized(spec, planted, QuantSpec(exclude=scales), "percentile_99.5")[0], want)
    spared = off(quantized(spec, planted, QuantSpec(exclude=hit))[0], want)
    assert before < 0.1
    assert collapsed > 5 * before
    assert clipped < 0.85 * widened  # in a network this small percentiles cost elsewhere
    assert spared < 1.2 * before


def test_more_bits_are_closer_and_16_are_there():
    spec, params = built()
    errors = [
        off(quantized(spec, params, QuantSpec(weight_bits=b, activation_bits=b))[0], exact(spec, params)) for b in (4, 6, 8, 16)
    ]
    assert sorted(errors, reverse=True) == errors
    assert errors[-1] < 1e-3
    assert errors[0] > 0.1
    of_channels = off(
        quantized(spec, params, QuantSpec(weight_bits=4, activation_bits=16, per_channel=True))[0], exact(spec, params)
    )
    assert of_channels < off(quantized(spec, params, QuantSpec(weight_bits=4, activation_bits=16))[0], exact(spec, params))


def test_zeros_of_clipped_softmax_stay_zeros():
    numbers = Numbers(gamma=-0.3)
    spec, params = built("clipped_softmax", noise=0.3)
    at = ViT(spec).apply({"params": params}, normalize(IMAGES), numbers, mutable=["points"])[1]["points"]
    _, learned, _ = quantized(spec, params, QuantSpec(), "min_max", numbers)
    for layer in range(2):
        weights = np.asarray(at["Transformer"][f"encoderblock_{layer}"]["MultiHeadDotProductAttention_0"]["weights"])
        grid = learned[f"Transformer/encoderblock_{layer}/MultiHeadDotProductAttention_0/weights"].grid
        assert 0.02 < (weights == 0).mean() < 0.98
        assert (np.asarray(grid(weights))[weights == 0] == 0).all()
        assert grid.zero == 0


def test_each_layer_learns_its_own_range_of_all_batches():
    """min_max against the tensors themselves, where nothing before a point is rounded."""
    spec, params = built(h="relu", alpha=1.0, gate="linear")
    numbers, quant = Numbers(alpha=1.0), QuantSpec(exclude=("*",))
    batches = [IMAGES[:3], IMAGES[3:6]]
    _, learned, names = quantized(spec, params, quant, "min_max", numbers, batches)
    tensors = [ViT(spec).apply({"params": params}, normalize(one), numbers, mutable=["points"])[1]["points"] for one in batches]
    tensors = [paths_of(one) for one in tensors]
    assert set(tensors[0]) == set(learned) == set(names.points)
    for path, operation in learned.items():
        ends = min(one[path].min() for one in tensors), max(one[path].max() for one in tensors)
        np.testing.assert_allclose([operation.low, operation.high], ends, rtol=1e-3, atol=1e-4, err_msg=path)
    lows = [float(learned[f"Transformer/encoderblock_{i}/sum_1"].low) for i in range(2)]
    assert lows[0] != lows[1]


def test_which_points_there_are():
    spec, params = built(h="relu", alpha=1.0, gate="linear")
    attention = "encoderblock_0/attention"
    default, other = (
        names_of(spec, params, QuantSpec()),
        names_of(spec, params, QuantSpec(context="before_gate", fold_length=True)),
    )
    assert {name for name in default.points.values() if name.startswith(attention) and not default.on(name)} == {
        f"{attention}/context",
        f"{attention}/unscaled_weights",
    }
    assert {name for name in other.points.values() if name.startswith(attention) and not other.on(name)} == {
        f"{attention}/gated",
        f"{attention}/weights",
    }
    assert list(default.points.values())[:4] == ["images", "embedded", "tokens", "encoderblock_0/norm_0"]
    assert list(default.points.values())[-1] == "head/output"
    assert not any("gate" in name.split("/") or name.endswith("bias") for name in default.weights.values())
    assert {"embedding/kernel", "pos_embedding", "head/kernel", f"{attention}/query/kernel"} < set(default.weights.values())
    some = names_of(spec, params, QuantSpec(exclude=("head/*", "encoderblock_1/*/weights")))
    assert some.excluded == ("encoderblock_1/attention/weights", "head/output", "head/kernel")
    with pytest.raises(UserError, match=r"'hed/.' matches no point") as refused:
        names_of(spec, params, QuantSpec(exclude=("hed/*",)))
    assert "encoderblock_{0..1}/attention/logits" in refused.value.details[0]


def test_folded_or_not_the_same_integers():
    """L^-alpha is one number for all weights of a tensor: it may join the scale."""
    numbers = Numbers(alpha=1.3)
    spec, params = built(h="relu", alpha=1.3, noise=0.2)
    (one, apart, _), (other, folded, _) = (
        quantized(spec, params, QuantSpec(fold_length=f), "min_max", numbers) for f in (False, True)
    )
    assert off(one, other) < 0.3 * off(one, exact(spec, params, numbers))
    path = "Transformer/encoderblock_0/MultiHeadDotProductAttention_0"
    np.testing.assert_allclose(
        apart[f"{path}/weights"].grid.scale, folded[f"{path}/unscaled_weights"].grid.scale * 4**-1.3, rtol=1e-3
    )
    assert apart[f"{path}/weights"].grid.zero == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_damaged_numbers_name_the_point(bad):
    spec, params = built()
    flat = dict(paths_of(params))
    flat[f"{SECOND}/LayerNorm_0/bias"] = flat[f"{SECOND}/LayerNorm_0/bias"].at[3].set(bad)
    with pytest.raises(UserError, match="the point encoderblock_1/norm_0 has numbers that are not finite"):
        quantized(spec, nested(flat), QuantSpec())
    flat[f"{SECOND}/MlpBlock_0/Dense_1/kernel"] = flat[f"{SECOND}/MlpBlock_0/Dense_1/kernel"].at[3].set(bad)
    with pytest.raises(UserError, match="the weights encoderblock_1/mlp/Dense_1/kernel"):
        quantized(spec, nested(flat), QuantSpec())
