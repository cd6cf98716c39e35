"""Parts of JPEGs: against the whole ones, decoded by Pillow and by tensorflow."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import photographs as images
import pytest
import tensorflow as tf

from vit_attn.data import part
from vit_attn.data.crop import crop_rng, inception_crop
from vit_attn.data.decode import BadImageError, decode
from vit_attn.data.jpeg.box import decode_box
from vit_attn.data.jpeg.head import read_head
from vit_attn.data.part import decode_part

PIXELS = images.tile(2, 101, 103)
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0", "4:4:0", "gray")
MEAN_LEVELS, MOST_LEVELS = 0.3, 4  # between this decoder and libjpeg's accurate one: both round, at different places


def encoded(subsampling: str, pixels: np.ndarray, quality: int) -> bytes:
    if subsampling == "gray":
        return images.jpeg(pixels[..., 1], quality=quality)
    if subsampling == "4:4:0":  # Pillow writes none
        options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440]
        return cv2.imencode(".jpg", pixels[..., ::-1], options)[1].tobytes()
    return images.jpeg(pixels, subsampling=subsampling, quality=quality)


def boxes(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Random ones, and those that touch an edge or a unit's."""
    drawn = [inception_crop(crop_rng(0, 0, i), height, width) for i in range(12)]
    corners = [(y, x, 1, 1) for y in (0, height - 1) for x in (0, width - 1)]
    units = [(at, at, size, size) for at in (15, 16, 17) for size in (15, 16, 17)]
    return [*drawn, *corners, *units, (0, 0, height, width), (0, 0, 1, width), (0, 0, height, 1)]


@pytest.mark.parametrize("quality", [20, 93, 100])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_a_box_is_that_part_of_the_whole(subsampling: str, quality: int) -> None:
    image = encoded(subsampling, PIXELS, quality=quality)
    whole = decode(image).astype(np.float64)
    for box in boxes(101, 103):
        y, x, height, width = box
        pixels = decode_box(image, box)
        assert pixels is not None
        assert pixels.dtype == np.uint8
        assert pixels.shape == (height, width, 3)
        difference = np.abs(pixels - whole[y : y + height, x : x + width])
        assert difference.max() <= MOST_LEVELS
        assert difference.mean() <= MEAN_LEVELS or difference.size < 100


def test_photographs_are_what_tensorflow_decodes() -> None:
    for i, image in enumerate(images.photographs(12)):
        height, width = decode(image).shape[:2]
        box = inception_crop(crop_rng(0, 0, i), height, width)
        expected = tf.io.decode_and_crop_jpeg(image, box, 3, dct_method="INTEGER_ACCURATE").numpy().astype(np.float64)
        pixels = decode_box(image, box)
        assert pixels is not None
        assert np.abs(pixels - expected).mean() <= MEAN_LEVELS


def test_chroma_is_interpolated_across_the_edges_of_a_box() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (13, 16, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    image = images.jpeg(noise, quality=95, subsampling="4:2:0")
    whole = decode(image).astype(np.float64)
    for y, x in ((16, 16), (32, 48), (15, 31), (0, 64)):
        pixels = decode_box(image, (y, x, 32, 32))
        assert pixels is not None
        assert np.abs(pixels - whole[y : y + 32, x : x + 32]).max() <= MOST_LEVELS


def test_the_last_bytes_are_missed() -> None:
    image = images.jpeg(PIXELS, quality=93)
    for missing in (4, 5, 7):  # the last two are the end marker
        assert decode_box(image[:-missing], (0, 0, 101, 103)) is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 17), (17, 1), (2, 2), (7, 9), (8, 8), (16, 16), (17, 33)])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_small_images(subsampling: str, shape: tuple[int, int]) -> None:
    image = encoded(subsampling, PIXELS[: shape[0], : shape[1]], quality=95)
    pixels = decode_box(image, (0, 0, *shape))
    assert pixels is not None
    assert np.abs(pixels.astype(np.float64) - decode(image)).max() <= MOST_LEVELS


