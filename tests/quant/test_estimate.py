"""Range estimators against brute force, numpy and their recurrence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_attn.quant.estimate import largest_of_least_error, least_error, percentiles
from vit_attn.quant.grid import highest_of
from vit_attn.quant.operation import fresh
from vit_attn.quant.weights import summed_axes, weight_grid

rng = np.random.default_rng(0)
GAUSS = rng.normal(size=(13, 101)).astype(np.float32)
TENSORS = {
    "gauss": GAUSS,
    "outlier": np.concatenate([GAUSS.ravel(), [70.0]]).astype(np.float32),
    "two outliers": np.concatenate([GAUSS.ravel(), [70.0, -31.0]]).astype(np.float32),
    "behind GELU": np.asarray(jax.nn.gelu(3 * GAUSS)),
    "weights of relu": np.maximum(GAUSS, 0) / 197,
    "one channel times 200": GAUSS * np.where(np.arange(101) == 5, 200, 1).astype(np.float32),
}


step = jax.jit(lambda operation, x: operation(x))


def error(x, low, high, bits):
    """In float64, from the definition."""
    x, low, high = x.astype(np.float64), np.minimum(low, 0.0), np.maximum(high, 0.0)
    scale = max((high - low) / (2**bits - 1), 1e-8)
    zero = np.clip(np.rint(-low / scale), 0, 2**bits - 1)
    return np.mean((scale * (np.clip(np.rint(x / scale) + zero, 0, 2**bits - 1) - zero) - x) ** 2)


@pytest.mark.parametrize("tensor", TENSORS)
def test_least_error_of_activations(tensor):
    """As good as the best of 61 x 61 ranges, and never worse than the extremes."""
    x, search = TENSORS[tensor], jax.jit(least_error)
    for bits in (3, 4, 8):
        low, high = (float(end) for end in search(x, highest_of(bits)))
        parts = np.linspace(0, 1, 61)
        lows = parts * min(x.min(), 0.0) if x.min() < 0 else [0.0]
        best = min(error(x, a, b, bits) for a in lows for b in parts * x.max())
        found = error(x, low, high, bits)
        assert found <= 1.001 * best, (bits, found / best)
        assert found <= error(x, x.min(), x.max(), bits) * (1 + 1e-5)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_least_error_of_weights_is_the_best_of_100(bits):
    x = np.concatenate([GAUSS, [GAUSS[0] * 9]]).astype(np.float32)
    half = 2 ** (bits - 1)

    def plain_loop(x):
        errors = []
        for k in range(1, 101):
            scale = k / 100 * np.abs(x).max() / (half - 1)
            errors.append(np.sum((scale * np.clip(np.rint(x / scale), -half, half - 1) - x.astype(np.float64)) ** 2))
        return np.array(errors), (np.argmin(errors) + 1) / 100 * np.abs(x).max()

    for columns, axes in ((x[:, :7], (0,)), (x, (0, 1))):
        got = np.asarray(largest_of_least_error(columns, axes, bits))
        for one, cut in zip(got.ravel(), columns.T if axes == (0,) else [columns], strict=True):
            errors, best = plain_loop(cut)
            chosen = round(100 * one / np.abs(cut).max())
            assert one == pytest.approx(best, rel=1e-6) or errors[chosen - 1] <= errors.min() * (1 + 1e-5)


WILD = {
    "one number": np.float32([-2.5]),
    "two": np.float32([3.0, -1e-20]),
    "equal": np.full((5, 7), -0.1, np.float32),
    "zeros of both signs": np.float32([0.0, -0.0, 0.0, 1.0, -1.0]),
    "negative": -np.exp(np.linspace(-60, 60, 1009, dtype=np.float32)),
    "positive": np.exp(np.linspace(-60, 60, 1009, dtype=np.float32)),
    "both, with ties": np.round(1e5 * np.random.default_rng(2).standard_cauchy(1009).astype(np.float32), -4),
}


def test_percentiles_are_numpys():
    for p in (50.5, 90.0, 99.0, 99.99, 100.0):
        np.testing.assert_allclose(
            percentiles(GAUSS, (100 - p) / 100), np.percentile(GAUSS, [100 - p, p]), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("p", [50.5, 99.0, 99.99, 100.0])
@pytest.mark.parametrize("x", WILD.values(), ids=WILD)
def test_percentiles_of_any_numbers(x, p):
    """Signs, sizes and ties make no difference: the numbers at the ranks are found exactly."""
    np.testing.assert_allclose(
        percentiles(jnp.asarray(x), (100 - p) / 100), np.percentile(x.astype(np.float64), [100 - p, p]), rtol=2e-3, atol=1e-30
    )
    np.testing.assert_array_equal(percentiles(jnp.asarray(x), 0.0), [x.min(), x.max()])


@pytest.mark.parametrize("p", [99.999, 100.0])
def test_percentiles_of_more_numbers_than_float32_can_count(p):
    x = np.random.default_rng(3).permutation(np.arange(2**24 + 3, dtype=np.float32))  # the last three are not all different
    tail = (100 - p) / 100 * (x.size - 1)
    np.testing.assert_allclose(percentiles(jnp.asarray(x), (100 - p) / 100), [tail, x.max() - tail], rtol=1e-6, atol=1e-3)


def test_over_batches():
    """The first batch starts a range; then 0.9 old + 0.1 new, or the extremes of all."""
    batches = [GAUSS * factor + shift for factor, shift in ((1, 0), (5, 1), (0.2, -1), (3, 4))]
    ends = [np.array([x.min(), x.max()], np.float64) for x in batches]
    running, percentile = ends[0], np.percentile(batches[0], [1, 99])
    least = [np.array(least_error(jnp.asarray(x, jnp.float32), jnp.float32(255)), np.float64) for x in batches]
    mse = least[0]
    for batch, end, best in zip(batches[1:], ends[1:], least[1:], strict=True):
        running, percentile = 0.9 * running + 0.1 * end, 0.9 * percentile + 0.1 * np.percentile(batch, [1, 99])
        mse = 0.9 * mse + 0.1 * best
    wanted = {
        "running_min_max": running,
        "min_max": [min(low for low, _ in ends), max(high for _, high in ends)],
        "percentile_99": percentile,
        "mse": mse,
    }
    for name, want in wanted.items():
        operation = fresh(name, 8, True, 0.9)
        for batch in batches:
            rounded, operation = operation(jnp.asarray(batch, jnp.float32))
            np.testing.assert_array_equal(rounded, operation.grid(jnp.asarray(batch, jnp.float32)))  # with its own batch
        np.testing.assert_allclose([operation.low, operation.high], want, rtol=1e-4)
        assert operation.batches == 4
        np.testing.assert_array_equal(operation.calibrated()(rounded)[0], operation.grid(rounded))


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("kind", ["min_max", "running_min_max", "percentile_60", "mse"])
def test_what_is_not_finite_is_noted(kind, bad):
    x = GAUSS.copy()
    _, operation = step(fresh(kind, 8, True, 0.9), x)
    assert operation.finite
    x[3, 4] = bad
    _, operation = step(operation, x)
    assert not operation.finite
    _, operation = step(operation, GAUSS)
    assert not operation.finite


def test_channels_of_each_kernel():
    """(shape, shape of the scales): a channel of a head, or of the output, has its own."""
    into_heads = ((12, 2, 6), (1, 2, 6))
    kernels = {
        **dict.fromkeys(("query/kernel", "key/kernel", "value/kernel"), into_heads),
        "out/kernel": ((2, 6, 12), (1, 1, 12)),
        "Dense_0/kernel": ((12, 37), (1, 37)),
        "embedding/kernel": ((7, 7, 3, 12), (1, 1, 1, 12)),
    }
    for path, (shape, scales) in kernels.items():
        x = jnp.asarray(rng.normal(size=shape), jnp.float32)
        assert weight_grid(x, summed_axes(path, x.ndim, True), "min_max", 8).scale.shape == scales
        assert weight_grid(x, summed_axes(path, x.ndim, False), "min_max", 8).scale.size == 1
    assert summed_axes("LayerNorm_0/scale", 1, True) == (0,)
