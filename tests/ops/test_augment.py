"""Augmentation: what comes out is a window, a mirror image, and a function of (seed, epoch, example) alone."""

import jax.numpy as jnp
import numpy as np

from vit_attn.ops.augment.keys import example_keys
from vit_attn.ops.augment.pixels import normalize
from vit_attn.ops.augment.window import random_crop, random_flip

IMAGES = jnp.asarray(np.random.default_rng(0).integers(0, 256, (23, 7, 5, 3), dtype=np.uint8))


def keys(seed=0, epoch=0, count=23):
    return example_keys(seed, jnp.full(count, epoch), jnp.arange(count))


def test_crop_is_a_window_of_the_reflected_image():
    padding, found = 2, set()
    got = np.asarray(random_crop(keys(), IMAGES, padding))
    for image, out in zip(np.asarray(IMAGES), got, strict=True):
        around = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
        windows = [(y, x) for y in range(5) for x in range(5) if (around[y : y + 7, x : x + 5] == out).all()]
        assert windows
        found.add(windows[0])
    assert len(found) > 10


def test_flip_mirrors_about_half():
    got = np.asarray(random_flip(keys(), IMAGES))
    mirrored = [(out == image[:, ::-1]).all() for image, out in zip(IMAGES, got, strict=True)]
    kept = [(out == image).all() for image, out in zip(IMAGES, got, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 4 < sum(mirrored) < 19


def test_keys_differ_by_seed_epoch_and_example_and_by_nothing_else():
    def numbers(seed, epoch, index):
        one = example_keys(seed, jnp.asarray([epoch]), jnp.asarray([index]))
        return np.asarray(random_crop(one, IMAGES[:1], 2))

    assert (numbers(3, 5, 7) == numbers(3, 5, 7)).all()
    assert (numbers(3, 5, 7) != numbers(3, 6, 7)).any()
    assert (numbers(3, 5, 7) != numbers(4, 5, 7)).any()
    assert (numbers(3, 5, 7) != numbers(3, 5, 8)).any()


def test_normalize_ends():
    np.testing.assert_allclose(normalize(jnp.asarray([[[[0, 255]]]], jnp.uint8)).ravel(), [-1.0, 1.0])
