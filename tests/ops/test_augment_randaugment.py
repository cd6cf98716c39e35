"""RandAugment: which operations come, at which levels, that keys decide everything, and that devices change nothing."""

from fractions import Fraction
from functools import partial

import augment_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import ImageOps
from scipy.stats import chisquare

from vit_attn.ops.augment.keys import example_keys
from vit_attn.ops.augment.randaugment import OPS, Drawn, applied, draw, randaugment

PHOTOGRAPHS = np.stack(list(oracle.photographs().values()))


def keys(count, epoch=0):
    return example_keys(5, jnp.full(count, epoch), jnp.arange(count))


def batch(count):
    return jnp.asarray(np.tile(PHOTOGRAPHS[:, :61, :53], (-(-count // 3), 1, 1, 1))[:count])


augment = jax.jit(randaugment, static_argnames=("layers", "magnitude"))


def judges(magnitude: int, sign: int, centre):
    """Name -> function of an image, from the published level functions."""
    share, factor = magnitude / 10, Fraction(18 * magnitude + 10, 100)
    shear, shift, pillow = sign * share * 0.3, sign * share * 100.0, oracle.as_pillow
    return {
        "AutoContrast": oracle.autocontrast,
        "Equalize": oracle.equalize,
        "Invert": lambda x: 255 - x,
        "Rotate": lambda x: oracle.rotation(x, sign * share * 30.0),
        "Posterize": lambda x: pillow(ImageOps.posterize, x, min(max(int(share * 4), 1), 8)),
        "Solarize": lambda x: pillow(ImageOps.solarize, x, int(share * 256)),
        "Color": lambda x: oracle.blend(oracle.gray(x)[..., None], x, factor),
        "Contrast": lambda x: oracle.blend(np.full_like(x, x.shape[0] * x.shape[1] // 256), x, factor),
        "Brightness": lambda x: oracle.blend(np.zeros_like(x), x, factor),
        "Sharpness": lambda x: oracle.blend(oracle.smooth(x), x, factor),
        "ShearX": lambda x: oracle.transform(x, [1, shear, 0, 0, 1, 0, 0, 0]),
        "ShearY": lambda x: oracle.transform(x, [1, 0, 0, shear, 1, 0, 0, 0]),
        "TranslateX": lambda x: oracle.transform(x, [1, 0, shift, 0, 1, 0, 0, 0]),
        "TranslateY": lambda x: oracle.transform(x, [1, 0, 0, 0, 1, shift, 0, 0]),
        "Cutout": lambda x: oracle.cutout(x, int(share * 40), centre),
        "SolarizeAdd": lambda x: oracle.solarize_add(x, int(share * 110)),
    }


@pytest.mark.parametrize("magnitude", [0, 10, 15, 30])
def test_each_operation_at_its_level(magnitude):
    """Every operation both ways, in the loop that runs only the drawn one, and all at once as on GPU."""
    names, centre, image = list(OPS), (40, 61), PHOTOGRAPHS[0]
    each_way = Drawn(
        jnp.repeat(jnp.arange(16), 2)[:, None],
        jnp.tile(jnp.asarray([False, True]), 16)[:, None],
        jnp.tile(jnp.asarray(centre), (32, 1, 1)),
    )
    one = partial(applied, magnitude=float(magnitude))
    got = jax.jit(lambda image, drawn: jax.lax.map(lambda d: one(image, d), drawn))(image, each_way)
    assert names == list(judges(magnitude, 1, centre))
    for number, name in enumerate(names):
        for negative in (0, 1):
            judge = judges(magnitude, -1 if negative else 1, centre)[name](image)
            wrong = (np.asarray(got[2 * number + negative]) != judge).mean()
            assert wrong <= (1e-3 if name == "Color" else 0), (name, negative, wrong)
    if magnitude == 15:
        np.testing.assert_array_equal(jax.jit(jax.vmap(one, (None, 0)))(image, each_way), got)


def test_operations_signs_and_centres_are_uniform():
    drawn = jax.vmap(partial(draw, shape=(11, 7)))(jax.random.split(jax.random.key(3), 16000))
    assert chisquare(np.bincount(drawn.op, minlength=16)).pvalue > 1e-3
    assert chisquare(np.bincount(drawn.negative, minlength=2)).pvalue > 1e-3
    assert chisquare(np.bincount(drawn.centre @ np.array([7, 1]), minlength=77)).pvalue > 1e-3
    both = np.bincount(drawn.op * 2 + drawn.negative, minlength=32)
    assert chisquare(both).pvalue > 1e-3  # independent


def test_layers_draw_anew_and_follow_one_another():
    """Two layers are what the two draws of the key say, one after the other."""
    images, names = batch(24), list(OPS)
    got, seen = np.asarray(augment(keys(24), images, 2, 15.0)), set()
    for key, image, out in zip(keys(24), np.asarray(images), got, strict=True):
        for layer in jax.random.split(key, 2):
            drawn = draw(layer, image.shape[:2])
            image = judges(15, -1 if drawn.negative else 1, drawn.centre)[names[int(drawn.op)]](image)
            seen.add(int(drawn.op))
        assert (out != image).mean() < 2e-3  # Color
    assert len(seen) > 10


def test_no_layer_is_the_identity():
    np.testing.assert_array_equal(augment(keys(5), batch(5), 0, 15.0), batch(5))


def test_keys_decide_everything_and_neighbours_nothing():
    images = batch(16)
    got = np.asarray(augment(keys(16), images, 2, 15.0))
    np.testing.assert_array_equal(augment(keys(16), images, 2, 15.0), got)
    assert (augment(keys(16, epoch=1), images, 2, 15.0) != got).any()
    order = np.random.default_rng(0).permutation(16)
    np.testing.assert_array_equal(augment(keys(16)[order], images[order], 2, 15.0), got[order])
    np.testing.assert_array_equal(augment(keys(16)[3:4], images[3:4], 2, 15.0), got[3:4])


@pytest.mark.parametrize("axes", [("data",), ("data", "seq")])
def test_devices_work_on_their_own_images(axes):
    images = batch(16)
    shape = (8,) if len(axes) == 1 else (4, 2)
    mesh = Mesh(np.array(jax.devices()).reshape(shape), axes)
    split = NamedSharding(mesh, PartitionSpec("data"))

    def program(told):
        def prepared(index, images):
            keys = example_keys(5, jnp.zeros_like(index), index)
            return randaugment(keys, images, 2, 15.0, split if told else None)

        return jax.jit(prepared, out_shardings=split).lower(*arguments).compile()

    arguments = jax.device_put(jnp.arange(16), split), jax.device_put(images, split)
    expected = augment(keys(16), images, 2, 15.0)
    own = program(True)
    assert not any(word in own.as_text() for word in ("all-gather", "all-reduce", "collective-permute", "all-to-all"))
    np.testing.assert_array_equal(own(*arguments), expected)
    np.testing.assert_array_equal(program(False)(*arguments), expected)
