"""Pixels moved against TensorFlow's own transform, and a TPU's way of moving them against the plain one."""

import augment_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_attn.ops.augment import geometry
from vit_attn.ops.augment.geometry import FILL
from vit_attn.ops.augment.move import Map, by_address, by_shears, planned

IMAGES = np.stack([image for name, image in oracle.images().items() if name in ("china", "hopper", "noise", "constant")])
LEVELS = [sign * level for level in (0, 1, 10, 15, 30) for sign in (1, -1)]
OPERATIONS = {  # name: (ours, amount at level 10, the eight numbers of TensorFlow's transform)
    "shear x": (geometry.shear_x, 0.3, lambda v: [1, v, 0, 0, 1, 0, 0, 0]),
    "shear y": (geometry.shear_y, 0.3, lambda v: [1, 0, 0, v, 1, 0, 0, 0]),
    "translate x": (geometry.translate_x, 100.0, lambda v: [1, 0, v, 0, 1, 0, 0, 0]),
    "translate y": (geometry.translate_y, 100.0, lambda v: [1, 0, 0, 0, 1, v, 0, 0]),
}


def same(operation, amount, judge):
    got = jax.jit(jax.vmap(lambda image: operation(image, amount)))(IMAGES)
    np.testing.assert_array_equal(got, np.stack([judge(image) for image in IMAGES]))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_shears_and_translations(name, level):
    ours, most, numbers = OPERATIONS[name]
    amount = level / 10 * most
    same(ours, amount, lambda image: oracle.transform(image, numbers(amount)))


@pytest.mark.parametrize("level", LEVELS)
def test_rotations(level):
    same(geometry.rotate, level * 3.0, lambda image: oracle.rotation(image, level * 3.0))


def test_rotation_by_a_right_angle():
    image = IMAGES[0, :97, :97]
    np.testing.assert_array_equal(geometry.rotate(jnp.asarray(image), 90.0), np.rot90(image))


@pytest.mark.parametrize("degrees", [-90.0, -45.0, -3.0, 0.0, 17.3, 30.0, 60.0])
@pytest.mark.parametrize("shape", [(224, 224), (97, 61), (31, 131)])
def test_rotation_by_shears_is_the_plain_one(shape, degrees):
    both_ways_agree(geometry.rotate, shape, degrees)


@pytest.mark.parametrize("level", [0.3, -0.45, 0.9])
@pytest.mark.parametrize("operation", [geometry.shear_x, geometry.shear_y])
def test_shear_by_shears_is_the_plain_one(operation, level):
    for shape in ((224, 224), (97, 61)):
        both_ways_agree(operation, shape, level)


@pytest.mark.parametrize("level", [3.7, -150.0])
@pytest.mark.parametrize("operation", [geometry.translate_x, geometry.translate_y])
def test_translation_by_shears_is_the_plain_one(operation, level):
    for shape in ((224, 224), (97, 61)):
        both_ways_agree(operation, shape, level)


def both_ways_agree(operation, shape, amount):
    """On an image of which no two pixels are alike."""
    number = np.random.default_rng(1).permutation(shape[0] * shape[1]).reshape(shape)
    image = jnp.asarray(np.stack([number & 255, number >> 8 & 255, number % 251], -1).astype(np.uint8))
    maps = []
    affine, geometry.affine = geometry.affine, lambda image, x, y: maps.append(Map(shape, x, y)) or image
    try:
        operation(image, amount)
    finally:
        geometry.affine = affine
    plan = planned(maps[0])
    assert plan is not None
    assert len(plan.steps) <= 9
    np.testing.assert_array_equal(jax.jit(lambda x: by_shears(x, maps[0], FILL))(image), by_address(image, maps[0], FILL))


def test_a_map_without_shears_goes_the_plain_way():
    half_turn = Map((13, 17), (-1.0, 0.0, 16.0), (0.0, -1.0, 12.0))
    image = jnp.asarray(np.random.default_rng(2).integers(0, 256, (13, 17, 3), np.uint8))
    np.testing.assert_array_equal(by_shears(image, half_turn, FILL), image[::-1, ::-1])


@pytest.mark.parametrize("pad", [0, 1, 40, 60, 120])
@pytest.mark.parametrize("centre", [(0, 0), (100, 96), (20, 70)])
def test_cutout(pad, centre):
    same(lambda x, pad: geometry.cutout(x, pad, jnp.asarray(centre)), pad, lambda x: oracle.cutout(x, pad, centre))
