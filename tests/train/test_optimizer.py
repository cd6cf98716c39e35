"""Five updates against the recipe in float64 numpy: clip, Adam, schedule, decay of kernels that the rate does not multiply."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vit_attn.ops.nonlinearity import Numbers
from vit_attn.spec.run import Knobs, TrainSpec
from vit_attn.train.losses import LOSSES
from vit_attn.train.optimizer import adam, schedule, updates


def factor(step, warmup, steps):
    progress = min(max((step - warmup) / (steps - warmup), 0), 1)
    return 0.5 * (1 + math.cos(math.pi * progress)) * (min(1, step / warmup) if warmup else 1)


@pytest.mark.parametrize(("warmup", "steps"), [(3, 11), (0, 7)])
def test_schedule(warmup, steps):
    train = TrainSpec(steps=steps, warmup_steps=warmup)
    got = [float(schedule(train, jnp.int32(step))) for step in range(steps + 2)]
    np.testing.assert_allclose(got, [factor(step, warmup, steps) for step in range(steps + 2)], atol=1e-6)
    assert got[-1] == 0.0


@pytest.mark.parametrize("clip_norm", [1.0, 100.0])
def test_updates_equal_the_recipe(clip_norm):
    train = TrainSpec(steps=9, warmup_steps=2, clip_norm=clip_norm, adam_mu_dtype="float32")
    knobs = Knobs(Numbers(), peak_lr=0.1, weight_decay=0.03, seed=0)
    rng = np.random.default_rng(0)
    flat = {("dense", "kernel"): (3, 5), ("dense", "bias"): (5,), ("ln", "scale"): (7,)}
    want = {key: rng.normal(size=shape) for key, shape in flat.items()}
    m, v = ({key: np.zeros(shape) for key, shape in flat.items()} for _ in range(2))
    params = as_tree(want)
    moments = adam(train).init(params)
    for step in range(5):
        grads = {key: 2 * rng.normal(size=shape) for key, shape in flat.items()}
        direction, moments = adam(train).update(as_tree(grads), moments)
        params = optax.apply_updates(params, updates(train, knobs, jnp.int32(step), direction, params))
        norm = math.sqrt(sum((g**2).sum() for g in grads.values()))
        for key, grad in grads.items():
            clipped = grad * min(1, clip_norm / norm)
            m[key] = 0.9 * m[key] + 0.1 * clipped
            v[key] = 0.999 * v[key] + 0.001 * clipped**2
            hat = m[key] / (1 - 0.9 ** (step + 1)) / (np.sqrt(v[key] / (1 - 0.999 ** (step + 1))) + 1e-8)
            decay = 0.03 * want[key] if key[-1] == "kernel" else 0
            want[key] = want[key] - factor(step, 2, 9) * (0.1 * hat + decay)
    jax.tree.map(lambda got, wanted: np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-6), params, as_tree(want))


def as_tree(flat):
    tree = {}
    for (outer, inner), value in flat.items():
        tree.setdefault(outer, {})[inner] = jnp.asarray(value, jnp.float32)
    return tree


def test_first_moment_is_bfloat16_by_default():
    params = {"kernel": jnp.ones((3, 5))}
    moments = adam(TrainSpec()).init(params)
    assert moments[1].mu["kernel"].dtype == jnp.bfloat16
    assert moments[1].nu["kernel"].dtype == jnp.float32


def test_losses():
    rng = np.random.default_rng(1)
    logits, targets = rng.normal(size=(3, 7)) * 5, np.eye(7)[[2, 0, 6]]
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    p = 1 / (1 + np.exp(-logits))
    want = {
        "softmax_xent": -(targets * log_p).sum(-1),
        "sigmoid_xent": -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(-1),
    }
    assert set(want) == set(LOSSES)
    for name, loss in LOSSES.items():
        got = loss(jnp.asarray(logits, jnp.float32), jnp.asarray(targets, jnp.float32))
        np.testing.assert_allclose(got, want[name], rtol=1e-5)


def test_schedule_as_timm_has_it():
    """Straight from the start of the warm-up to the peak; then the cosine of the whole run, down to the floor."""
    train = TrainSpec(steps=97, warmup_steps=13, warmup_start=0.001, floor=0.01, cosine_from="start")
    for step in range(98):
        cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * step / 97)) / 2
        wanted = 0.001 + step * (1 - 0.001) / 13 if step < 13 else cosine
        assert float(schedule(train, jnp.int32(step))) == pytest.approx(wanted, abs=1e-6)


def test_gradients_are_not_clipped_without_a_norm():
    params = {"kernel": jnp.zeros(3)}
    huge = {"kernel": jnp.asarray([3e3, -4e3, 1.0])}
    (direction, _) = adam(TrainSpec(clip_norm=None, adam_eps=1e-3)).update(huge, adam(TrainSpec(clip_norm=None)).init(params))
    assert direction["kernel"][2] == pytest.approx(1.0, rel=2e-3)  # clipped, it would be 2e-4 and vanish in adam_eps
