"""Calibrated networks: an outlier planted without changing the function, exact zeros, L^-alpha, layers, and damaged numbers."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

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

SIZES = {"variant": "mu/7", "image_size": 8, "patch": 4, "width": 128, "depth": 2, "mlp_dim": 61, "heads": 4, "num_classes": 10}
DIGITS = load_digits()
ORDER, BATCH = np.random.default_rng(0).permutation(len(DIGITS.target)), 64  # one size of batches: few programs to compile
LABELS = DIGITS.target[ORDER]
BATCHES = [
    jnp.asarray(np.repeat(np.uint8(15.9 * DIGITS.images[ORDER[at : at + BATCH]])[..., None], 3, axis=-1))
    for at in range(0, len(ORDER) - BATCH, BATCH)
]
IMAGES = BATCHES[0]
SECOND = "Transformer/encoderblock_1"


@cache
def built(h="softmax", gate="none", noise=0.05):
    """(model, parameters); its alpha, if it has one, is Numbers'."""
    attention = {"h": h, "gate": gate, "qk_norm": "none"}
    spec = resolve({"model": {**SIZES, "scan_layers": True, "attention": attention}}).model
    params = jax.jit(ViT(spec).init)(jax.random.key(0), normalize(IMAGES[:1]), Numbers())["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return spec, jax.tree.unflatten(
        tree, [x + noise * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )


@partial(jax.jit, static_argnums=0)
def logits_of(spec, given, numbers, images):
    return ViT(spec).apply(given, normalize(images), numbers)[0]


@partial(jax.jit, static_argnums=0)
def tensors_of(spec, params, numbers, images):
    """What passes the points, by path."""
    return paths_of(ViT(spec).apply({"params": params}, normalize(images), numbers, mutable=["points"])[1]["points"])


def exact(spec, params, numbers=None):
    return logits_of(spec, {"params": params}, numbers or Numbers(), IMAGES)


def calibrated(spec, params, quant, estimator="min_max", numbers=None, batches=(IMAGES,)):
    """(the variables of the quantized network, what its points learned, Names)."""
    numbers, names = numbers or Numbers(), names_of(replace(spec, scan_layers=False), params, quant)
    low = rounded(params, weight_grids(params, names, quant))
    learned = calibrate(Network(spec, low, numbers), names, quant, estimator, batches)
    return {"params": low, "points": roundings(learned)}, learned, names


def quantized(spec, params, quant, estimator="min_max", numbers=None):
    """(logits, what the points learned)."""
    given, learned, _ = calibrated(spec, params, quant, estimator, numbers)
    return logits_of(spec, given, numbers or Numbers(), IMAGES), learned


def off(got, want):
    """How far logits are from the exact ones, in terms of how much these vary."""
    return float(jnp.linalg.norm(got - want) / jnp.linalg.norm(want - want.mean(axis=0, keepdims=True)))


@pytest.fixture(scope="module")
def reader():
    """(model, parameters, BATCHES from 20 on as its logits): random, but for a head that ridge regression taught digits."""
    spec, params = built()
    seen = [tensors_of(spec, params, Numbers(), images)["pooled"] for images in BATCHES[:20]]
    features = np.concatenate([np.ones((20 * BATCH, 1)), np.concatenate(seen)], axis=1, dtype=np.float64)
    targets = np.eye(10)[LABELS[: 20 * BATCH]] - 0.1
    bias, *kernel = np.linalg.solve(features.T @ features + np.eye(129), features.T @ targets)
    head = {"kernel": jnp.float32(np.array(kernel)), "bias": jnp.float32(bias)}
    return spec, {**params, "head": head}


def accuracy(spec, given):
    """On the digits that neither ridge regression nor calibration has seen."""
    found = np.concatenate([logits_of(spec, given, Numbers(), images).argmax(axis=-1) for images in BATCHES[20:]])
    return float((found == LABELS[20 * BATCH :][: len(found)]).mean())


def planted(params, norm, following, channel, factor=200):
    """The same function: one channel of a LayerNorm's output times `factor`, the next weights' row through it."""
    flat = dict(paths_of(params))
    for name in ("scale", "bias"):
        flat[f"{norm}/{name}"] = flat[f"{norm}/{name}"].at[channel].multiply(factor)
    flat[following] = flat[following].at[channel].divide(factor)
    return nested(flat)


def test_a_planted_outlier(reader):
    """min_max spends the grid of the LayerNorm's output on one channel, and the others round to 0; percentiles spare them.

    The gains stay in float32: on a grid with a step of 200/127 all that are about 1 grow to 1.57, and that alone lifts the
    other channels over half a step of the activations.
    """
    spec, params = reader
    channel = int(jnp.abs(tensors_of(spec, params, Numbers(), IMAGES)["Transformer/last_norm"]).max(axis=(0, 1)).argmax())
    with_outlier = planted(params, "Transformer/encoder_norm", "head/kernel", channel)
    np.testing.assert_allclose(exact(spec, with_outlier), exact(spec, params), atol=1e-4)

    quant = QuantSpec(exclude=("*/scale",))
    found = {
        (name, estimator): accuracy(spec, calibrated(spec, which, quant, estimator, batches=BATCHES[:2])[0])
        for name, which in (("as it was", params), ("planted", with_outlier))
        for estimator in ("min_max", "percentile_99")
    }
    assert found["as it was", "min_max"] > accuracy(spec, {"params": params}) - 0.03 > 0.85
    assert found["planted", "min_max"] < 0.3
    assert found["planted", "percentile_99"] > 0.5 * (found["planted", "min_max"] + found["as it was", "percentile_99"])


def test_more_bits_are_closer_and_16_are_there():
    spec, params = built()
    want = exact(spec, params)

    def error(**quant):
        return off(quantized(spec, params, QuantSpec(**quant))[0], want)

    errors = [error(weight_bits=bits, activation_bits=bits) for bits in (4, 6, 8, 16)]
    assert sorted(errors, reverse=True) == errors
    assert errors[-1] < 1e-3
    assert errors[0] > 0.1
    assert error(weight_bits=4, activation_bits=16, per_channel=True) < error(weight_bits=4, activation_bits=16)


def test_zeros_of_clipped_softmax_stay_zeros():
    numbers = Numbers(gamma=-0.3)
    spec, params = built("clipped_softmax", noise=0.3)
    tensors = tensors_of(spec, params, numbers, IMAGES)
    _, learned, _ = calibrated(spec, params, QuantSpec(), numbers=numbers)
    for layer in range(2):
        path = f"Transformer/encoderblock_{layer}/MultiHeadDotProductAttention_0/weights"
        weights, grid = np.asarray(tensors[path]), learned[path].grid
        assert 0.02 < (weights == 0).mean() < 0.98
        assert (np.asarray(grid(weights))[weights == 0] == 0).all()
        assert grid.zero == 0


def test_each_layer_learns_its_own_range_of_all_batches():
    """min_max against the tensors themselves, where nothing before a point is rounded."""
    spec, params = built("relu", gate="linear")
    numbers, batches = Numbers(alpha=1.0), BATCHES[:2]
    _, learned, names = calibrated(spec, params, QuantSpec(exclude=("*",)), numbers=numbers, batches=batches)
    tensors = [tensors_of(spec, params, numbers, one) for one in batches]
    assert set(tensors[0]) == set(learned) == set(names.points)
    for path, operation in learned.items():
        ends = min(one[path].min() for one in tensors), max(one[path].max() for one in tensors)
        np.testing.assert_allclose([operation.low, operation.high], ends, rtol=1e-3, atol=1e-4, err_msg=path)
    lows = [float(learned[f"Transformer/encoderblock_{i}/sum_1"].low) for i in range(2)]
    assert lows[0] != lows[1]


def test_which_points_there_are():
    spec, params = built("relu", gate="linear")
    spec, attention = replace(spec, scan_layers=False), "encoderblock_0/attention"
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
    spec, params = built("relu", gate="linear", noise=0.2)
    (one, apart), (other, folded) = (quantized(spec, params, QuantSpec(fold_length=f), numbers=numbers) for f in (False, True))
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
        calibrated(spec, nested(flat), QuantSpec())
    flat[f"{SECOND}/MlpBlock_0/Dense_1/kernel"] = flat[f"{SECOND}/MlpBlock_0/Dense_1/kernel"].at[3].set(bad)
    with pytest.raises(UserError, match="the weights encoderblock_1/mlp/Dense_1/kernel"):
        calibrated(spec, nested(flat), QuantSpec())
