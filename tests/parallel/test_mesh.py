"""One step is one step, on 1 device and on 8; arrays lie where they should."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from vit_attn.loop.program import Program
from vit_attn.parallel.mesh import check_divides, make_mesh, replicated
from vit_attn.spec.errors import UserError
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import MeshSpec, knobs_of


def spec_of(pool="tok", **attention):
    attention = {"h": "relu", "alpha": 0.7, "gate": "linear", **attention}
    model = {"variant": "mu/14", "image_size": 28, "num_classes": 7, "pool": pool, "attention": attention}
    return resolve({"model": model, **REST})


REST = {  # adam_eps: gradients near 0 would be blown up, and their rounding with them
    "data": {"crop_padding": 3, "flip": True, "randaug_layers": 2, "mixup": 0.3},
    "train": {"batch_images": 24, "steps": 9, "peak_lr": 1e-2, "adam_eps": 1e-4, "clip_norm": 100.0, "weight_decay": 0.0},
    "eval": {"batch_images": 16},
}


def batches():
    rng = np.random.default_rng(0)
    for _ in range(3):
        image = rng.integers(0, 256, (24, 28, 28, 3), dtype=np.uint8)
        labels = rng.integers(0, 7, (24, 1)).astype(np.int32)
        yield {"image": image, "labels": labels, "index": np.arange(24, dtype=np.int32), "epoch": np.zeros(24, np.int32)}


def perturbed(params):
    """A fresh head is zero, and would let no gradient through."""
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(5)
    return jax.tree.unflatten(tree, [np.asarray(x) + 0.2 * rng.normal(size=x.shape).astype(x.dtype) for x in leaves])


@functools.cache
def three_steps(data, seq, **form):
    """(parameters before and after, metrics, examples) on data x seq devices."""
    spec = spec_of(**form)
    mesh = make_mesh(MeshSpec(data, seq), jax.devices()[: data * seq])
    program = Program(spec, mesh, [], fresh=True)
    knobs = program.knobs(knobs_of(spec))
    state, seen = program.init(knobs), []
    before = perturbed(state.params)
    state = state._replace(params=jax.device_put(before, replicated(mesh)))
    for step, batch in enumerate(batches()):
        examples = program.prepare(program.put(batch, 24), step)
        state, metrics = program.update(state, knobs, examples)
        seen.append({key: float(value) for key, value in metrics.items()})
    return before, state.params, seen, examples


FORMS = [{"h": "relu", "pool": "tok"}, {"h": "softmax", "pool": "map"}, {"h": "clipped_softmax", "pool": "gap"}]


@pytest.mark.parametrize(("data", "seq"), [(8, 1), (4, 2), (2, 3), (1, 8)])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form["h"])
def test_every_mesh_makes_the_same_step(data, seq, form):
    """4 or 5 tokens: over 3 and 8 devices they are padded."""
    before, one, metrics_of_one, examples_of_one = three_steps(1, 1, **form, alpha=None)
    _, many, metrics_of_many, examples_of_many = three_steps(data, seq, **form, alpha=None)
    np.testing.assert_array_equal(examples_of_one.images, examples_of_many.images)  # augmentation knows no devices
    assert examples_of_many.images.sharding.spec == PartitionSpec("data")
    assert {shard.data.shape[0] for shard in examples_of_many.images.addressable_shards} == {24 // data}
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(many))
    for a, b in zip(metrics_of_one, metrics_of_many, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
    for (path, old), a, b in zip(jax.tree.leaves_with_path(before), jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        moved, name = np.abs(np.asarray(a) - old).max(), jax.tree_util.keystr(path)
        assert moved > (0 if name.endswith("['key']['bias']") else 1e-4), name  # softmax does not see a bias of keys
        np.testing.assert_allclose(b, a, rtol=0, atol=0.01 * moved + 1e-5, err_msg=name)


@pytest.mark.parametrize("sizes", [(3, 1), (8, 2), (-1, 3)])
def test_sizes_that_do_not_make_the_devices(sizes):
    with pytest.raises(UserError, match=f"config.mesh.data={sizes[0]} x config.mesh.seq={sizes[1]} does not make 8 devices"):
        make_mesh(MeshSpec(*sizes))


def test_a_batch_that_does_not_divide():
    check_divides(make_mesh(MeshSpec()), train__batch_images=16)
    with pytest.raises(UserError, match=r"config.train.batch_images=13 is not divisible by the 8 devices .* nearest: 8, 16"):
        check_divides(make_mesh(MeshSpec()), train__batch_images=13)
