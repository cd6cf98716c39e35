"""Rounding to grids against numpy in every number of bits and against PyTorch; degenerate ranges."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_attn.quant.grid import asymmetric, highest_of, symmetric

TORCH = os.environ.get("PYTHON_WITH_TORCH", sys.executable if find_spec("torch") else "")  # an interpreter
RANGES = {"both": (-1.7, 2.9), "above": (0.3, 5.0), "below": (-5.0, -0.3), "wide": (-3e4, 1e-3), "narrow": (-1e-4, 3e-5)}
BITS = range(2, 17)


def numbers(low, high):
    """Inside the range and far outside of it, its ends, 0, and what lies halfway between two steps for some bits."""
    rng = np.random.default_rng(0)
    inside = rng.uniform(low, high, 997)
    return np.concatenate([inside, 3 * inside, [low, high, 0.0, -0.0]]).astype(np.float32)


def as_numpy(x, low, high, bits, signed):
    """In float64, from the definition; (rounded, step)."""
    x, low, high = x.astype(np.float64), float(np.float32(low)), float(np.float32(high))
    if signed:
        lowest, highest, zero = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 0
        scale = max(max(abs(low), abs(high)) / highest, 1e-8)
    else:
        low, high = min(low, 0), max(high, 0)
        lowest, highest = 0, 2**bits - 1
        scale = max((high - low) / highest, 1e-8)
        zero = min(max(round(-low / scale), lowest), highest)
    return scale * (np.clip(np.rint(x / scale) + zero, lowest, highest) - zero), scale


def grid_of(low, high, bits, signed):
    low, high = jnp.float32(low), jnp.float32(high)
    if signed:
        return symmetric(jnp.maximum(jnp.abs(low), jnp.abs(high)), bits)
    return asymmetric(low, high, highest_of(bits))


@pytest.mark.parametrize("signed", [False, True], ids=["asymmetric", "symmetric"])
@pytest.mark.parametrize("range_", RANGES)
def test_numpy_says_the_same(range_, signed):
    low, high = RANGES[range_]
    x = numbers(low, high)
    rounds = jax.jit(lambda grid, x: grid(x))
    for bits in BITS:
        got = np.asarray(rounds(grid_of(low, high, bits, signed), x), np.float64)
        want, step = as_numpy(x, low, high, bits, signed)
        other = np.abs(got - want) > 1e-5 * np.abs(want) + 1e-6 * step
        halfway = np.abs(np.abs(x / step - np.floor(x / step)) - 0.5) < 2.0**bits * 1e-6
        assert not (other & ~halfway).any(), bits
        assert (np.abs(got - want) <= 1.01 * step).all(), bits  # halfway, float32 may fall to the other side
        assert len(np.unique(got)) <= 2**bits
        np.testing.assert_array_equal(got[x == 0], 0)


def test_halves_go_to_the_even_neighbour():
    grid = symmetric(jnp.float32(127.0), 8)
    np.testing.assert_array_equal(grid(jnp.float32([0.5, 1.5, 2.5, -0.5, -1.5, 200, -200])), [0, 2, 2, 0, -2, 127, -128])


def test_channels_have_their_own_grids():
    x = np.float32(np.random.default_rng(0).normal(size=(7, 5)) * 10.0 ** np.arange(5))
    got = np.asarray(symmetric(jnp.abs(x).max(axis=0, keepdims=True), 4)(jnp.asarray(x)), np.float64)
    for channel in range(5):
        top = np.abs(x[:, channel]).max()
        np.testing.assert_allclose(got[:, channel], as_numpy(x[:, channel], -top, top, 4, True)[0], rtol=1e-5)


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_degenerate_ranges(bits):
    """A constant is hit, zeros stay zeros, and no division by zero."""
    for value in (0.0, 3.7, -3.7, 1e-12):
        x = jnp.full(11, value, jnp.float32)
        for grid in (asymmetric(x.min(), x.max(), highest_of(bits)), symmetric(jnp.abs(x).max(), bits)):
            got = np.asarray(grid(x))
            np.testing.assert_allclose(got, x, rtol=1e-6, atol=2e-8)
            assert (got == 0).all() or value


@pytest.mark.skipif(not TORCH, reason="torch is not installed (or PYTHON_WITH_TORCH=PYTHON, an interpreter that has it)")
def test_torch_says_the_same(tmp_path):
    cases = []
    for low, high in RANGES.values():
        for bits in (2, 4, 6, 8, 16):
            for signed in (False, True):
                grid = grid_of(low, high, bits, signed)
                numbers_of = [float(x) for x in (grid.scale, grid.zero, grid.lowest, grid.highest)]
                cases.append((numbers(low, high), grid, numbers_of))
    np.savez(tmp_path / "in.npz", *[x for x, _, _ in cases])
    (tmp_path / "in.json").write_text(json.dumps([given for _, _, given in cases]))
    code = f"""
import json, numpy as np, torch
x, given = np.load("{tmp_path}/in.npz"), json.load(open("{tmp_path}/in.json"))
out = [torch.fake_quantize_per_tensor_affine(torch.tensor(x[f"arr_{{i}}"]), s, int(z), int(lo), int(hi)).numpy()
       for i, (s, z, lo, hi) in enumerate(given)]
np.savez("{tmp_path}/out.npz", *out)
"""
    subprocess.run([TORCH, "-c", code], check=True, timeout=120)
    theirs, same, all_ = np.load(tmp_path / "out.npz"), 0, 0
    for i, (x, grid, (scale, *_)) in enumerate(cases):
        got, want = np.asarray(grid(x)), theirs[f"arr_{i}"]
        steps = np.rint((got.astype(np.float64) - want) / scale)
        # PyTorch multiplies by 1 / scale and rounds with the zero point added: next to a half it may take the other neighbour
        x_steps = x.astype(np.float64) / scale
        halfway = np.abs(np.abs(x_steps - np.floor(x_steps)) - 0.5) < 1e-6 * np.maximum(np.abs(x_steps), 2**16)
        assert not (steps[~halfway]).any()
        assert np.abs(steps).max() <= 1
        same, all_ = same + (steps == 0).sum(), all_ + steps.size
    assert same > 0.995 * all_
