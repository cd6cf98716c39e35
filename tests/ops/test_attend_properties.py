"""What must hold for attention whatever the numbers are: symmetries, identities between forms, exact zeros, extreme logits.

Queries, keys and values are small whole numbers and d = 4: logits are exact multiples of a half, so that ties and kinks (relu
at 0, relu6 at 6) are met often, and met alike by programs that sum in another order. Each h compiles once for each of HOW.
"""

import math
from functools import partial

import attention_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_attn.ops.attend import attend
from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import NONLINEARITY, POINTWISE, ROWWISE, Numbers

B, Q, K, H, D = 2, 67, 11, 2, 4
HOW = {
    "dense": ("dense", {}),
    "blocks": ("blockwise", {"block": 4}),  # of keys: two and a rest
    "tiles": ("blockwise", {"block": K, "tile_logits": 64}),  # of queries: one of 64 and a rest; one image after the other
}
OTHER_BLOCKS = {"relu": [(1, None), (64, None)], "clipped_softmax": [(5, 64)]}
DIRECTION = np.cos(np.arange(B * Q * H * D, dtype=np.float32)).reshape(B, Q, H, D)  # d_out, if it does not matter
NO_MASK = np.zeros((B, H, Q, K), np.float32)

few = settings(max_examples=3, deadline=None, derandomize=True, database=None)  # of each h and each of HOW
more = settings(few, max_examples=10)
every_h = pytest.mark.parametrize("h", NONLINEARITY)
every_how = pytest.mark.parametrize("how", HOW)


@partial(jax.jit, static_argnums=(0, 1))
def _run(form, impl, q, k, v, d_out, numbers, mask):
    out, pull = jax.vjp(lambda *x: attend(*x, form, numbers, impl=impl, mask=mask), q, k, v)
    return out, *pull(d_out)


def run(h, how, q, k, v, mask=NO_MASK, d_out=DIRECTION, **numbers):
    """[out, d_q, d_k, d_v] as numpy arrays. `how` is a name of HOW or (block, tile_logits)."""
    impl, options = HOW[how] if isinstance(how, str) else ("blockwise", {"block": how[0], "tile_logits": how[1]})
    numbers = {"alpha": np.ones(H), "gamma": 0.0, "zeta": 1.0} | numbers
    numbers = Numbers(**{name: np.asarray(value, np.float32) for name, value in numbers.items()})
    return [np.array(x) for x in _run(Form(h=h, **options), impl, q, k, v, d_out, numbers, mask)]


def whole(rng, tokens, low=-2, high=2):
    return rng.integers(low, high + 1, (B, tokens, H, D)).astype(np.float32)


@st.composite
def problems(draw):
    """(q, k, v, rest): `rest` are the other arguments of `run`, with masks from empty to almost full."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shown = rng.random(NO_MASK.shape) >= draw(st.sampled_from([0.0, 0.3, 0.9]))
    alpha = draw(st.lists(st.sampled_from([-0.5, 0.0, 0.5, 1.0, 2.0]), min_size=H, max_size=H))
    gamma, zeta = draw(st.sampled_from([(0.0, 1.0), (-0.03, 1.0), (-0.11, 1.0), (0.0, 1.07), (-0.11, 1.07)]))
    rest = {"mask": np.where(shown, 0.0, -np.inf).astype(np.float32), "alpha": alpha, "gamma": gamma, "zeta": zeta}
    return whole(rng, Q), whole(rng, K), whole(rng, K), rest


def weights_64(h, q, k, mask=NO_MASK, alpha=(1.0,) * H, **clip):
    """The weights [B, H, q, k] from the formulas; a row without a key is zero."""
    z, hidden = np.einsum("bqhd,bkhd->bhqk", q, k, dtype=np.float64) / math.sqrt(D), mask == -np.inf
    if h in ROWWISE:
        hidden = hidden & ~hidden.all(-1, keepdims=True)
        w = oracle.weights(h, np.where(hidden, -np.inf, z), **clip)
        return np.where(mask.max(-1, keepdims=True) == -np.inf, 0.0, w)
    return np.where(hidden, 0.0, oracle.weights(h, z, np.asarray(alpha, np.float64)[:, None, None]))


def attended_64(h, q, k, v, **rest):
    return np.einsum("bhqk,bkhd->bqhd", weights_64(h, q, k, **rest), v)


def assert_near(got, want, within=3e-6):
    """Each array to `within` of its largest number, or of 1."""
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=within * max(1.0, np.abs(other).max()))


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
