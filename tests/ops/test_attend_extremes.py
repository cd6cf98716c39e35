"""Attention at the ends of the numbers: large, equal, hidden and missing logits, float16 that overflows."""

import numpy as np
import pytest
from attention_problems import (
    DIRECTION,
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
    problems,
    run,
    weights_64,
    whole,
)
from hypothesis import given
from hypothesis import strategies as st


@every_h
@every_how
@few
@given(seed=st.integers(0, 99))
def test_logits_of_ten_thousand(h, how, seed):
    """Logits of +-1e4 and, for softmax, ties between the largest."""
    rng = np.random.default_rng(seed)
    sign = rng.choice(np.float32([-1, 1]), (2, B, Q, H, 1))
    q, k, v = sign[0] * np.full(D, 100.0, np.float32), sign[1, :, :K] * np.full(D, 50.0, np.float32), whole(rng, K)
    got = run(h, how, q, k, v, alpha=np.ones(H))
    assert all(np.isfinite(x).all() for x in got)
    with np.errstate(over="ignore"):
        want = attended_64(h, q, k, v)
    assert_near(got[:1], [want])


@every_h
@every_how
@few
@given(level=st.sampled_from([-30.0, 0.0, 0.5, 6.0, 30.0]), seed=st.integers(0, 99))
def test_equal_logits(h, how, level, seed):
    """Every key weighs the same: the output is a multiple of the mean of the values, the same one for all queries."""
    v = whole(np.random.default_rng(seed), K)
    q, k = np.full((B, Q, H, D), 1.0, np.float32), np.full((B, K, H, D), level / 2, np.float32)
    got = run(h, how, q, k, v, gamma=-0.03)
    assert all(np.isfinite(x).all() for x in got)
    one = weights_64(h, q, k, gamma=-0.03)[0, 0, 0, 0]
    assert_near(got[:1], [np.broadcast_to(one * v.sum(1, keepdims=True), got[0].shape)])


@every_h
@every_how
@few
@given(problem=problems(), rows=st.sets(st.integers(0, Q - 1), min_size=1))
def test_a_row_that_sees_no_key(h, how, problem, rows):
    """Zeros come out, no gradient goes in, and keys and values learn from the other rows as if it were not there."""
    q, k, v, rest = problem
    rows = sorted(rows)
    rest["mask"][:, :, rows] = -np.inf
    out, d_q, d_k, d_v = run(h, how, q, k, v, **rest)
    assert not out[:, rows].any()
    assert not d_q[:, rows].any()
    silent = DIRECTION.copy()
    silent[:, rows] = 0
    assert_near([out, d_q, d_k, d_v], run(h, how, q, k, v, **rest | {"d_out": silent}))
    assert all(np.isfinite(x).all() for x in (out, d_q, d_k, d_v))


@every_h
@every_how
@few
@given(problem=problems(), row=st.integers(0, Q - 1))
def test_nan_stays_in_its_row(h, how, problem, row):
    """And it shows there: no form hides it. All other rows keep every bit."""
    q, k, v, rest = problem
    rest["mask"][0, 0, row, 0] = 0.0  # it sees a key
    clean = run(h, how, q, k, v, **rest)
    q[0, row, 0, 1] = np.nan
    out, d_q, *_ = run(h, how, q, k, v, **rest)
    assert np.isnan(out[0, row, 0]).all()
    for got, want in zip((out, d_q), clean[:2], strict=True):
        want[0, row, 0] = got[0, row, 0]
        np.testing.assert_array_equal(got, want)


@every_how
@pytest.mark.parametrize("alpha", [1, 5])
def test_float16_holds_neither_the_weights_nor_the_scaled_gradient(how, alpha):
    """relu2 of 288 is 82944 > 65504, the output 41472. L^-5 d_out is 1e-7, where float16 has one digit; gradients are not."""
    q, k, v = (np.full((B, n, H, D), value, np.float16) for n, value in ((Q, 12), (K, 12), (K, 0.5)))
    got = run("relu2", how, q, k, v, d_out=np.full((B, Q, H, D), 2.0**-6, np.float16), alpha=[alpha] * H)
    assert all(x.dtype == np.float16 for x in got)
    d_s = 2 * 288 / 2 * 2.0**-6 * 4 * 0.5
    want = [82944 * 0.5 * K, d_s * 12 * K, d_s * 12 * Q, 82944 * 2.0**-6 * Q]
    for x, number in zip(got, want, strict=True):
        np.testing.assert_allclose(x.astype(np.float64), number * float(K) ** -alpha, rtol=2e-3)
