"""What the loss compares with, and which example gets which augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_attn.ops.augment.keys import example_keys
from vit_attn.spec.resolve import resolve
from vit_attn.train.losses import multi_hot
from vit_attn.train.step import Examples, prepare, targets_of

LABELS = np.array([[2, -1, -1], [0, 4, -1], [-1, -1, -1], [1, 1, 3], [4, 2, 0]], np.int32)


def spec_of(data=None, **train):
    model = {"variant": "mu/4", "image_size": 8, "num_classes": 5}
    return resolve({"model": model, "data": {"max_labels": 3, **(data or {})}, "train": {"batch_images": 5, **train}})


def hot_by_loop():
    wanted = np.zeros((5, 5), np.float32)
    for row, labels in enumerate(LABELS):
        for label in labels:
            if label >= 0:
                wanted[row, label] = 1
    return wanted


def test_labels_become_a_vector_with_a_one_for_each():
    np.testing.assert_array_equal(multi_hot(jnp.asarray(LABELS), 5), hot_by_loop())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_targets_are_mixed_as_the_images_and_smoothed(smoothing, mixup):
    examples = Examples(jnp.zeros((5, 8, 8, 3)), jnp.asarray(LABELS), jnp.float32(0.7))
    got = targets_of(spec_of({"mixup": mixup}, label_smoothing=smoothing), examples)
    own = hot_by_loop()
    wanted = np.stack([0.7 * own[i] + 0.3 * own[i - 1] for i in range(5)]) if mixup else own
    np.testing.assert_allclose(got, wanted * (1 - smoothing) + smoothing / 5, atol=1e-6)


def batch_of(order):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    whole = {
        "image": images,
        "labels": LABELS,
        "epoch": np.arange(5, dtype=np.int32),
        "index": 7 * np.arange(5, dtype=np.int32),
    }
    return {key: jnp.asarray(value[order]) for key, value in whole.items()}


EVERYTHING = {
    "crop_padding": 2,
    "flip": True,
    "randaug_layers": 2,
    "randaug_magnitude": 9.0,
    "color_jitter": 0.4,
    "random_erasing": 0.9,
}


def test_augmentation_follows_the_example_and_not_its_place():
    spec, turned = spec_of(EVERYTHING), [3, 0, 4, 1, 2]
    one = prepare(spec, batch_of(range(5)), jnp.int32(3)).images
    two = prepare(spec, batch_of(turned), jnp.int32(8)).images  # another step: mixing alone knows it
    np.testing.assert_array_equal(two, np.asarray(one)[turned])
    assert not np.array_equal(one, prepare(spec_of({**EVERYTHING, "seed": 1}), batch_of(range(5)), jnp.int32(3)).images)


@pytest.mark.parametrize("setting", EVERYTHING)
def test_every_augmentation_has_an_effect(setting):
    whole = {**EVERYTHING, "color_jitter": 3.0} if setting == "color_jitter" else EVERYTHING
    without = {**whole, setting: type(whole[setting])(0)}
    if setting == "randaug_magnitude":
        without = {**whole, setting: 30.0}
    one, other = (prepare(spec_of(data), batch_of(range(5)), jnp.int32(3)).images for data in (whole, without))
    assert not np.array_equal(one, other)


def test_mixing_follows_the_step():
    spec, batch = spec_of({"mixup": 0.5}), batch_of(range(5))
    first, again, second = (prepare(spec, batch, jnp.int32(step)) for step in (3, 3, 4))
    assert first.share == again.share != second.share
    plain = prepare(spec_of(), batch, jnp.int32(3)).images
    wanted = first.share * plain + (1 - first.share) * jnp.roll(plain, 1, axis=0)
    np.testing.assert_allclose(first.images, wanted, atol=1e-6)


def test_without_mixing_an_image_has_all_of_its_label():
    assert prepare(spec_of(), batch_of(range(5)), jnp.int32(0)).share == 1


def test_keys_differ_by_seed_epoch_and_index_and_by_nothing_else():
    def bits(seed, epoch, index):
        return jax.random.key_data(example_keys(seed, jnp.asarray(epoch), jnp.asarray(index))).tolist()

    base = bits(0, [0, 0, 1], [5, 6, 5])
    assert len({tuple(key) for key in base}) == 3
    assert bits(0, [1, 0, 0], [5, 6, 5]) == base[::-1]
    assert all(key not in base for key in bits(1, [0, 0, 1], [5, 6, 5]))
