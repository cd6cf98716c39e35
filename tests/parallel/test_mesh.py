"""One step is one step, on 1 device and on 8; arrays lie where they should."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from vit_attn.loop.program import Program
from vit_attn.parallel.mesh import check_divides, make_mesh
from vit_attn.spec.errors import UserError
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import knobs_of

SPEC = resolve(
    {
        "model": {
            "variant": "mu/14",
            "image_size": 28,
            "num_classes": 7,
            "pool": "tok",
            "attention": {"h": "relu", "alpha": 0.7, "impl": "dense"},
        },
        "data": {"crop_padding": 3, "flip": True},
        "train": {"batch_images": 24, "steps": 9, "warmup_steps": 1, "peak_lr": 0.01},
        "eval": {"batch_images": 16},
    }
)


def batches():
    rng = np.random.default_rng(0)
    for _ in range(3):
        image = rng.integers(0, 256, (24, 28, 28, 3), dtype=np.uint8)
        yield {"image": image, "label": rng.integers(0, 7, 24).astype(np.int32)}


def three_steps(devices):
    program = Program(SPEC, make_mesh(devices), fresh=True)
    knobs = program.knobs(knobs_of(SPEC))
    state, seen = program.init(knobs), []
    for step, batch in enumerate(batches()):
        examples = program.prepare(batch, step)
        state, metrics = program.update(state, knobs, examples)
        seen.append({key: float(value) for key, value in metrics.items()})
    return state, seen, examples


def test_one_and_eight_devices_make_the_same_step():
    one, metrics_of_one, examples_of_one = three_steps(jax.devices()[:1])
    eight, metrics_of_eight, examples_of_eight = three_steps(jax.devices())
    np.testing.assert_array_equal(examples_of_one.images, examples_of_eight.images)  # augmentation knows no devices
    assert examples_of_eight.images.sharding.spec == PartitionSpec("data")
    assert {shard.data.shape[0] for shard in examples_of_eight.images.addressable_shards} == {3}
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(eight))
    for a, b in zip(metrics_of_one, metrics_of_eight, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(eight.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_batch_that_does_not_divide():
    check_divides(make_mesh(), train__batch_images=16)
    with pytest.raises(UserError, match=r"config.train.batch_images=13 is not divisible by the 8 devices .* nearest: 8, 16"):
        check_divides(make_mesh(), train__batch_images=13)
