"""Ways to compute a step that change its memory and its compile time, and not its numbers."""

import dataclasses
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_attn.models.vit import ViT
from vit_attn.parallel.mesh import make_mesh
from vit_attn.parallel.rules import ambient, batched
from vit_attn.spec.mesh import MeshSpec
from vit_attn.spec.model import REMAT
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import knobs_of
from vit_attn.train.placement import placed
from vit_attn.train.state import init_state
from vit_attn.train.step import Examples, gradients, update

FORM = {"h": "relu", "gate": "linear"}


def spec_of(model=None, attention=None, data=None, **train):
    sizes = {"variant": "mu/14", "depth": 2, "image_size": 28, "num_classes": 7, "attention": attention or FORM}
    return resolve(
        {
            "model": {**sizes, **(model or {})},
            "data": data or {},
            "train": {"batch_images": 12, "steps": 9, "adam_eps": 1e-4, **train},
        }
    )


def examples_of(share=1.0, seed=3):
    key = jax.random.key(seed)
    images = jax.random.uniform(key, (12, 28, 28, 3), minval=-1.0)
    return Examples(images, jax.random.randint(key, (12, 1), 0, 7), jnp.float32(share))


@functools.cache
def state_of(spec):
    """Perturbed: a fresh head is zero, and would let no gradient through."""
    state = init_state(spec, knobs_of(spec))
    leaves, tree = jax.tree.flatten(state.params)
    rng = np.random.default_rng(5)
    noisy = [x + 0.2 * rng.normal(size=x.shape).astype(x.dtype) for x in leaves]
    return state._replace(params=jax.tree.unflatten(tree, noisy))


def found(spec, examples=None, start=None):
    """((loss, accuracy), gradients) of a spec's step, of the parameters that `start` (a spec) begins with."""
    function = jax.jit(partial(gradients, spec))
    return function(state_of(start or spec), knobs_of(spec), examples or examples_of())


def close(got, want, tolerance=2e-6):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.linalg.norm(a - b) <= tolerance * max(np.linalg.norm(b), 1e-3)


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


@pytest.mark.parametrize("remat", ["auto", "nothing_saveable"])
def test_scanned_layers_are_the_same_network(remat):
    model = {"drop_path": 0.4, "layer_scale": 0.1}
    plain, scanned = spec_of(model), spec_of({**model, "scan_layers": True, "remat": remat})
    assert jax.tree.structure(state_of(plain)) == jax.tree.structure(state_of(scanned))
    close(found(scanned, start=plain), found(plain))  # stochastic depth drops the same branches
    text = jax.jit(partial(update, scanned)).lower(state_of(plain), knobs_of(plain), examples_of()).as_text()
    assert text.count("stablehlo.while") >= 2  # forward and backward


def test_scanned_layers_show_what_they_compute():
    plain, scanned = spec_of(), spec_of({"scan_layers": True})
    params, images = state_of(plain).params, examples_of().images
    both = [
        ViT(spec.model).apply({"params": params}, images, knobs_of(spec).attention, mutable=["stats", "weights"])[1]
        for spec in (plain, scanned)
    ]
    assert jax.tree.structure(both[0]) == jax.tree.structure(both[1])
    assert set(both[0]["stats"]["Transformer"]) == {f"encoderblock_{i}" for i in range(2)}
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), *both)


def products(spec):
    """Matrix products in the whole update, as it is written down before the compiler sees it."""
    state = jax.eval_shape(partial(init_state, spec), knobs_of(spec))
    return counted(jax.make_jaxpr(partial(update, spec))(state, knobs_of(spec), examples_of()).jaxpr)


def counted(jaxpr):
    values = [value for eqn in jaxpr.eqns for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=is_program)]
    inner = sum(counted(getattr(value, "jaxpr", value)) for value in values if is_program(value))
    return inner + sum(eqn.primitive.name == "dot_general" for eqn in jaxpr.eqns)


