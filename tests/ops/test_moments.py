"""Moments against scipy and plain float64 loops; weights and their statistics against numpy's."""

import attention_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vit_attn.ops.form import Form
from vit_attn.ops.moments import infinity_norm, kurtosis, logits_and_weights, outliers, weight_statistics
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.ops.norm import PLAIN

SIZES = [(197, 384), (401, 769)]  # of a ViT-S/16: 75 thousand numbers; and 308 thousand


def activations(length, width, mean=0.0, std=1.0, outlier=0.0):
    rng = np.random.default_rng(length)
    x = mean + std * rng.standard_t(5, (3, length, width))
    x[:, 3, 7] += outlier
    return x.astype(np.float32)


def by_definition(x):
    """The mean fourth central moment / (std^4 + 1e-6) with the std of n - 1, one image at a time."""
    found = []
    for image in np.asarray(x, np.float64).reshape(len(x), -1):
        centred = image - image.mean()
        found.append((centred**4).mean() / (image.std(ddof=1) ** 4 + 1e-6))
    return np.array(found)


@pytest.mark.parametrize(("length", "width"), SIZES)
@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"mean": 300.0},
        {"std": 1e-2},  # std^4 is as small as what is added to it
        {"std": 1e9},  # whose fourth power is no float32
        {"outlier": 400.0},
        {"mean": -5.0, "std": 30.0, "outlier": 9e4},
    ],
)
def test_kurtosis_is_the_definition(length, width, kind):
    x = activations(length, width, **kind)
    np.testing.assert_allclose(jax.jit(kurtosis)(x), by_definition(x), rtol=1e-5)


@pytest.mark.parametrize(("length", "width"), SIZES)
def test_kurtosis_is_scipys_but_for_bessel_and_the_floor(length, width):
    x = activations(length, width, mean=2.0, std=10.0)
    n = length * width
    want = scipy.stats.kurtosis(x.reshape(3, n).astype(np.float64), axis=1, fisher=False, bias=True) * ((n - 1) / n) ** 2
    np.testing.assert_allclose(jax.jit(kurtosis)(x), want, rtol=1e-5)


def test_kurtosis_of_a_gaussian_is_three():
    x = np.random.default_rng(0).normal(size=(2, 401, 769)).astype(np.float32)
    np.testing.assert_allclose(kurtosis(jnp.asarray(x)), 3.0, atol=0.05)


def test_kurtosis_of_few_numbers_has_bessels_correction():
    x = np.random.default_rng(1).normal(size=(5, 3, 2)).astype(np.float32)
    np.testing.assert_allclose(kurtosis(jnp.asarray(x)), by_definition(x), rtol=1e-5)
    biased = scipy.stats.kurtosis(x.reshape(5, 6), axis=1, fisher=False)
    assert (np.asarray(kurtosis(jnp.asarray(x))) < 0.8 * biased).all()  # (5/6)^2


@pytest.mark.parametrize("value", [0.0, 3.1, -1e-20, 12345.678, 1e30])
def test_a_constant_has_no_tails(value):
    x = jnp.full((2, 197, 384), value, jnp.float32)
    np.testing.assert_array_equal(kurtosis(x), 0.0)
    assert not outliers(x).any()


def test_bfloat16_is_measured_in_float32():
    x = jnp.asarray(activations(197, 384, outlier=400.0), jnp.bfloat16)
    np.testing.assert_allclose(kurtosis(x), by_definition(x.astype(jnp.float32)), rtol=1e-5)
    assert kurtosis(x).dtype == infinity_norm(x).dtype == jnp.float32


def test_infinity_norm_is_the_largest_size_of_each_image():
    x = activations(31, 17)
    x[1, 30, 16] = -77.0
    want = [max(abs(float(value)) for value in image.ravel()) for image in x]
    np.testing.assert_array_equal(infinity_norm(jnp.asarray(x)), np.float32(want))


def test_outliers_are_beyond_six_standard_deviations_of_their_own_image():
    x = activations(53, 29, mean=4.0)
    x[0] *= 100.0  # another image's size does not matter
    x[2, 5, 11], x[2, 6, 11] = 60.0, -60.0
    flat = x.astype(np.float64).reshape(3, -1)
    far = abs(flat - flat.mean(1, keepdims=True)) > 6 * flat.std(1, ddof=1, keepdims=True)
    got = np.asarray(outliers(jnp.asarray(x)))
    np.testing.assert_array_equal(got, far.reshape(x.shape))
    assert got[2, 5, 11]
    assert got[2, 6, 11]


def queries_and_keys(images=6, queries=11, keys=11, heads=3, d=5):
    rng = np.random.default_rng(7)
    return (rng.normal(0, 2, (images, n, heads, d)).astype(np.float32) for n in (queries, keys))


@pytest.mark.parametrize("h", oracle.FORMS)
@pytest.mark.parametrize("length", [None, 7])
def test_weights_are_numpys_and_padding_is_left_out(h, length):
    q, k = queries_and_keys()
    kept = slice(length)
    z = np.einsum("bqhd,bkhd->bhqk", *(x[:, kept].astype(np.float64) for x in (q, k))) / 5**0.5
    alpha = np.array([0.3, 1.0, 1.7])
    heads = [oracle.weights(h, z[:, i], alpha[i], oracle.NUMBERS["gamma"], oracle.NUMBERS["zeta"]) for i in range(3)]
    numbers = Numbers(jnp.asarray(alpha, jnp.float32), oracle.NUMBERS["gamma"], oracle.NUMBERS["zeta"])
    got_z, got_w = logits_and_weights(jnp.asarray(q), jnp.asarray(k), Form(h, length=length), numbers, PLAIN)
    np.testing.assert_allclose(got_z, z, atol=1e-5)
    np.testing.assert_allclose(got_w, np.stack(heads, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("turns", [1, 2, 3, 6])
def test_turns_change_nothing(turns):
    q, k = (jnp.asarray(x) for x in queries_and_keys(keys=13))
    whole = weight_statistics(q, k, Form("softmax1"), Numbers(), PLAIN)
    parts = jax.jit(lambda q, k: weight_statistics(q, k, Form("softmax1"), Numbers(), PLAIN, turns))(q, k)
    assert {"weight_mean_times_L", "weight_zero_share", "weight_entropy", "logit_max_abs"} == set(whole) == set(parts)
    for name, value in whole.items():
        assert value.shape == (6,)
        np.testing.assert_allclose(parts[name], value, rtol=1e-6, err_msg=name)
    assert len(set(np.asarray(whole["logit_max_abs"]).tolist())) == 6  # so that an image out of place is seen
