"""Attention problems with exact logits, how to run them, and the float64 results that they must have.

Queries, keys and values are small whole numbers and d = 4: logits are exact multiples of a half, so that ties and kinks (relu
at 0, relu6 at 6) are met often, and met alike by programs that sum in another order. Each h compiles once for each of HOW.
"""

import math
from functools import partial

import attention_oracle as oracle
import jax
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from vit_attn.ops.attend import attend
from vit_attn.ops.form import Form
from vit_attn.ops.nonlinearity import NONLINEARITY, ROWWISE, Numbers

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
