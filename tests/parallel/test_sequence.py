"""Sequence-parallel attention against a float64 oracle written from the formulas, and what it promises to exchange."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from sequence_oracle import ALPHA, GAMMA, HEADS, LENGTH, PER_LENGTH, WIDTH, ZETA, oracle

from vit_attn.ops.attend import attend
from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import NONLINEARITY, Numbers
from vit_attn.ops.norm import QKNorm
from vit_attn.parallel.sequence.attention import LAYOUTS, choose_layout, layouts_of, sharded_attend


def mesh_of(**sizes):
    count = math.prod(sizes.values())
    kinds = (AxisType.Auto,) * len(sizes)
    return jax.set_mesh(jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=kinds, devices=jax.devices()[:count]))


def arrays(batch, length=LENGTH, heads=HEADS, width=WIDTH, dtype=jnp.float32):
    """q, k, v and a cotangent."""
    return [
        jax.random.normal(key, (batch, length, heads, width)).astype(dtype) for key in jax.random.split(jax.random.key(3), 4)
    ]


def padded(x, devices, value=0.0):
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % devices), (0, 0), (0, 0)), constant_values=value)


def sharded(h="relu", layout="queries", impl="dense", length=None, alpha=0.7, **form):
    """(q, k, v) -> outputs."""
    form = Form(h=h, length=length, **form)
    return lambda q, k, v: sharded_attend(q, k, v, form, Numbers(alpha), impl=impl, norm=QKNorm(), seq_layout=layout)


def with_gradients(function):
    """(arguments, a cotangent) -> (outputs, gradients)."""

    def both(arguments, d_out):
        out, pull = jax.vjp(function, *arguments)
        return out, pull(d_out)

    return jax.jit(both)


def close(got, want, tolerance=2e-5):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1e-1))


TESTED = ("relu", "gelu", "identity", "sigmoid_bias", "softmax", "softmax1", "clipped_softmax")
CASES = [  # every h in every layout with padding, qk-norm in turn; on other meshes one h of either kind
    *((2, 4, layout, h, ("none", "head")[(i + j) % 2]) for j, h in enumerate(TESTED) for i, layout in enumerate(layouts_of(h))),
    (1, 2, "gather", "clipped_softmax", "head"),
    (1, 2, "queries", "gelu", "none"),
    (2, 2, "queries", "softmax1", "head"),
    (2, 2, "ring", "relu", "head"),
    *((8, 1, "ring", h, "head") for h in ("relu", "clipped_softmax")),
]


@pytest.mark.parametrize(("data", "seq", "layout", "h", "qk_norm"), CASES)
def test_equals_the_formula(data, seq, layout, h, qk_norm):
    *qkv, d_out = arrays(batch=8 if data == 8 else 2 * data)
    table = np.linspace(0.5, 1.5, 4 * WIDTH).reshape(4, WIDTH) * np.array([[1.0], [0.1], [-1.0], [0.2]])

    def attention(q, k, v, alpha, gamma, zeta, table):
        form, numbers = Form(h=h, qk_norm=qk_norm, length=LENGTH), Numbers(alpha, gamma, zeta, PER_LENGTH)
        q, k, v = (padded(x, seq) for x in (q, k, v))
        norm = QKNorm(*table)
        return sharded_attend(q, k, v, form, numbers, impl="dense", norm=norm, seq_layout=layout)[:, :LENGTH]

    numbers = [jnp.asarray(x, jnp.float32) for x in (ALPHA, GAMMA, ZETA, table)]
    with mesh_of(data=data, seq=seq):
        got = with_gradients(attention)((*qkv, *numbers), d_out)
    close(got, oracle(h, qk_norm, *qkv, table, d_out))


@pytest.mark.parametrize("length", [1, 2, 47])
@pytest.mark.parametrize(("layout", "h"), [(layout, h) for layout in ("queries", "ring") for h in ("relu", "softmax")])
def test_any_length_on_four_devices(layout, h, length):
    """Of one token, or two, most devices have nothing but padding."""
    *qkv, d_out = arrays(batch=1, length=length)
    with mesh_of(data=1, seq=4):
        run = with_gradients(sharded(h, layout, length=length, alpha=jnp.asarray(ALPHA, jnp.float32)))
        got = run([padded(x, 4) for x in qkv], padded(d_out, 4))
    out, gradients = oracle(h, "none", *qkv, np.zeros((4, WIDTH)), d_out)
    close(jax.tree.map(lambda x: x[:, :length], got), (out, gradients[:3]))


def large_logits(kind, dtype):
    """q and k of width 4 whose logits every order of summation gives exactly: the softmax is all that can err."""
    shape = (2, LENGTH, HEADS, 1)
    if kind == "equal":  # to 1e4
        return [jnp.full((*shape[:3], 4), 71.0, dtype)] * 2
    key = jax.random.split(jax.random.key(5), 3)
    small = [jax.random.randint(x, (*shape[:3], 3), -4, 5) / 2 for x in key[:2]]  # rows between -1e3 and 1e3
    large = [jax.random.randint(key[2], shape, -64, 65), jnp.full(shape, 32.0)]
    return [jnp.concatenate(x, axis=-1).astype(dtype) for x in zip(large, small, strict=True)]


@pytest.mark.parametrize("layout", ["queries", "ring"])
@pytest.mark.parametrize("h", ["softmax", "softmax1"])
@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [("equal", jnp.float32, 2e-5), ("random", jnp.float32, 2e-5), ("equal", jnp.bfloat16, 2**-6)],
)
def test_large_logits(kind, dtype, tolerance, h, layout):
    (q, k), (*_, v, d_out) = large_logits(kind, dtype), arrays(batch=2, width=4, dtype=dtype)
    with mesh_of(data=1, seq=2):
        out, gradients = with_gradients(sharded(h, layout, length=LENGTH))([padded(x, 2) for x in (q, k, v)], padded(d_out, 2))
    want, (dq, dk, dv, *_) = oracle(h, "none", q, k, v, np.zeros((4, 4)), d_out)
    got = jax.tree.map(lambda x: x[:, :LENGTH], (out, *gradients))
    equal = kind == "equal"  # dq is a sum of weights that cancel, times 71
    close((got[0], *got[1 + equal :]), (want, *(dq, dk, dv)[equal:]), tolerance)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("alpha", [1, 5])
def test_float16_holds_neither_the_sums_nor_the_scaled_gradient(layout, alpha):
    """relu2 of 288 is 82944 > 65504, the output is 41472. L^-5 d_out is 4e-8, which float16 has not; the gradients it has."""
    values = (12, 12, 0.5, 2**-6)
    *qkv, d_out = (jnp.full((1, LENGTH, 1, 4), value, jnp.float16) for value in values)
    with mesh_of(data=1, seq=2):
        run = with_gradients(sharded("relu2", layout, length=LENGTH, alpha=alpha))
        got = run([padded(x, 2) for x in qkv], padded(d_out, 2))
    out = LENGTH * 82944 * 0.5
    dz = 2 * 288 * 4 * 0.5 * 2**-6  # of each logit, before L^-alpha
    want = (out, LENGTH * dz * 12 / 2, LENGTH * dz * 12 / 2, LENGTH * 82944 * 2**-6)
    for x, scaled in zip((got[0], *got[1]), want, strict=True):
        assert x.dtype == jnp.float16
        np.testing.assert_allclose(np.asarray(x[:, :LENGTH], np.float64), scaled * LENGTH**-alpha, rtol=2**-10)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("h", ["sigmoid_bias", "softmax1"])
def test_padding_has_no_influence(layout, h):
    """9 tokens on 4 devices: the last one has nothing but padding, which would weigh something in either h."""
    *qkv, d_out = arrays(batch=2, length=9)
    results = []
    with mesh_of(data=1, seq=4):
        run = with_gradients(sharded(h, layout, length=9))
        for value in (0.0, 3e38, np.nan):
            results.append(run([padded(x, 4, value) for x in qkv], padded(d_out, 4, 7.0)))
    for out, gradients in results:
        assert not any(np.asarray(x[:, 9:]).any() for x in (out, *gradients))  # nor NaN
        assert all((a == b).all() for a, b in zip((out, *gradients), (results[0][0], *results[0][1]), strict=True))
    want = with_gradients(lambda q, k, v: attend(q, k, v, Form(h=h), Numbers(0.7)))(qkv, d_out)
    close(jax.tree.map(lambda x: x[:, :9], results[1]), want)


@pytest.mark.parametrize(
    ("impl", "layout", "h", "sizes"),
    [
        ("blockwise", "gather", "clipped_softmax", {"data": 2, "seq": 2}),
        ("blockwise", "queries", "softmax", {"data": 2, "seq": 2}),
        ("blockwise", "ring", "relu", {"seq": 2}),
        ("blockwise", "ring", "softmax", {"fsdp": 2, "seq": 2, "model": 2}),
        ("blockwise", "auto", "relu", {"data": 2, "model": 2}),
        ("pallas", "gather", "softmax", {"data": 2, "seq": 2, "model": 2}),
        ("pallas", "queries", "relu", {"data": 1, "seq": 2}),
        ("pallas", "ring", "softmax1", {"data": 1, "seq": 2}),
        ("pallas", "auto", "relu", {"data": 2, "seq": 1}),
        ("dense", "queries", "relu", {"data": 1, "fsdp": 2}),
    ],
)
def test_every_implementation_on_every_mesh(impl, layout, h, sizes):
    """`fsdp` splits images too, `model` heads; what does not divide is computed by all, and no axis is needed."""
    *qkv, d_out = arrays(batch=2, length=11, heads=4, width=64)
    seq = sizes.get("seq", 1)
    form = {"block": 3, "tile_logits": 2 * 11 * 3} if impl == "blockwise" else {}
    with mesh_of(**sizes):
        run = with_gradients(sharded(h, choose_layout(layout, h), impl, length=11, **form))
        got = run([padded(x, seq, np.nan) for x in qkv], padded(d_out, seq))
    want = with_gradients(lambda q, k, v: attend(q, k, v, Form(h=h), Numbers(0.7)))(qkv, d_out)
    close(jax.tree.map(lambda x: x[:, :11], got), want)


@pytest.mark.parametrize(("layout", "h"), [("gather", "relu"), ("queries", "softmax"), ("ring", "softmax1")])
def test_scanned_and_rematerialised_layers(layout, h):
    *qkv, _ = arrays(batch=2, length=8)

    def loss(attention, scales):
        layer = lambda x, scale: (x + jnp.tanh(attention(scale * x, qkv[1], x)), None)
        return jnp.mean(jax.lax.scan(jax.checkpoint(layer), qkv[0], scales)[0] ** 2)

    scales = jnp.array([0.7, 1.1, -0.4])
    with mesh_of(data=2, seq=2):
        got = jax.jit(jax.value_and_grad(lambda scales: loss(sharded(h, layout), scales)))(scales)
    want = jax.value_and_grad(lambda scales: loss(lambda q, k, v: attend(q, k, v, Form(h=h), Numbers(0.7)), scales))(scales)
    close(got, want)


KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"


def collectives(function, *arguments):
    found = re.findall(rf" ({KINDS})(?:-start)?\(", jax.jit(function).lower(*arguments).compile().as_text())
    return {kind: found.count(kind) for kind in set(found)}


@pytest.mark.parametrize(
    ("h", "layout", "forward", "backward"),
    [
        ("relu", "gather", {"all-gather": 1}, {"all-gather": 1, "reduce-scatter": 1}),
        ("softmax", "gather", {"all-gather": 1}, {"all-gather": 1, "reduce-scatter": 1}),
        ("relu", "queries", {"all-gather": 1, "reduce-scatter": 1}, {"all-gather": 1, "reduce-scatter": 1}),
        ("softmax", "queries", {"all-gather": 1, "all-to-all": 1}, {"all-gather": 1, "reduce-scatter": 1}),
        ("relu", "ring", {"collective-permute": 3}, {"collective-permute": 6}),
        ("softmax", "ring", {"collective-permute": 3}, {"collective-permute": 6}),
    ],
)
def test_collectives_and_what_is_kept(h, layout, forward, backward):
    """No more than promised; between the passes a device keeps its share: at most q, k, v, outputs and two numbers a row."""
    *qkv, d_out = arrays(batch=2, length=8)
    with mesh_of(data=1, seq=4):
        qkv, run = jax.device_put(qkv, PartitionSpec("data", "seq")), sharded(h, layout)
        assert collectives(run, *qkv) == forward
        pull = jax.jit(lambda *qkv: jax.vjp(run, *qkv)[1])(*qkv)
        assert collectives(lambda pull, d_out: pull(d_out), pull, d_out) == backward
        barrier = "optimization_barrier"  # or the compiler would keep the forward's gathered arrays for the backward
        assert barrier in jax.jit(lambda pull, d_out: pull(d_out)).lower(pull, d_out).as_text()
    kept = sum(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(pull) if leaf.shape[1:2] == (8,))
    assert kept <= 4 * d_out.size // 4 + 2 * d_out.size // WIDTH // 4


@pytest.mark.parametrize(("layout", "h"), [("queries", "relu"), ("queries", "softmax"), ("ring", "softmax")])
def test_bfloat16_stays_near_and_keeps_its_type(layout, h):
    """Sums and row totals that travel as bfloat16 cost no more than bfloat16 outputs do; logits up to 40."""
    *qkv, d_out = arrays(batch=2, length=8, dtype=jnp.bfloat16)
    qkv[0] = 5 * qkv[0]
    with mesh_of(data=1, seq=4):
        got = with_gradients(sharded(h, layout))(qkv, d_out)
    wide = [x.astype(jnp.float32) for x in (*qkv, d_out)]
    want = with_gradients(lambda q, k, v: attend(q, k, v, Form(h=h), Numbers(0.7)))(wide[:3], wide[3])
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(got))
    close(got, want, 2**-6)


@pytest.mark.parametrize(
    ("h", "layout", "form", "says"),
    [
        ("clipped_softmax", "queries", {}, "clipped_softmax .*gather"),
        ("clipped_softmax", "ring", {}, "clipped_softmax .*gather"),
        ("relu", "rings", {}, "gather, queries, ring"),
        ("relu", "ring", {"causal": True}, "causal"),
        ("relu", "ring", {"dropout": 0.1}, "dropout"),
    ],
)
def test_refuses(h, layout, form, says):
    *qkv, _ = arrays(batch=2, length=8)
    with mesh_of(data=1, seq=4), pytest.raises(ValueError, match=says):
        jax.eval_shape(sharded(h, layout, **form), *qkv)


def test_auto():
    for h in NONLINEARITY:
        assert choose_layout("auto", h) in layouts_of(h)
        assert choose_layout("ring", h) == "ring"