def test_codes_of_its_own_and_long_ones() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (211, 223, 3), dtype=np.uint8)
    for pixels in (PIXELS, noise, np.zeros_like(noise)):
        image = images.jpeg(pixels, quality=100, optimize=True)
        part_of = decode_box(image, (0, 0, *pixels.shape[:2]))
        assert part_of is not None
        assert np.abs(part_of.astype(np.float64) - decode(image)).max() <= MOST_LEVELS


def without_adobe(image: bytes) -> bytes:
    at = image.index(b"\xff\xee")
    return image[:at] + image[at + 16 :]


OTHER_KINDS = {
    "progressive": images.jpeg(PIXELS, progressive=True),
    "restarts": images.jpeg(PIXELS, restart_marker_rows=1),
    "CMYK": images.cmyk_jpeg(PIXELS),
    "YCCK": images.ycck_jpeg(PIXELS),
    "RGB": images.jpeg(PIXELS, keep_rgb=True),
    "RGB by the names of its components": without_adobe(images.jpeg(PIXELS, keep_rgb=True)),
    "PNG": images.png(PIXELS),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_other_kinds_are_decoded_whole(kind: str) -> None:
    image = OTHER_KINDS[kind]
    assert decode_box(image, (3, 5, 40, 50)) is None
    np.testing.assert_array_equal(decode_part(image, (3, 5, 40, 50)), decode(image)[3:43, 5:55])


def test_without_numba_all_are_decoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    image = images.jpeg(PIXELS)
    monkeypatch.setattr(part, "_decode_box", lambda: None)
    np.testing.assert_array_equal(decode_part(image, (3, 5, 40, 50)), decode(image)[3:43, 5:55])


def test_a_truncated_jpeg_is_an_error_unless_the_box_lies_before() -> None:
    image = images.jpeg(PIXELS, quality=93)
    for share in (0.3, 0.6, 0.9, 0.99):
        with pytest.raises(BadImageError, match="truncated"):
            decode_part(images.truncated(image, share), (0, 0, 101, 103))
    expected = decode_part(image, (0, 7, 16, 90)).copy()
    np.testing.assert_array_equal(decode_part(images.truncated(image, 0.6), (0, 7, 16, 90)), expected)


def test_a_box_beyond_the_image_is_an_error() -> None:
    for image in (images.jpeg(PIXELS), images.png(PIXELS)):
        with pytest.raises(BadImageError, match="does not lie in"):
            decode_part(image, (50, 0, 52, 103))


def test_damaged_bytes_never_do_harm() -> None:
    """Each byte of the head, and many of the rest, in turn: pixels or BadImageError, as from the library."""
    image = images.jpeg(PIXELS[:40, :48], quality=90, optimize=True)
    head = read_head(image)
    assert head is not None
    rng = np.random.default_rng(0)
    places = [*range(2, head.scan_start), *rng.integers(head.scan_start, len(image), 300)]
    outcomes = set()
    for at in places:
        for byte in (0x00, 0xFF, image[at] ^ 0x11):
            damaged = image[:at] + bytes([byte]) + image[at + 1 :]
            try:
                outcomes.add(decode_part(damaged, (8, 8, 32, 40)).shape)
            except BadImageError:
                outcomes.add(None)
    assert outcomes == {(32, 40, 3), None}


def test_codes_that_cannot_be_are_left_to_the_library() -> None:
    image = images.jpeg(PIXELS)
    at = image.index(b"\xff\xc4") + 5
    assert decode_box(image[:at] + b"\x03" + image[at + 1 :], (0, 0, 101, 103)) is None  # three codes of one bit


def test_threads_do_not_disturb_each_other() -> None:
    encoded_images = images.photographs(8)
    work = [(i, inception_crop(crop_rng(0, 0, n), *decode(encoded_images[i]).shape[:2])) for n, i in enumerate([*range(8)] * 6)]
    alone = [decode_part(encoded_images[i], box).copy() for i, box in work]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda item: decode_part(encoded_images[item[0]], item[1]).copy(), work))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)
