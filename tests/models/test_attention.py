"""The attention module in all its forms against the float64 judge: outputs, and the gradient of every array that enters."""

import itertools
import os
import random
from contextlib import nullcontext
from functools import partial

import attention_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_attn.models.attention import Attention
from vit_attn.ops.nonlinearity import NONLINEARITY, Numbers
from vit_attn.parallel.mesh import make_mesh
from vit_attn.parallel.sequence.attention import LAYOUTS, layouts_of
from vit_attn.spec.mesh import MeshSpec
from vit_attn.spec.model import AttentionSpec

GATES, NORMS = ["none", "gau", "linear", "mlp", "all_heads"], ["none", "head", "width"]
EVERYTHING = bool(os.environ.get("VIT_ATTN_TEST_EVERYTHING"))  # every combination: half an hour


def cases(*axes):
    """Some of all combinations: every pair of values of two axes occurs. VIT_ATTN_TEST_EVERYTHING=1: all of them."""
    everything = list(itertools.product(*axes))
    if EVERYTHING:
        return everything
    pairs = lambda case: set(itertools.combinations(enumerate(case), 2))
    random.Random(0).shuffle(everything)
    missing, chosen = set().union(*map(pairs, everything)), []
    while missing:
        chosen.append(max(everything, key=lambda case: len(pairs(case) & missing)))
        missing -= pairs(chosen[-1])
    return chosen


def built(h, gate, qk_norm, impl, length=13, heads=2, d=5, dtype="float32", learned="none", **more):
    """(module, perturbed parameters, inputs [B, L, D])."""
    spec = AttentionSpec(
        h=h, gate=gate, qk_norm=qk_norm, qk_norm_bias=True, alpha_learned=learned, impl=impl, block=5, n_hid=3, **more
    )
    module = Attention(spec, heads, jnp.dtype(dtype))
    x = jax.random.normal(jax.random.key(1), (2, length, heads * d))
    start = Attention(AttentionSpec(**{**spec.__dict__, "impl": "dense"}), heads, jnp.dtype(dtype))
    params = start.init(jax.random.key(0), x, x, Numbers(alpha=0.7), length=length)["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noisy = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return module, jax.tree.unflatten(tree, noisy), x


def judge(module, params, x, tolerance, mesh=None, padding=0):
    """Outputs, and the slope of a random sum of them along a random direction of each parameter, of x and of each number."""
    numbers = Numbers(**{key: jnp.float32(value) for key, value in oracle.NUMBERS.items()})
    projection = np.asarray(jax.random.normal(jax.random.key(3), x.shape), np.float64)

    def ours(params, x, numbers):
        padded = jnp.pad(x, ((0, 0), (0, padding), (0, 0)), constant_values=7.0)
        out = module.apply({"params": params}, padded, padded, numbers, length=x.shape[1])[:, : x.shape[1]]
        return jnp.sum(out.astype(jnp.float32) * projection.astype(np.float32)), out

    with jax.set_mesh(mesh) if mesh else nullcontext():
        (_, got), grads = jax.jit(jax.value_and_grad(ours, argnums=(0, 1, 2), has_aux=True))(params, x, numbers)
    inputs = {("params", *names): leaf for names, leaf in leaves(oracle.float64(params))}
    inputs |= {("x",): np.asarray(x, np.float64)} | {("numbers", n): np.float64(v) for n, v in oracle.NUMBERS.items()}

    def theirs(inputs):
        values = {n: inputs["numbers", n] for n in oracle.NUMBERS}
        return oracle.attention(module.spec, nested(inputs), inputs[("x",)], values)

    want = theirs(inputs)
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=0, atol=tolerance * np.abs(want).max())
    ours_by_name = {("params", *names): leaf for names, leaf in leaves(grads[0])}
    ours_by_name |= {("x",): grads[1]} | {("numbers", n): getattr(grads[2], n) for n in oracle.NUMBERS}
    floor = 0.1 * max(np.linalg.norm(gradient) for gradient in ours_by_name.values())  # some gradients are zero in truth
    rng = np.random.default_rng(4)
    for key, gradient in ours_by_name.items():
        direction, gradient = rng.normal(size=inputs[key].shape), np.asarray(gradient, np.float64)
        slope = oracle.slope(lambda i: np.sum(theirs(i) * projection), inputs, key, direction)
        largest = max(np.linalg.norm(gradient), abs(slope), floor)
        assert abs(np.sum(gradient * direction) - slope) <= 2 * tolerance * largest, key


def leaves(tree, names=()):
    """(names, array) of nested dictionaries."""
    for key, value in tree.items():
        yield from leaves(value, (*names, key)) if isinstance(value, dict) else [((*names, key), value)]


def nested(inputs):
    """The inverse, for the names that begin with params."""
    tree = {}
    for (kind, *names), value in inputs.items():
        if kind == "params":
            place = tree
            for name in names[:-1]:
                place = place.setdefault(name, {})
            place[names[-1]] = value
    return tree


