import numpy as np
import pytest
from tfds_sets import encode

from vit_attn.data.preprocess import decode

RNG = np.random.default_rng(0)


def test_png_pixels_are_exact() -> None:
    pixels = RNG.integers(0, 256, (7, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(encode(pixels), 7), pixels)


def test_gray_becomes_three_equal_channels() -> None:
    pixels = RNG.integers(0, 256, (7, 7), dtype=np.uint8)
    np.testing.assert_array_equal(decode(encode(pixels), 7), np.stack([pixels] * 3, axis=-1))


def test_transparency_is_dropped() -> None:
    pixels = RNG.integers(0, 256, (7, 7, 4), dtype=np.uint8)
    np.testing.assert_array_equal(decode(encode(pixels), 7), pixels[..., :3])


def test_a_jpeg_is_close_to_its_original() -> None:
    y, x = np.mgrid[:32, :32]
    pixels = np.stack([4 * x, 4 * y, 2 * (x + y)], axis=-1).astype(np.uint8)
    decoded = decode(encode(pixels, "jpeg", quality=95), 32)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - pixels).mean() < 2


def test_another_size_is_resized_bilinearly() -> None:
    ramp = np.tile(np.arange(0, 240, 20, dtype=np.uint8), (12, 1))  # 12x12, 20 a pixel along x
    small = decode(encode(ramp), 6)
    assert small.shape == (6, 6, 3)
    expected = (np.arange(6) * 2 + 0.5) * 20  # a linear ramp stays one: the value at the centre of each pair
    np.testing.assert_allclose(small[:, 1:-1, 0], np.tile(expected[1:-1], (6, 1)), atol=1)
    assert decode(encode(ramp[:5]), 17).shape == (17, 17, 3)


@pytest.mark.parametrize("encoded", [b"", b"no image at all", encode(RNG.integers(0, 256, (9, 9), dtype=np.uint8))[:90]])
def test_broken_bytes_are_an_error(encoded: bytes) -> None:
    with pytest.raises((OSError, ValueError, SyntaxError)):
        decode(encoded, 9)
