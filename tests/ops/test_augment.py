"""Augmentation: what comes out is a window, a mirror image, and a function of (seed, step, place) alone."""

import jax.numpy as jnp
import numpy as np

from vit_attn.ops.augment import example_keys, normalize, random_crop, random_flip

IMAGES = jnp.asarray(np.random.default_rng(0).integers(0, 256, (23, 7, 5, 3), dtype=np.uint8))


def test_crop_is_a_window_of_the_reflected_image():
    padding, found = 2, set()
    got = np.asarray(random_crop(example_keys(0, jnp.int32(0), 23), IMAGES, padding))
    for image, out in zip(np.asarray(IMAGES), got, strict=True):
        around = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
        windows = [(y, x) for y in range(5) for x in range(5) if (around[y : y + 7, x : x + 5] == out).all()]
        assert windows
        found.add(windows[0])
    assert len(found) > 10


def test_flip_mirrors_about_half():
    got = np.asarray(random_flip(example_keys(0, jnp.int32(0), 23), IMAGES))
    mirrored = [(out == image[:, ::-1]).all() for image, out in zip(IMAGES, got, strict=True)]
    kept = [(out == image).all() for image, out in zip(IMAGES, got, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 4 < sum(mirrored) < 19


def test_keys_differ_by_seed_step_and_place_and_by_nothing_else():
    def numbers(seed, step):
        return np.asarray(random_crop(example_keys(seed, jnp.int32(step), 23), IMAGES, 2))

    assert (numbers(3, 5) == numbers(3, 5)).all()
    assert (numbers(3, 5) != numbers(3, 6)).any()
    assert (numbers(3, 5) != numbers(4, 5)).any()


def test_normalize_ends():
    np.testing.assert_allclose(normalize(jnp.asarray([[[[0, 255]]]], jnp.uint8)).ravel(), [-1.0, 1.0])
