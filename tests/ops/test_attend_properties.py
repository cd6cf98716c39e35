"""What must hold for attention whatever the numbers are: symmetries, identities between forms, exact zeros."""

import math

import attention_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_problems import (
    DIRECTION,
    OTHER_BLOCKS,
    B,
    D,
    H,
    K,
    Q,
    assert_near,
    attended_64,
    every_h,
    every_how,
    few,
    more,
    problems,
    run,
    weights_64,
    whole,
)
from hypothesis import given
from hypothesis import strategies as st

from vit_attn.ops.attend import attend
from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import NONLINEARITY, POINTWISE, Numbers


@every_h
@every_how
@few
@given(problem=problems())
def test_equals_the_formulas(h, how, problem):
    q, k, v, rest = problem
    assert_near(run(h, how, q, k, v, **rest)[:1], [attended_64(h, q, k, v, **rest)])


@every_h
@every_how
@few
@given(problem=problems(), seed=st.integers(0, 99))
def test_the_order_of_keys_and_of_queries_does_not_matter(h, how, problem, seed):
    """Keys change places with their values: so do their gradients, and nothing else. Queries: so do the rows of the output."""
    q, k, v, rest = problem
    rng = np.random.default_rng(seed)
    keys, rows = rng.permutation(K), rng.permutation(Q)
    out, d_q, d_k, d_v = run(h, how, q, k, v, **rest)
    moved = rest | {"mask": rest["mask"][:, :, rows][..., keys], "d_out": DIRECTION[:, rows]}
    got = run(h, how, q[:, rows], k[:, keys], v[:, keys], **moved)
    assert_near(got, [out[:, rows], d_q[:, rows], d_k[:, keys], d_v[:, keys]])


@every_h
@few
@given(problem=problems())
def test_neither_blocks_nor_tiles_matter(h, problem):
    """Output and gradients of dense, of blocks of keys, and of tiles of queries."""
    q, k, v, rest = problem
    want = run(h, "dense", q, k, v, **rest)
    for how in ("blocks", "tiles", *OTHER_BLOCKS.get(h, ())):
        assert_near(run(h, how, q, k, v, **rest), want)


@pytest.mark.parametrize("h", POINTWISE)
@every_how
@few
@given(problem=problems(), alpha=st.floats(-1, 2))
def test_alpha_only_scales(h, how, problem, alpha):
    """Output and gradients are L^-alpha times those of alpha = 0, whose output does not know L."""
    q, k, v, rest = problem
    plain = run(h, how, q, k, v, **rest | {"alpha": np.zeros(H)})
    shown = np.where(rest["mask"] == -np.inf, 0.0, oracle.POINTWISE[h](np.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(D)))
    assert_near(plain[:1], [np.einsum("bhqk,bkhd->bqhd", shown, v)])
    scaled = run(h, how, q, k, v, **rest | {"alpha": np.full(H, alpha)})
    factor = float(K) ** -alpha
    assert_near([x / max(factor, 1) for x in scaled], [x * factor / max(factor, 1) for x in plain])


@pytest.mark.parametrize("h", [h for h in NONLINEARITY if h not in POINTWISE])
@every_how
def test_the_others_have_no_alpha(h, how):
    rng = np.random.default_rng(0)
    q, k, v = whole(rng, Q), whole(rng, K), whole(rng, K)
    for one, other in zip(run(h, how, q, k, v, alpha=[0, 1]), run(h, how, q, k, v, alpha=[2, -1]), strict=True):
        np.testing.assert_array_equal(one, other)


@every_h
@pytest.mark.parametrize("impl", ["dense", "blockwise"])
def test_one_key(h, impl):
    """L = 1: L^-alpha is 1, log L is 0, and softmax has nothing to choose from: the output is v itself."""
    q, k, v = np.float32([[[[3.0]], [[-2.0]]]]), np.float32([[[[1.5]]]]), np.float32([[[[0.7]]]])
    program = jax.jit(lambda alpha: attend(*map(jnp.asarray, (q, k, v)), Form(h=h), Numbers(alpha), impl=impl))
    one = {alpha: np.asarray(program(alpha))[0, :, 0, 0] for alpha in (0.0, 1.5)}
    np.testing.assert_array_equal(one[0.0], one[1.5])
    z = np.array([4.5, -3.0])
    as_one = {
        "softmax": 1.0,
        "clipped_softmax": 1.0,
        "softmax1": np.exp(z) / (1 + np.exp(z)),
        "sigmoid_bias": 1 / (1 + np.exp(-z)),
    }
    np.testing.assert_allclose(one[0.0], (as_one[h] if h in as_one else oracle.POINTWISE[h](z)) * 0.7, rtol=1e-6, atol=1e-6)
    if h in ("softmax", "clipped_softmax"):
        np.testing.assert_array_equal(one[0.0], v.ravel().repeat(2))