def test_the_judge_knows_every_form():
    assert set(oracle.FORMS) == set(NONLINEARITY)


@pytest.mark.parametrize(("h", "impl", "gate", "qk_norm"), cases(oracle.FORMS, ["dense", "blockwise"], GATES, NORMS))
def test_equals_the_formulas(h, impl, gate, qk_norm):
    judge(*built(h, gate, qk_norm, impl), tolerance=2e-5)


@pytest.mark.parametrize(("h", "gate", "qk_norm"), cases(oracle.FORMS, ["none", "gau", "linear"], NORMS))
def test_pallas(h, gate, qk_norm):
    """In interpret mode; head width 64, two heads to a kernel."""
    judge(*built(h, gate, qk_norm, "pallas", length=13, heads=2, d=64), tolerance=2e-5)


@pytest.mark.parametrize(
    ("h", "shards", "layout", "gate", "qk_norm", "impl"),
    [
        (h, shards, layout if layout in layouts_of(h) else "gather", *rest)
        for h, shards, layout, *rest in cases(oracle.FORMS, [2, 4], LAYOUTS, GATES, NORMS, ["dense", "blockwise"])
    ],
)
def test_tokens_over_devices(h, shards, layout, gate, qk_norm, impl):
    """13 tokens over 2 or 4 devices: padded, and the padding changes nothing."""
    mesh = make_mesh(MeshSpec(seq=shards), jax.devices()[: 2 * shards])
    judge(*built(h, gate, qk_norm, impl, seq_layout=layout), tolerance=2e-5, mesh=mesh, padding=-13 % shards)


@pytest.mark.parametrize("learned", ["layer", "head"])
@pytest.mark.parametrize("impl", ["dense", "blockwise"])
def test_a_learned_alpha_starts_at_the_knob_and_has_its_gradient(learned, impl):
    module, params, x = built("relu", "none", "head", impl, learned=learned)
    start = module.init(jax.random.key(0), x, x, Numbers(alpha=0.7), length=13)["params"]["alpha"]
    np.testing.assert_array_equal(start, np.full((2,) if learned == "head" else (), 0.7, np.float32))
    judge(module, params, x, tolerance=2e-5)


@pytest.mark.parametrize("h", oracle.FORMS)
def test_bfloat16(h):
    """Within 1/16 of the largest output and 1/8 of a gradient's norm: relu's mask changes where a logit is near 0."""
    judge(*built(h, "gau", "head", "blockwise", dtype="bfloat16"), tolerance=2**-4)


@pytest.mark.parametrize(("gate", "count"), [("linear", 390), ("mlp", 1590), ("all_heads", 2310), ("gau", 384 * 384 + 384)])
def test_parameter_counts(gate, count):
    """ViT-S/16, a layer: 6 * 65, 6 * (4 * 66 + 1), 6 * 385 (arXiv:2306.12929, table 4)."""
    module = Attention(AttentionSpec(gate=gate), 6, jnp.dtype("float32"))
    x = jnp.zeros((1, 2, 384))
    params = jax.eval_shape(lambda: module.init(jax.random.key(0), x, x, Numbers(), length=2))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params["gate"])) == count


@pytest.mark.parametrize("gate", ["linear", "mlp", "all_heads"])
def test_gates_start_at_pi_init(gate):
    """The bias is logit(pi_init), the weights are PyTorch's: U(-1/sqrt(n), 1/sqrt(n))."""
    module = Attention(AttentionSpec(gate=gate), 6, jnp.dtype("float32"))
    x = jnp.zeros((1, 2, 384))
    params = jax.jit(lambda pi: module.init(jax.random.key(0), x, x, Numbers(pi_init=pi), length=2))(0.25)["params"]["gate"]
    np.testing.assert_allclose(params["dense"]["bias"], np.full(params["dense"]["bias"].shape, np.log(0.25 / 0.75)), rtol=1e-6)
    first = params.get("hidden", params["dense"])["kernel"]
    bound = (384 if gate == "all_heads" else 64) ** -0.5
    assert 0.98 * bound < np.abs(first).max() <= bound


def test_dropout_is_of_the_weights_and_only_in_training():
    module, params, x = built("relu", "none", "none", "dense", dropout=0.5)

    @partial(jax.jit, static_argnums=0)
    def apply(train, key):
        rngs = {"dropout": jax.random.key(key)}
        return module.apply({"params": params}, x, x, Numbers(), length=13, train=train, rngs=rngs)

    still = apply(False, 0)
    np.testing.assert_array_equal(still, apply(False, 1))
    assert not np.allclose(apply(True, 0), apply(True, 1))
    mean = jnp.stack([apply(True, key) for key in range(400)]).mean(axis=0)
    np.testing.assert_allclose(mean, still, atol=0.15 * float(jnp.abs(still).max()))
