"""One step is one step, on 1 device and on 8, however they are arranged; arrays lie where the rules say."""

import functools
import math

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from vit_attn.loop.program import Program
from vit_attn.parallel.mesh import check_batches, make_mesh
from vit_attn.spec.errors import UserError
from vit_attn.spec.mesh import MeshSpec
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import knobs_of

REST = {  # adam_eps: gradients near 0 would be blown up, and their rounding with them
    "data": {"crop_padding": 3, "flip": True, "randaug_layers": 2, "mixup": 0.3},
    "train": {
        "batch_images": 16,
        "steps": 9,
        "peak_lr": 1e-2,
        "adam_eps": 1e-2,
        "adam_mu_dtype": "float32",
        "clip_norm": 100.0,
        "weight_decay": 0.0,
    },
    "eval": {"batch_images": 16},
}
FORMS = {
    "relu": {"h": "relu", "pool": "tok", "gate": "linear"},
    "relu of patches": {"h": "relu", "pool": "gap", "gate": "linear"},
    "softmax": {"h": "softmax", "pool": "map", "gate": "gau", "qk_norm": "width"},
    "clipped": {"h": "clipped_softmax", "pool": "gap", "gate": "all_heads"},
    "sigmoid": {"h": "sigmoid", "pool": "gap", "gate": "mlp", "alpha_learned": "head"},
    "clipped gradients, decay": {"h": "relu", "pool": "gap", "train": {"clip_norm": 0.1, "weight_decay": 0.01}},
}


def spec_of(pool, rules=None, model=None, train=None, **attention):
    sizes = {"variant": "mu/14", "image_size": 28, "num_classes": 6, "pool": pool, "rep_size": pool == "tok"}
    rest = {**REST, "train": {**REST["train"], **(train or {})}}
    return resolve({"model": {**sizes, **(model or {}), "attention": attention}, "rules": rules or {}, **rest})


def batches():
    rng = np.random.default_rng(0)
    for _ in range(3):
        image = rng.integers(0, 256, (16, 28, 28, 3), dtype=np.uint8)
        labels = rng.integers(0, 6, (16, 1)).astype(np.int32)
        yield {"image": image, "labels": labels, "index": np.arange(16, dtype=np.int32), "epoch": np.zeros(16, np.int32)}


def perturbed(params):
    """A fresh head is zero, and would let no gradient through."""
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(5)
    return jax.tree.unflatten(tree, [np.asarray(x) + 0.2 * rng.normal(size=x.shape).astype(x.dtype) for x in leaves])


def program_of(spec, sizes):
    mesh = make_mesh(MeshSpec(*sizes), jax.devices()[: math.prod(sizes)])
    return Program(spec, mesh, [], fresh=True)


@functools.cache
def three_steps(form, sizes):
    """(parameters before, state after, metrics, examples) on data x fsdp x seq x model devices."""
    spec = spec_of(**FORMS[form])
    program = program_of(spec, sizes)
    knobs = program.knobs(knobs_of(spec))
    state, seen = program.init(knobs), []
    before = perturbed(state.params)
    places = jax.tree.map(lambda x: x.sharding, state.params)
    state = state._replace(params=jax.device_put(before, places))
    for step, batch in enumerate(batches()):
        examples = program.prepare(program.put(batch, 16), step)
        state, metrics = program.update(state, knobs, examples)
        seen.append({key: float(value) for key, value in metrics.items()})
    return before, state, seen, examples