def is_program(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("remat", REMAT)
def test_rematerialised_layers(remat, scan):
    """First that there is any: a program that recomputes has more matrix products; then that nothing else changes."""
    plain = spec_of({"scan_layers": scan, "remat": "none"}, {"h": "softmax", "impl": "dense"})
    again = dataclasses.replace(plain, model=dataclasses.replace(plain.model, remat=remat))
    if remat == "dots_saveable":
        assert products(again) == products(plain)  # keeps them: recomputes all else
        assert "remat" in str(jax.make_jaxpr(partial(gradients, again))(state_of(plain), knobs_of(plain), examples_of()))
    else:
        assert products(again) > products(plain)
    close(found(again, start=plain), found(plain))


def test_scanned_layers_compute_again_what_is_cheap():
    """By themselves: all but matrix products and the output of attention. Unrolled ones nothing."""
    scanned, kept, unrolled = (
        spec_of(model, {"h": "softmax", "impl": "blockwise"})
        for model in ({"scan_layers": True}, {"scan_layers": True, "remat": "none"}, {})
    )
    texts = [
        str(jax.make_jaxpr(partial(gradients, one))(state_of(kept), knobs_of(kept), examples_of())) for one in (scanned, kept)
    ]
    assert ["remat" in text for text in texts] == [True, False]
    assert products(unrolled) == products(
        dataclasses.replace(unrolled, model=dataclasses.replace(unrolled.model, remat="none"))
    )
    assert "name=attention_output" in texts[0]


def test_remat_policies_differ():
    counts = [products(spec_of({"remat": remat}, {"h": "softmax", "impl": "dense"})) for remat in ("none", *reversed(REMAT))]
    assert counts[0] < counts[1] < counts[3]  # nothing; the products of attention; all
    assert counts[2] == counts[0]  # dots_saveable


@pytest.mark.parametrize(("parts", "share"), [(3, 0.7), (12, 1.0)])
def test_parts_of_a_batch_make_the_same_step(parts, share):
    data = {"mixup": 0.2} if share < 1 else {}
    whole, split = spec_of(data=data, clip_norm=0.1), spec_of(data=data, clip_norm=0.1, accumulate=parts)
    (measured, grads), (also, grads_of_parts) = (found(spec, examples_of(share), start=whole) for spec in (whole, split))
    assert [float(x) for x in also] == pytest.approx([float(x) for x in measured], rel=1e-6)
    assert np.linalg.norm(flat(grads_of_parts) - flat(grads)) <= 1e-6 * np.linalg.norm(flat(grads))
    steps = [jax.jit(partial(update, spec)) for spec in (whole, split)]
    (one, _), (other, _) = [step(state_of(whole), knobs_of(whole), examples_of(share)) for step in steps]
    close(other.params, one.params, 1e-6)
    assert int(other.step) == int(one.step) == 1  # the schedule counts updates


def test_each_part_has_rows_of_every_device():
    """On 4 devices no image travels for being in another part: without collectives of images the program is as local."""
    whole, split = spec_of(), spec_of(accumulate=3)
    mesh = make_mesh(MeshSpec(4), jax.devices()[:4])
    texts = []
    for spec in (whole, split):
        with ambient(mesh, spec.rules):
            state = placed(spec, jax.eval_shape(partial(init_state, spec), knobs_of(spec)), mesh)
            images, labels, share = examples_of()
            examples = Examples(jax.device_put(images, batched(mesh)), jax.device_put(labels, batched(mesh)), share)
            step = jax.jit(partial(update, spec)).lower(state, knobs_of(spec), examples)
            texts.append(step.compile().as_text())
    assert "while" in texts[1]
    for text in texts:
        assert "all-reduce" in text
        assert not any(word in text for word in ("all-gather(", "all-to-all(", "collective-permute("))


@pytest.mark.parametrize("h", ["softmax", "relu"])
def test_bfloat16_computes_the_same_within_its_bounds(h):
    """Parameters, loss and gradients stay float32. A number of 8 bits is 0.4 % off, and a gradient is a few of those."""
    wide, short = spec_of(attention={"h": h}), spec_of({"dtype": "bfloat16"}, {"h": h})
    (loss, _), grads = found(wide)
    (loss_of_short, _), grads_of_short = found(short, start=wide)
    assert loss_of_short.dtype == jnp.float32
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(grads_of_short))
    assert float(loss_of_short) == pytest.approx(float(loss), rel=1e-2)
    assert float(loss_of_short) != float(loss)
    assert np.linalg.norm(flat(grads) - flat(grads_of_short)) < 0.05 * np.linalg.norm(flat(grads))