@pytest.mark.parametrize("h", ["relu", "relu2", "relu6"])
@every_how
@more
@given(seed=st.integers(0, 99))
def test_negative_logits_leave_exactly_nothing(h, how, seed):
    rng = np.random.default_rng(seed)
    for x in run(h, how, whole(rng, Q, 1, 3), whole(rng, K, -3, -1), whole(rng, K)):
        assert not x.any()


@every_how
@more
@given(problem=problems())
def test_clipped_softmax_that_does_not_clip_is_softmax(how, problem):
    q, k, v, rest = problem
    rest |= {"gamma": 0.0, "zeta": 1.0}
    assert_near(run("clipped_softmax", how, q, k, v, **rest), run("softmax", how, q, k, v, **rest))


@every_how
@more
@given(problem=problems(), row=st.integers(0, Q - 1))
def test_clipped_weights_have_no_gradient(how, problem, row):
    """Of one row: d_v is w d_out, exactly 0 where w is; d_q and d_k are softmax's with d_w = 0 where w is exactly 0 or 1."""
    q, k, v, rest = problem
    rest |= {"gamma": -0.11, "zeta": 1.07}
    d_out = np.where(np.arange(Q)[:, None, None] == row, DIRECTION, 0)
    w = weights_64("clipped_softmax", q, k, **rest)[:, :, row]
    p = weights_64("softmax", q, k, rest["mask"])[:, :, row]
    d_w = np.einsum("bhd,bkhd->bhk", d_out[:, row], v) * (rest["zeta"] - rest["gamma"]) * ((w > 0) & (w < 1))
    d_s = p * (d_w - (p * d_w).sum(-1, keepdims=True)) / math.sqrt(D)
    _, d_q, d_k, d_v = run("clipped_softmax", how, q, k, v, d_out=d_out, **rest)
    of_keys = [np.einsum("bhk,bhd->bkhd", *pair) for pair in ((d_s, q[:, row]), (w, d_out[:, row]))]
    assert_near([d_q[:, row], d_k, d_v], [np.einsum("bhk,bkhd->bhd", d_s, k), *of_keys])
    assert not d_v[np.moveaxis(w == 0, 1, 2)].any()


@every_how
@more
@given(winner=st.integers(0, K - 1))
def test_where_all_is_clipped_no_gradient_is_left(how, winner):
    """Weights of exactly one 1 and zeros: the winner's value comes out, bit for bit, and no gradient goes to q or k."""
    rng = np.random.default_rng(winner)
    q, k, v = np.full((B, Q, H, D), 4.0, np.float32), whole(rng, K), whole(rng, K)
    k[:, winner] = 6.0
    out, d_q, d_k, d_v = run("clipped_softmax", how, q, k, v, gamma=-0.03, zeta=1.07)
    np.testing.assert_array_equal(out, np.broadcast_to(v[:, winner, None], out.shape))
    assert not d_q.any()
    assert not d_k.any()
    assert not np.delete(d_v, winner, axis=1).any()
    assert_near([d_v[:, winner]], [DIRECTION.sum(1)])


@every_how
@more
@given(problem=problems())
def test_softmax1_is_softmax_with_a_zero_key_of_zero_value(how, problem):
    """The last key: zero, of value zero and seen by all for softmax; hidden from softmax1."""
    q, k, v, rest = problem
    k[:, -1], v[:, -1] = 0, 0
    seen, hidden = rest["mask"].copy(), rest["mask"].copy()
    seen[..., -1], hidden[..., -1] = 0, -np.inf
    out, d_q, d_k, d_v = run("softmax", how, q, k, v, mask=seen)
    got = run("softmax1", how, q, k, v, mask=hidden)
    assert_near([*got[:2], *(x[:, :-1] for x in got[2:])], [out, d_q, d_k[:, :-1], d_v[:, :-1]])


@every_how
@more
@given(problem=problems())
def test_sigmoid_bias_is_sigmoid_of_logits_less_log_of_length(how, problem):
    q, k, v, rest = problem
    shifted = rest | {"mask": rest["mask"] - np.float32(math.log(K)), "alpha": np.zeros(H)}
    assert_near(run("sigmoid_bias", how, q, k, v, **rest), run("sigmoid", how, q, k, v, **shifted))