@pytest.mark.parametrize(
    ("form", "sizes"),
    [
        ("relu", (8, 1, 1, 1)),
        ("softmax", (4, 2, 1, 1)),
        ("relu", (2, 1, 2, 2)),
        ("softmax", (1, 2, 2, 2)),
        ("clipped", (2, 1, 3, 1)),
        ("relu", (1, 1, 8, 1)),
        ("sigmoid", (1, 4, 1, 2)),
        ("relu of patches", (2, 2, 1, 2)),  # as many images as tokens on a device: XLA once mistook one for the other
        ("clipped", (2, 2, 1, 2)),
        ("clipped gradients, decay", (2, 2, 1, 2)),
    ],
)
def test_every_mesh_makes_the_same_step(form, sizes):
    """4 or 5 tokens: over 2, 3 and 8 devices they are padded."""
    before, one, metrics_of_one, examples_of_one = three_steps(form, (1, 1, 1, 1))
    _, many, metrics_of_many, examples_of_many = three_steps(form, sizes)
    data = sizes[0] * sizes[1]
    np.testing.assert_array_equal(examples_of_one.images, examples_of_many.images)  # augmentation knows no devices
    assert {shard.data.shape[0] for shard in examples_of_many.images.addressable_shards} == {16 // data}
    for a, b in zip(metrics_of_one, metrics_of_many, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
    after = zip(jax.tree.leaves_with_path(before), jax.tree.leaves(one.params), jax.tree.leaves(many.params), strict=True)
    for (path, old), a, b in after:
        a, b, name = np.asarray(a), np.asarray(b), jax.tree_util.keystr(path)
        moved = np.abs(a - old).max()
        assert moved > (0 if name.endswith("['key']['bias']") else 1e-4), name  # softmax does not see a bias of keys
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(a), name


def shard_shapes(tree):
    """{"a/b": (the part of an axis that a device has, ...)} of parameters."""
    shapes = {}
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        name = "/".join(key.key for key in path if isinstance(key, jax.tree_util.DictKey))
        shapes[name] = tuple(whole // part for whole, part in zip(x.shape, x.addressable_shards[0].data.shape, strict=True))
    return shapes


def test_parameters_and_moments_lie_as_the_rules_say():
    """On 2 fsdp x 2 seq x 2 model devices, of width 32, 2 heads and 6 classes."""
    _, state, _, _ = three_steps("softmax", (1, 2, 2, 2))
    block, attention = "Transformer/encoderblock_0", "Transformer/encoderblock_0/MultiHeadDotProductAttention_0"
    wanted = {
        "embedding/kernel": (1, 1, 1, 2),
        "pos_embedding": (1, 1, 2),
        f"{attention}/query/kernel": (2, 2, 1),
        f"{attention}/query/bias": (2, 1),
        f"{attention}/out/kernel": (2, 1, 2),
        f"{attention}/gate/dense/kernel": (2, 2, 1),
        f"{block}/MlpBlock_0/Dense_0/kernel": (2, 2),
        f"{block}/MlpBlock_0/Dense_0/bias": (2,),
        f"{block}/MlpBlock_0/Dense_1/kernel": (2, 2),
        f"{block}/MlpBlock_0/Dense_1/bias": (1,),
        f"{block}/LayerNorm_0/scale": (1,),
        "MAPHead_0/MultiHeadDotProductAttention_0/key/kernel": (2, 2, 1),
        "head/kernel": (2, 2),
        "head/bias": (2,),
    }
    adam = state.moments[1]
    for tree in (state.params, adam.mu, adam.nu):
        shapes = shard_shapes(tree)
        assert {name: shapes[name] for name in wanted} == wanted
    assert state.step.sharding.is_fully_replicated


def test_what_does_not_divide_is_whole_and_said(capsys):
    from vit_attn.train.placement import left_whole, placed
    from vit_attn.train.saved import abstract_state

    spec = spec_of("gap", h="relu", model={"width": 30, "heads": 5, "num_classes": 7, "mlp_dim": 63})
    mesh, state = make_mesh(MeshSpec(2, 2, 1, 2)), abstract_state(spec)
    notes = left_whole(spec, state.params, mesh)
    assert [note.split(" is not")[0] for note in notes] == ["mlp (63)", "heads (5)", "classes (7)"]
    assert "by mesh axis model (2): it stays whole in 7 arrays, Transformer/encoderblock_0/MultiHead" in notes[1]
    params = placed(spec, state.params, mesh)
    assert params["head"]["kernel"].sharding.spec == PartitionSpec("fsdp", None)
    assert left_whole(spec, state.params, make_mesh(MeshSpec(-1))) == []


def test_other_rules():
    """Parameters over both axes of the batch, and the MLP whole."""
    from vit_attn.train.placement import placed
    from vit_attn.train.saved import abstract_state

    spec = spec_of("gap", h="relu", rules={"embed": ["data", "fsdp"], "mlp": []})
    kernel = placed(spec, abstract_state(spec).params, make_mesh(MeshSpec(2, 2, 1, 2)))["Transformer"]["encoderblock_0"][
        "MlpBlock_0"
    ]["Dense_0"]["kernel"]
    assert kernel.sharding.spec == PartitionSpec(("data", "fsdp"), None)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rules": {"embed": ["model"]}}, r"config.rules.heads=\('model',\) and config.rules.embed=\('model',\) put two axes"),
        (
            {"rules": {"mlp": "seq"}},
            "config.rules.mlp=.* and config.rules.tokens=.* put two axes of one array on mesh axis 'seq'",
        ),
        ({"rules": {"embed": ["fdsp"]}}, "config.rules.embed: the value 'fdsp' .*fsdp"),
        ({"rules": {"width": ["fsdp"]}}, "config.rules.width: the key"),
        ({"rules": {"embed": ["fsdp", "fsdp"]}}, r"config.rules.embed=\('fsdp', 'fsdp'\) names an axis twice"),
        ({"mesh": {"dta": 2}}, "config.mesh.dta: the key 'dta'.* data"),
        ({"mesh": {"model": 0}}, "config.mesh.model=0"),
        ({"mesh": {"fsdp": -1}}, "config.mesh.data=-1, config.mesh.fsdp=-1, .* one of them may be -1"),
        (
            {"train": {"batch_images": 16, "accumulate": 5}},
            "accumulate=5 does not divide .*=16; numbers that do: 1, 2, 4, 8, 16",
        ),
        ({"model": {"remat": "some"}}, "config.model.remat: the value 'some' .*nothing_saveable"),
    ],
)
def test_settings_that_cannot_be(values, words):
    with pytest.raises(UserError, match=words):
        resolve(values)


@pytest.mark.parametrize("sizes", [{"data": 3}, {"data": 8, "seq": 2}, {"seq": 3}, {"fsdp": 2, "model": 3}])
def test_sizes_that_do_not_make_the_devices(sizes):
    with pytest.raises(UserError, match=r"config.mesh.data=.* x .* does not make 8 devices"):
        make_mesh(MeshSpec(**sizes))


@pytest.mark.parametrize(
    ("train", "sizes", "words"),
    [
        ({"batch_images": 13}, {}, r"config.train.batch_images=13 is not divisible by the 8 devices .* nearest: 8, 16"),
        ({"batch_images": 12}, {"data": 2, "fsdp": 4}, r"=12 is not divisible by the 8 devices of mesh axis 'data' x 'fsdp'"),
        ({"batch_images": 24, "accumulate": 2}, {}, r"=24 is not .* the 8 devices .*accumulate=2 parts .*; nearest: 16, 32"),
    ],
)
def test_batches_that_do_not_divide(train, sizes, words):
    spec = resolve({"train": train, "eval": {"batch_images": 16}})
    with pytest.raises(UserError, match=words):
        check_batches(spec, make_mesh(MeshSpec(**sizes)))
    check_batches(resolve({"train": {"batch_images": 16}, "eval": {"batch_images": 16}}), make_mesh(MeshSpec()))
