"""Random boxes: their distribution against tensorflow's, their streams against numpy's."""

import numpy as np
import pytest
import tensorflow as tf

from vit_attn.data.crop import crop_rng, inception_crop

DRAWS = 2000
WHOLE = [[[0.0, 0.0, 1.0, 1.0]]]


def boxes(height: int, width: int, areas: tuple[float, float]) -> np.ndarray:
    return np.array([inception_crop(crop_rng(5, 0, i), height, width, *areas) for i in range(DRAWS)])


def tensorflows(height: int, width: int, areas: tuple[float, float]) -> np.ndarray:
    @tf.function
    def draw(seed: tf.Tensor) -> tf.Tensor:
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            [height, width, 3], WHOLE, [seed, 3], min_object_covered=0.0, aspect_ratio_range=(3 / 4, 4 / 3), area_range=areas
        )
        return tf.concat([begin[:2], size[:2]], 0)

    return tf.map_fn(draw, tf.range(DRAWS), fn_output_signature=tf.int32).numpy()


@pytest.mark.parametrize(
    ("height", "width", "areas"),
    [(375, 500, (0.05, 1.0)), (23, 11, (0.3, 1.0)), (7, 7, (0.05, 0.5)), (101, 503, (0.05, 1.0)), (3, 101, (0.5, 1.0))],
)
def test_boxes_are_distributed_as_tensorflows(height: int, width: int, areas: tuple[float, float]) -> None:
    ours, theirs = boxes(height, width, areas), tensorflows(height, width, areas)
    assert (ours >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= (height, width)).all()
    for a, b in zip(ours.T, theirs.T, strict=True):  # Kolmogorov and Smirnov's distance, of 0.1 % significance
        steps = np.arange(max(height, width) + 2)
        shares = [np.searchsorted(np.sort(x), steps) / DRAWS for x in (a, b)]
        assert np.abs(shares[0] - shares[1]).max() < 1.95 * np.sqrt(2 / DRAWS)
    areas_of = [np.prod(x[:, 2:], axis=1) / (height * width) for x in (ours, theirs)]
    np.testing.assert_allclose(areas_of[0].mean(), areas_of[1].mean(), atol=0.03)
    np.testing.assert_allclose(areas_of[0].min(), areas_of[1].min(), atol=0.02)
    assert areas_of[0].max() <= areas_of[1].max() + 0.02


def test_a_box_that_cannot_be_is_the_whole_image() -> None:
    assert inception_crop(crop_rng(0, 0, 0), 2, 997, 0.9) == (0, 0, 2, 997)
    assert inception_crop(crop_rng(0, 0, 0), 1, 1, 0.05) == (0, 0, 1, 1)


def test_a_box_depends_on_seed_epoch_and_index_alone() -> None:
    keys = [(seed, epoch, index) for seed in (0, 1, 2**40) for epoch in (0, 1, 2) for index in (0, 1, 2**31)]
    first = [inception_crop(crop_rng(*key), 375, 500) for key in keys]
    assert first == [inception_crop(crop_rng(*key), 375, 500) for key in reversed(keys)][::-1]
    assert len(set(first)) == len(keys)


def test_the_streams_of_neighbours_are_unrelated() -> None:
    draws = np.array([crop_rng(0, 0, i).random(8) for i in range(1000)])
    correlation = np.corrcoef(draws[:-1].T, draws[1:].T)[:8, 8:]
    assert np.abs(correlation).max() < 0.16  # five standard errors
    assert len(np.unique(draws)) == draws.size
    np.testing.assert_allclose(draws.mean(), 0.5, atol=0.02)
