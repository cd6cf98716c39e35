"""mixup and CutMix: the formula with the weight that was drawn, the weight's distribution, the label's share."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import beta, kstest

from vit_attn.ops.augment.mix import mix

IMAGES = np.random.default_rng(0).standard_normal((5, 23, 31, 3)).astype(np.float32)


@cache
def many(mixup, cutmix):
    """(weights, shares) of 2000 draws: image 1 is one, its neighbour image 0 is zero."""
    images = jnp.broadcast_to(jnp.asarray([0.0, 1.0])[:, None, None, None], (2, 23, 31, 3))
    out, share = jax.jit(jax.vmap(lambda key: mix(key, images, mixup, cutmix)))(jax.random.split(jax.random.key(1), 2000))
    return np.asarray(out)[:, 1, :, :, 0], np.asarray(share)


@pytest.mark.parametrize("concentration", [0.2, 0.8, 1.0])
def test_mixup(concentration):
    for seed in range(4):
        out, share = mix(jax.random.key(seed), jnp.asarray(IMAGES), concentration, 0.0)
        expected = float(share) * IMAGES + (1 - float(share)) * IMAGES[[4, 0, 1, 2, 3]]
        np.testing.assert_allclose(out, expected, atol=1e-6)
        assert 0.5 <= share <= 1


@pytest.mark.parametrize("concentration", [0.2, 1.0])
def test_mixups_share_is_the_larger_of_a_beta_variate_and_its_rest(concentration):
    weights, share = many(concentration, 0.0)
    judge = beta(concentration, concentration)
    assert kstest(share, lambda x: judge.cdf(x) - judge.cdf(1 - x)).pvalue > 1e-3
    np.testing.assert_allclose(weights, np.broadcast_to(share[:, None, None], weights.shape), atol=1e-6)


def test_cutmix_is_a_box_of_the_neighbour_and_the_share_what_is_left():
    partner = IMAGES[[4, 0, 1, 2, 3]]
    sizes = set()
    for seed in range(12):
        out, share = mix(jax.random.key(seed), jnp.asarray(IMAGES), 0.0, 1.0)
        taken = (np.asarray(out) == partner).all(-1)
        assert (taken == taken[:1]).all()  # one box for the batch
        np.testing.assert_array_equal(np.where(taken[..., None], partner, IMAGES), out)
        rows, columns = np.nonzero(taken[0].any(1))[0], np.nonzero(taken[0].any(0))[0]
        assert taken[0].sum() == len(rows) * len(columns)
        if len(rows):
            assert np.ptp(rows) + 1 == len(rows)
            assert np.ptp(columns) + 1 == len(columns)
        np.testing.assert_allclose(share, 1 - taken[0].mean(), atol=1e-6)
        sizes.add(int(taken[0].sum()))
    assert len(sizes) > 6


def test_boxes_of_cutmix_have_timms_sizes_and_places():
    """Against the same many boxes drawn by numpy: the mean share, and how often each row is in the box."""
    weights, share = many(0.0, 1.0)
    random, judge = np.random.default_rng(2), np.ones((20000, 23, 31), np.float32)
    for box in judge:
        side = np.sqrt(1 - random.beta(1.0, 1.0))
        half, middle = (int(23 * side) // 2, int(31 * side) // 2), (random.integers(23), random.integers(31))
        box[max(middle[0] - half[0], 0) : middle[0] + half[0], max(middle[1] - half[1], 0) : middle[1] + half[1]] = 0
    error = judge.mean((1, 2)).std() / np.sqrt(len(share))
    assert abs(share.mean() - judge.mean()) < 4 * error
    np.testing.assert_allclose(weights.mean((0, 2)), judge.mean((0, 2)), atol=0.04)


def test_both_are_one_of_the_two_with_equal_probability():
    weights, share = many(0.8, 1.0)
    boxed = ((weights == 0) | (weights == 1)).all((1, 2))
    assert abs(boxed.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(boxed))
    np.testing.assert_allclose(share, weights.mean((1, 2)), atol=1e-5)
    assert share[~boxed].min() >= 0.5
    assert share[boxed].min() < 0.4


def test_neither_changes_nothing():
    out, share = mix(jax.random.key(0), jnp.asarray(IMAGES), 0.0, 0.0)
    np.testing.assert_array_equal(out, IMAGES)
    assert share == 1


def test_devices_change_nothing():
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    images = jnp.asarray(np.tile(IMAGES, (4, 1, 1, 1))[:16])
    split = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    mixed = jax.jit(lambda key, images: mix(key, images, 0.2, 1.0))
    one, many = mixed(jax.random.key(3), images), mixed(jax.random.key(3), jax.device_put(images, split))
    np.testing.assert_array_equal(one[0], many[0])
    assert one[1] == many[1]
