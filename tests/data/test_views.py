"""The squares of a batch: against tensorflow's float path, Pillow's and numpy's."""

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import photographs as images
import pytest
import tensorflow as tf
from PIL import Image

from vit_attn.data.crop import crop_rng, inception_crop
from vit_attn.data.decode import BadImageError, decode, image_shape
from vit_attn.data.views import eval_view, resize, train_view, whole_view

PIXELS = images.tile(2, 101, 103)
ROUNDING = {"area": 0.26, "bilinear": 0.28}  # levels: rounding alone makes 0.25; bilinear weights are rounded, too
MEAN_LEVELS, MOST_LEVELS = 0.45, 0.7  # decoding and rounding, over the photographs and of the worst


def levels(view: np.ndarray, expected: np.ndarray) -> float:
    """The mean absolute difference, in levels; of images of the same shape."""
    assert view.dtype == np.uint8
    assert view.shape == expected.shape
    assert view.flags.c_contiguous
    return float(np.abs(view - expected.astype(np.float64)).mean())


def big_vision_train(encoded: bytes, size: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """float32: the accurate decoder, then tf.image.resize."""
    pixels = tf.io.decode_and_crop_jpeg(encoded, box, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.image.resize(pixels, (size, size), "bilinear").numpy()


@pytest.mark.parametrize("size", [224, 97])
def test_a_train_view_is_tensorflows_crop_and_resize(size: int) -> None:
    differences = []
    for i, encoded in enumerate(images.photographs(12)):
        box = inception_crop(crop_rng(1, 2, i), *image_shape(encoded))
        differences.append(levels(train_view(encoded, size, crop_rng(1, 2, i)), big_vision_train(encoded, size, box)))
    assert np.mean(differences) < MEAN_LEVELS
    assert max(differences) < MOST_LEVELS


def test_what_is_not_decoding_is_rounding() -> None:
    encoded = images.png(images.tile(0, 281, 383))
    box = inception_crop(crop_rng(1, 2, 3), 281, 383)
    y, x, height, width = box
    exact = tf.image.resize(decode(encoded)[y : y + height, x : x + width], (224, 224)).numpy()
    assert levels(train_view(encoded, 224, crop_rng(1, 2, 3)), exact) < ROUNDING["bilinear"]


def test_the_least_area_is_kept() -> None:
    encoded = images.png(PIXELS)
    y, x, height, width = inception_crop(crop_rng(0, 0, 0), 101, 103, 0.7)
    assert height * width >= 0.7 * 101 * 103
    np.testing.assert_array_equal(
        train_view(encoded, 31, crop_rng(0, 0, 0), 0.7), resize(PIXELS[y : y + height, x : x + width], 31, 31, "bilinear")
    )


@pytest.mark.parametrize("method", ["bilinear", "area"])
@pytest.mark.parametrize("shape", [(224, 224), (50, 37), (53, 211), (211, 53), (202, 206), (101, 103), (1, 1), (307, 401)])
def test_resizing_is_tensorflows_rounded(method: str, shape: tuple[int, int]) -> None:
    exact = tf.image.resize(PIXELS, shape, method).numpy()
    resized = resize(PIXELS, *shape, method)  # type: ignore[arg-type]
    assert levels(resized, exact) < ROUNDING[method] or resized.size < 100
    assert np.abs(resized - exact).max() < (0.8 if method == "bilinear" else 0.52)


def test_an_area_is_a_mean_of_what_it_covers() -> None:
    blocks = PIXELS[:100, :102].reshape(50, 2, 34, 3, 3).astype(np.float64).mean((1, 3))
    np.testing.assert_allclose(resize(PIXELS[:100, :102], 50, 34, "area"), blocks, atol=0.51)


def test_a_whole_image_of_the_right_size_is_itself() -> None:
    pixels = images.tile(1, 32, 32)
    np.testing.assert_array_equal(whole_view(images.png(pixels), 32), pixels)
    encoded = images.jpeg(pixels)
    np.testing.assert_array_equal(whole_view(encoded, 32), decode(encoded))


def test_a_whole_image_of_another_size_is_pillows_square() -> None:
    expected = Image.fromarray(PIXELS).resize((17, 17), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(whole_view(images.png(PIXELS), 17), np.asarray(expected))


@pytest.mark.parametrize("method", ["bilinear", "area"])
@pytest.mark.parametrize("fit", ["square", "small"])
@pytest.mark.parametrize("shape", [(101, 103), (211, 97), (41, 163)])
def test_an_eval_view_is_tensorflows(shape: tuple[int, int], fit: str, method: str) -> None:
    pixels = images.tile(0, *shape)
    factor = 64 / min(shape)
    new = (64, 64) if fit == "square" else tuple(round(side * factor) for side in shape)
    resized = tf.image.resize(pixels, new, method).numpy()
    y, x = math.floor((new[0] - 57) / 2), math.floor((new[1] - 57) / 2)
    view = eval_view(images.png(pixels), 57, fit, 64, method)  # type: ignore[arg-type]
    assert levels(view, resized[y : y + 57, x : x + 57]) < ROUNDING[method]


def test_an_eval_view_of_a_jpeg_is_close_to_tensorflows() -> None:
    for encoded in images.photographs(4):
        pixels = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
        exact = tf.image.resize(pixels, (256, 256)).numpy()[16:240, 16:240]
        assert levels(eval_view(encoded, 224, "square", 256), exact) < 0.5


def test_a_gray_and_a_one_pixel_image_become_squares() -> None:
    for encoded in (images.jpeg(PIXELS[..., 0]), images.jpeg(PIXELS[:1, :1]), images.png(PIXELS[:1, :1, 0])):
        for view in (train_view(encoded, 13, crop_rng(0, 0, 0)), whole_view(encoded, 13), eval_view(encoded, 13, "small", 17)):
            assert view.shape == (13, 13, 3)
            assert view.dtype == np.uint8


@pytest.mark.parametrize("encoded", [b"", b"text", images.truncated(images.jpeg(PIXELS)), images.truncated(images.png(PIXELS))])
def test_what_is_no_image_is_an_error(encoded: bytes) -> None:
    with pytest.raises(BadImageError):
        train_view(encoded, 13, crop_rng(0, 0, 0), 1.0)
    with pytest.raises(BadImageError):
        whole_view(encoded, 13)
    with pytest.raises(BadImageError):
        eval_view(encoded, 13)


def test_threads_get_the_same_views() -> None:
    encoded = images.photographs(8)

    def view(i: int) -> np.ndarray:
        return train_view(encoded[i % 8], 97, crop_rng(0, 0, i))

    alone = [view(i) for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        np.testing.assert_array_equal(list(pool.map(view, range(40))), alone)


def test_jax_and_tensorflow_are_not_loaded() -> None:
    program = "import sys, vit_attn.data.views; print({'jax', 'tensorflow', 'numba'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "set()\n"
