"""Random colours and random boxes of noise: what can be read from the results is distributed as it should be."""

import augment_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.stats import kstest

from vit_attn.ops.augment.jitter import color_jitter, random_box, random_erasing

COUNT = 500


def keys(count=COUNT, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@pytest.mark.parametrize("strength", [0.4, 1.5])
def test_brightness_is_uniform(strength):
    """A gray image shows it alone: neither contrast nor saturation changes it."""
    images = jnp.full((COUNT, 3, 5, 3), 80, jnp.uint8)
    out = np.asarray(color_jitter(keys(), images, strength))
    assert (np.ptp(out, (1, 2, 3)) <= 1).all()
    lowest = max(0.0, 1 - strength)
    assert kstest((out[:, 0, 0, 0] + 0.5) / 80, "uniform", (lowest, 1 + strength - lowest)).pvalue > 1e-4


def test_brightness_contrast_and_saturation_follow_as_pillows():
    photographs = np.stack(list(oracle.photographs().values()))
    got = np.asarray(color_jitter(keys(3), jnp.asarray(photographs), 0.4), int)
    for key, image, out in zip(keys(3), photographs, got, strict=True):
        expected = Image.fromarray(image)
        factors = jax.random.uniform(key, (3,), minval=0.6, maxval=1.4)
        for enhance, factor in zip((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True):
            expected = enhance(expected).enhance(float(factor))
        away = np.abs(out - np.asarray(expected))
        assert away.max() <= 3  # Pillow's gray is another by one at most
        assert away.mean() < 0.5


def test_strength_0_is_the_identity_and_neighbours_do_not_matter():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (7, 11, 13, 3), np.uint8))
    np.testing.assert_array_equal(color_jitter(keys(7), images, 0.0), images)
    got = color_jitter(keys(7), images, 0.4)
    assert (got != images).any((1, 2, 3)).all()
    np.testing.assert_array_equal(color_jitter(keys(7)[2:4], images[2:4], 0.4), got[2:4])


def boxes(shape, count=2000):
    return np.asarray(jax.jit(jax.vmap(lambda key: random_box(key, shape)))(keys(count, 1)))


def test_boxes_have_timms_areas_and_aspects():
    inside = boxes((101, 97))
    height, width = inside.any(2).sum(1), inside.any(1).sum(1)
    assert (inside.sum((1, 2)) == height * width).all()
    area, aspect = height * width / (101 * 97), np.log(height / width)
    assert 0.017 < area.min() < 0.03
    assert 0.32 < area.max() < 0.345
    assert kstest(area, "uniform", (0.02, 1 / 3 - 0.02)).statistic < 0.1  # long ones do not fit, so not quite uniform
    assert -np.log(1 / 0.3) - 0.1 < aspect.min() < -1.1
    assert 1.1 < aspect.max() < np.log(1 / 0.3) + 0.1
    assert abs(aspect.mean()) < 0.06
    first = inside.any(2).argmax(1) / (101 - height)
    assert kstest(first, "uniform").statistic < 0.05


def test_what_does_not_fit_is_left_out():
    assert not boxes((1, 50)).any()


def test_erasing_puts_gaussian_noise_into_a_box_with_its_probability():
    images = jnp.full((COUNT, 31, 37, 3), 7.0)
    out = np.asarray(jax.jit(lambda k: random_erasing(k, images, 0.25))(keys()))
    changed = (out != 7).all(-1)
    assert ((out != 7).any(-1) == changed).all()
    assert abs(changed.any((1, 2)).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / COUNT)
    rows, columns = changed.any(2).sum(1), changed.any(1).sum(1)
    np.testing.assert_array_equal(changed.sum((1, 2)), rows * columns)
    noise = out[changed].ravel()
    assert kstest(noise[:5000], "norm").pvalue > 1e-4
    np.testing.assert_array_equal(random_erasing(keys(), images, 0.0), images)
