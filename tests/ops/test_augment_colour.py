"""Changes of colour against Pillow, TensorFlow and whole numbers, byte by byte."""

from fractions import Fraction

import augment_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from vit_attn.ops.augment import colour, jitter
from vit_attn.ops.augment.table import counts_by_address, counts_by_product, look_up_by_address, look_up_by_product

IMAGES = np.stack(list(oracle.images().values()))
MAGNITUDES = (0, 1, 5, 10, 15, 30)


def run(operation, *arguments):
    return np.asarray(jax.jit(jax.vmap(lambda x: operation(x, *arguments)))(IMAGES))


def same(got, judge, *arguments):
    """judge(image, *arguments) of all images."""
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, np.stack([judge(image, *arguments) for image in IMAGES]))


def pillows(operation):
    return lambda image, *arguments: oracle.as_pillow(operation, image, *arguments)


def factor(magnitude: int) -> Fraction:
    return Fraction(18 * magnitude + 10, 100)


def test_invert():
    same(run(colour.invert), pillows(ImageOps.invert))


def test_equalize():
    same(run(colour.equalize), oracle.equalize)


def test_equalize_leaves_few_pixels_as_they_are():
    image = IMAGES[0, :13, :17]
    np.testing.assert_array_equal(colour.equalize(jnp.asarray(image)), oracle.equalize(image))


def test_autocontrast():
    got = run(colour.autocontrast)
    same(got, oracle.autocontrast)
    pillow = np.stack([oracle.as_pillow(ImageOps.autocontrast, image) for image in IMAGES])
    assert np.abs(got.astype(int) - pillow).max() <= 1  # Pillow truncates float64 that may lie just below the number meant


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_posterize(bits):
    same(run(colour.posterize, bits), pillows(ImageOps.posterize), bits)


@pytest.mark.parametrize("bits", [0, 12])
def test_posterize_beyond_8_bits_and_below_1_as_tensorflow(bits):
    shift = np.full_like(IMAGES, np.clip(8 - bits, 0, 7))
    judge = tf.bitwise.left_shift(tf.bitwise.right_shift(IMAGES, shift), shift).numpy()
    np.testing.assert_array_equal(run(colour.posterize, bits), judge)


@pytest.mark.parametrize("threshold", [0, 1, 128, 255, 256, 768])
def test_solarize(threshold):
    same(run(colour.solarize, threshold), pillows(ImageOps.solarize), threshold)


@pytest.mark.parametrize("addition", [0, 110, 165, 330])
def test_solarize_add(addition):
    same(run(colour.solarize_add, addition), oracle.solarize_add, addition)


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_brightness(magnitude):
    by = factor(magnitude)
    same(run(colour.brightness, float(by)), lambda image: oracle.blend(np.zeros_like(image), image, by))


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_contrast(magnitude):
    by, level = factor(magnitude), oracle.SHAPE[0] * oracle.SHAPE[1] // 256
    same(run(colour.contrast, float(by)), lambda image: oracle.blend(np.full_like(image, level), image, by))


@pytest.mark.parametrize(("shape", "level"), [((51, 15), 2), ((307, 311), 255)])
def test_the_gray_of_contrast_is_pixels_by_256(shape, level):
    image = np.full((*shape, 3), 100, np.uint8)
    np.testing.assert_array_equal(colour.contrast(jnp.asarray(image), 0.0), np.full_like(image, level))


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_color(magnitude):
    by = factor(magnitude)
    expected = np.stack([oracle.blend(oracle.gray(image)[..., None], image, by) for image in IMAGES])
    wrong = np.abs(run(colour.color, float(by)).astype(int) - expected)
    assert wrong.max() <= 6  # where 22 bits do not tell which of two grays it is
    assert (wrong > 0).mean() < 1e-3


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_sharpness(magnitude):
    by = factor(magnitude)
    same(run(colour.sharpness, float(by)), lambda image: oracle.blend(oracle.smooth(image), image, by))


def test_gray_is_tensorflows_but_for_few_colours():
    colours = np.random.default_rng(3).integers(0, 256, (1000, 1000, 3), np.uint8)
    got, judge = np.asarray(jax.jit(colour.gray)(colours)), tf.image.rgb_to_grayscale(colours).numpy()[..., 0]
    wrong = got.astype(int) - judge
    assert np.abs(wrong).max() <= 1
    assert (wrong != 0).mean() < 3e-4
    assert (got != oracle.gray(colours)).mean() < 1e-4


def test_blend_of_all_pairs_of_bytes_is_exact_and_close_to_tensorflows_float32():
    pairs = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1).astype(np.uint8)
    start, end = (np.repeat(pairs[..., i, None], 3, -1) for i in (0, 1))
    blend = jax.jit(colour.blend)
    for magnitude in range(31):
        by = factor(magnitude)
        got = np.asarray(blend(start, end, jnp.float32(float(by))))
        np.testing.assert_array_equal(got, oracle.blend(start, end, by))
        a, b = np.float32(start), np.float32(end)
        judge = np.clip(a + np.float32(float(by)) * (b - a), 0, 255).astype(np.uint8)
        assert (got != judge).mean() < 0.01


def test_sharpness_is_tensorflows_before_its_truncation():
    kernel = tf.tile(tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32, (3, 3, 1, 1)) / 13.0, [1, 1, 3, 1])
    smooth = tf.nn.depthwise_conv2d(np.float32(IMAGES), kernel, [1, 1, 1, 1], "VALID").numpy()
    np.testing.assert_array_equal(run(colour.sharpness, 0.0)[:, 1:-1, 1:-1], np.floor(smooth + 1e-3))


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.6])
def test_contrast_to_the_mean_is_pillows_up_to_its_gray(strength):
    pillow = np.stack([np.asarray(ImageEnhance.Contrast(Image.fromarray(image)).enhance(strength)) for image in IMAGES])
    assert np.abs(run(jitter.contrast_to_mean, strength).astype(int) - pillow).max() <= 2


def test_counting_and_looking_up_by_products_are_those_by_addresses():
    counts = jax.jit(jax.vmap(counts_by_address))(IMAGES)
    expected = [[np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(3)] for image in IMAGES]
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_array_equal(jax.jit(jax.vmap(counts_by_product))(IMAGES), expected)
    table = jnp.asarray(np.random.default_rng(5).integers(0, 256, (3, 256)), jnp.int32)
    expected = np.stack([np.asarray(table)[c][IMAGES[..., c]] for c in range(3)], -1)
    for way in (look_up_by_address, look_up_by_product):
        np.testing.assert_array_equal(jax.jit(jax.vmap(way, (None, 0)))(table, IMAGES), expected)
