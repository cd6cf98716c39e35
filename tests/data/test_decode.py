"""Whole images: against tensorflow's decoders and the pixels that were encoded."""

import pickle

import numpy as np
import photographs as images
import pytest
import tensorflow as tf

from vit_attn.data.decode import BadImageError, decode, image_shape

PIXELS = images.tile(2, 101, 103)
SIXTEEN = np.random.default_rng(0).integers(0, 2**16, (13, 7, 3), dtype=np.uint16)


def levels(decoded: np.ndarray, expected: np.ndarray) -> float:
    """The mean absolute difference, in levels; of images of the same shape."""
    assert decoded.dtype == np.uint8
    assert decoded.shape == expected.shape
    return float(np.abs(decoded.astype(np.float64) - expected).mean())


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("kind", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_is_what_tensorflow_decodes_accurately(subsampling: str, kind: dict[str, object]) -> None:
    encoded = images.jpeg(PIXELS, quality=93, subsampling=subsampling, **kind)
    expected = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    assert levels(decode(encoded), expected) < 0.5  # two versions of one library
    assert levels(decode(encoded), PIXELS) < 4


def test_gray_becomes_three_equal_channels() -> None:
    gray = PIXELS[..., 0]
    expected = np.stack([gray] * 3, axis=-1)
    np.testing.assert_array_equal(decode(images.png(gray)), expected)
    decoded = decode(images.jpeg(gray, quality=95))
    assert levels(decoded, expected) < 4
    assert (decoded == decoded[..., :1]).all()


@pytest.mark.parametrize("make", [images.cmyk_jpeg, images.ycck_jpeg])
def test_four_colours_of_print_become_rgb(make: object) -> None:
    encoded = make(PIXELS)  # type: ignore[operator]
    assert levels(decode(encoded), PIXELS) < 4
    assert levels(decode(encoded), tf.io.decode_jpeg(encoded, channels=3).numpy()) < 2


def test_png_pixels_are_exact() -> None:
    np.testing.assert_array_equal(decode(images.png(PIXELS)), PIXELS)


def test_transparency_is_dropped() -> None:
    clear = np.random.default_rng(0).integers(0, 256, (7, 11, 4), dtype=np.uint8)
    np.testing.assert_array_equal(decode(images.png(clear)), clear[..., :3])


def test_a_palette_is_looked_up() -> None:
    encoded = images.palette_png(PIXELS)
    decoded = decode(encoded)
    np.testing.assert_array_equal(decoded, tf.io.decode_png(encoded, channels=3).numpy())
    assert len(np.unique(decoded.reshape(-1, 3), axis=0)) == 17


@pytest.mark.parametrize("values", [SIXTEEN, SIXTEEN[..., 0]], ids=["colours", "gray"])
def test_sixteen_bits_are_scaled(values: np.ndarray) -> None:
    encoded = images.png_16_bits(values)
    decoded = decode(encoded)
    np.testing.assert_array_equal(decoded, tf.io.decode_png(encoded, channels=3).numpy())
    np.testing.assert_array_equal(decoded, (values if values.ndim == 3 else np.stack([values] * 3, -1)) // 256)


def test_one_pixel() -> None:
    for encoded in (images.jpeg(PIXELS[:1, :1], quality=100), images.png(PIXELS[:1, :1])):
        assert levels(decode(encoded), PIXELS[:1, :1]) < 3


def test_the_orientation_of_exif_is_not_applied() -> None:
    exif = images.Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    encoded = images.jpeg(PIXELS, exif=exif)
    assert decode(encoded).shape == PIXELS.shape
    assert image_shape(encoded) == PIXELS.shape[:2]


def test_the_shape_is_in_the_head() -> None:
    gray = PIXELS[:1, :7, 0]
    frame = b"\xff\xc0\x00\x11\x08\x00\x01\x00\x01"  # what looks like the head of a frame, in a comment before it
    makers = (
        images.jpeg(PIXELS),
        images.jpeg(PIXELS, progressive=True),
        images.jpeg(PIXELS, comment=frame * 9),
        images.cmyk_jpeg(PIXELS),
        images.png(PIXELS),
        images.palette_png(PIXELS),
    )
    for encoded in makers:
        assert image_shape(encoded) == (101, 103)
    assert image_shape(images.jpeg(gray)) == image_shape(images.png(gray)) == (1, 7)
    padded = images.jpeg(gray)
    assert image_shape(padded[:2] + b"\xff\xff" + padded[2:]) == (1, 7)  # fill bytes before a marker


JPEG, PNG = images.jpeg(PIXELS), images.png(PIXELS)
BAD = {
    "empty": b"",
    "text": b"no image at all",
    "the first bytes": b"\xff\xd8\xff",
    "a GIF": images.save(images.Image.fromarray(PIXELS), "GIF"),
    "half a head": JPEG[:300],
    "a truncated JPEG": images.truncated(JPEG),
    "a JPEG without its last bytes": JPEG[:-20],
    "a truncated progressive JPEG": images.truncated(images.jpeg(PIXELS, progressive=True)),
    "a truncated PNG": images.truncated(PNG),
    "a PNG without its last pixels": PNG[:-40],
    "a corrupt PNG": images.corrupt(PNG),
    "a PNG without a head": PNG[:12],
}


@pytest.mark.parametrize("encoded", BAD.values(), ids=list(BAD))
def test_what_is_no_whole_image_is_an_error_with_a_reason(encoded: bytes) -> None:
    with pytest.raises(BadImageError, match=f"{len(encoded)} bytes (is|are) (damaged|not an image of the format JPEG or PNG)"):
        decode(encoded)


@pytest.mark.parametrize("name", ["empty", "text", "the first bytes", "a GIF", "a PNG without a head"])
def test_a_shape_that_is_not_there_is_an_error(name: str) -> None:
    with pytest.raises(BadImageError):
        image_shape(BAD[name])


def test_a_frame_without_a_size_is_an_error() -> None:
    at = JPEG.index(b"\xff\xc0") + 5
    with pytest.raises(BadImageError, match="0 x 103"):
        image_shape(JPEG[:at] + b"\0\0" + JPEG[at + 2 :])


def test_it_can_be_sent_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(decode)) is decode
    assert str(pickle.loads(pickle.dumps(BadImageError("why")))) == "why"
