"""What goes wrong in an update, where first, and what is done about it; spikes of the loss against float64 numpy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import TrainSpec, knobs_of
from vit_attn.store.paths import paths_of
from vit_attn.train.health import SPIKE_STEPS, culprits, diagnosis, examine, healthy, judge
from vit_attn.train.state import init_state
from vit_attn.train.step import Examples, update

MODEL = {"variant": "mu/7", "image_size": 14, "width": 12, "depth": 2, "mlp_dim": 13, "heads": 3, "num_classes": 11}
BLOCK = "Transformer/encoderblock_{}/MlpBlock_0/Dense_1/bias"


def run_spec(**train):
    attention = {"h": "relu", "qk_norm": "none"}
    return resolve({"model": {**MODEL, "attention": attention}, "train": {"steps": 97, "batch_images": 5, **train}})


def batch(seed, scale=1.0):
    images, labels = jax.random.normal(jax.random.key(seed), (5, 14, 14, 3)), jnp.arange(5)[:, None] % 11
    return Examples(images * scale, labels, jnp.float32(1))


def trained(spec, batches):
    """(states after each of the batches, their metrics)."""
    knobs = jax.tree.map(jnp.asarray, knobs_of(spec))
    step, state, states, rows = jax.jit(partial(update, spec)), jax.jit(partial(init_state, spec))(knobs), [], []
    for examples in batches:
        state, metrics = step(state, knobs, examples)
        states, rows = [*states, state], [*rows, {key: float(value) for key, value in metrics.items()}]
    return states, rows


def same(one, other):
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), one, other)))


BAD = batch(3, jnp.nan)


@pytest.fixture(scope="module")
def skipping():
    spec = run_spec(on_nonfinite="skip", skip_limit=3)
    batches = [batch(0), BAD, batch(1), BAD, BAD, BAD, batch(2)]
    return spec, *trained(spec, batches)


def test_a_skipped_update_leaves_everything_as_it_was(skipping):
    _, states, rows = skipping
    for before, after in ((0, 1), (2, 3), (2, 5)):
        assert same((states[before].params, states[before].moments), (states[after].params, states[after].moments))
    assert not same(states[0].params, states[2].params)
    assert [int(state.step) for state in states] == [1, 2, 3, 4, 5, 6, 7]  # so the schedule counts it
    assert [row["train/skipped"] for row in rows] == [0, 1, 1, 2, 3, 4, 4]
    assert all(np.isfinite(row["train/l2_params"]) for row in rows)


def test_too_many_skipped_in_a_row_are_the_end(skipping):
    spec, states, rows = skipping
    assert [row["diverged_at"] for row in rows] == [-1, -1, -1, -1, -1, 6, 6]
    said = diagnosis(spec.train, states[-1].params, 6, int(rows[-1]["culprit"]))
    assert said == "diverged at step 6: 3 updates in a row were skipped, since step 4 the loss is not finite"


def test_the_first_of_the_row_is_to_blame():
    """Rows of bad updates that end well are forgotten."""
    train, params, health = TrainSpec(on_nonfinite="skip", skip_limit=3), {"head": {"kernel": jnp.ones(3)}}, healthy()
    for step, culprit in enumerate((0, -1, 1, 0, 0), start=1):
        health = judge(train, health, jnp.int32(step), jnp.float32(1), jnp.int32(culprit), params)
    assert (int(health.diverged_at), int(health.culprit), int(health.skipped)) == (5, 1, 4)


def test_skipped_updates_are_as_if_they_had_not_been(skipping):
    """But for the schedule, which has gone on: the moments and their count are those of the finite batches alone."""
    _, states, _ = skipping
    alone, _ = trained(run_spec(on_nonfinite="skip"), [batch(0)])
    assert same(states[1].moments, alone[0].moments)


def test_skip_and_leave_are_one_for_finite_updates():
    batches = [batch(seed) for seed in range(4)]
    (*_, one), (*_, other) = (trained(run_spec(on_nonfinite=what), batches)[0] for what in ("leave", "skip"))
    assert same((one.params, one.moments), (other.params, other.moments))


def test_left_alone_the_first_bad_update_is_the_end():
    spec = run_spec()
    states, rows = trained(spec, [batch(0), BAD, batch(1)])
    assert [row["diverged_at"] for row in rows] == [-1, 2, 2]
    assert "train/skipped" not in rows[0]
    assert diagnosis(spec.train, states[-1].params, 2, int(rows[-1]["culprit"])) == "diverged at step 2: the loss is not finite"


def test_parameters_that_are_ruined_are_no_matter_of_skipping():
    """A rate at which a finite gradient makes parameters infinite."""
    for what in ("leave", "skip"):
        spec = run_spec(peak_lr=1e38, on_nonfinite=what)
        states, rows = trained(spec, [batch(0)])
        assert rows[0]["diverged_at"] == 1
        assert rows[0].get("train/skipped", 0) == 0
        said = diagnosis(spec.train, states[0].params, 1, int(rows[0]["culprit"]))
        assert said.startswith("diverged at step 1: the parameter ")


@pytest.fixture(scope="module")
def params():
    spec = resolve({"model": {**MODEL, "depth": 11, "pool": "map", "rep_size": True}})
    shapes = jax.eval_shape(lambda: init_state(spec, knobs_of(spec))).params
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def spoiled(params, values):
    """The tree with one number of each of these leaves replaced."""
    paths = iter(paths_of(params))
    place = lambda x: x.ravel().at[-1].set(values[path]).reshape(x.shape) if (path := next(paths)) in values else x
    return jax.tree.map(place, params)


@pytest.mark.parametrize(
    ("bad", "first"),
    [
        ({"embedding/kernel": np.nan}, "embedding/kernel"),
        ({"embedding/kernel": np.inf, BLOCK.format(2): np.nan, BLOCK.format(10): -np.inf}, BLOCK.format(10)),
        ({BLOCK.format(9): np.nan, "Transformer/encoder_norm/bias": np.nan}, "Transformer/encoder_norm/bias"),
        ({"MAPHead_0/probe": np.nan, "Transformer/encoder_norm/bias": np.nan}, "MAPHead_0/probe"),
        ({BLOCK.format(0): np.nan, "head/kernel": np.nan, "embedding/bias": np.nan}, "head/kernel"),
        ({BLOCK.format(2): np.nan, BLOCK.format(3): np.nan}, BLOCK.format(3)),
        ({"MAPHead_0/probe": np.nan, "pre_logits/bias": np.nan}, "pre_logits/bias"),
        ({BLOCK.format(3): 1e20}, BLOCK.format(3)),  # finite, but its square is not: the norm that clips is infinite
        ({"head/bias": 1.5e19, "pos_embedding": 1.5e19}, "pos_embedding"),  # each square is finite, the sum is not
        ({"head/bias": 1e18, "pos_embedding": -1e18}, None),
    ],
)
def test_the_bad_gradient_nearest_to_the_loss_is_named(params, bad, first):
    culprit = int(jax.jit(examine)(jnp.float32(1), spoiled(params, bad)))
    assert (None if culprit < 0 else culprits(params)[culprit]) == (first and f"the gradient of {first}")
    for loss in (np.nan, -np.inf):
        assert culprits(params)[int(examine(jnp.float32(loss), spoiled(params, bad)))] == "the loss"


def test_bad_parameters_are_named(params):
    health = judge(TrainSpec(), healthy(), jnp.int32(7), jnp.float32(1), jnp.int32(-1), spoiled(params, {"head/bias": np.nan}))
    assert int(health.diverged_at) == 7
    assert culprits(params)[int(health.culprit)] == "the parameter head/bias"
    assert len(culprits(params)) == 1 + 2 * len(paths_of(params))


def spikes(losses, sigmas):
    """How many, by the definition, in float64."""
    mean, variance, count, seen = 0.0, 0.0, 0, 0
    for loss in losses:
        if not np.isfinite(loss):
            continue
        limit = mean + sigmas * np.sqrt(variance)
        if seen >= SPIKE_STEPS:
            count += loss > limit
            loss = min(loss, limit)
        seen += 1
        rate = 1 / min(seen, SPIKE_STEPS)
        variance = (1 - rate) * (variance + rate * (loss - mean) ** 2)
        mean += rate * (loss - mean)
    return count, mean, np.sqrt(variance)


@pytest.mark.parametrize("sigmas", [3.0, 6.0])
def test_loss_spikes(sigmas):
    rng = np.random.default_rng(7)
    losses = 2.3 * np.exp(-np.arange(613) / 311) + 0.05 * rng.normal(size=613)
    losses[[17, 150, 151, 400]] += 3  # the first one comes too early to count
    losses[[200, 201]] = np.nan, np.inf
    losses[500:] += 2  # a level that stays: soon it is no spike any more
    train = TrainSpec(spike_sigmas=sigmas)
    params = {"head": {"kernel": jnp.ones(3)}}

    def one(health, loss):
        culprit = examine(loss, params)
        health = judge(train, health, jnp.int32(1), loss, culprit, params)
        return health, health.loss_spikes

    health, counts = jax.lax.scan(one, healthy(), jnp.asarray(losses, jnp.float32))
    wanted, mean, deviation = spikes(losses, sigmas)
    assert int(health.loss_spikes) == wanted
    assert int(counts[99]) == 0
    assert [int(counts[i] - counts[149]) for i in (150, 151)] == [1, 2]
    assert 3 <= wanted < 100
    assert int(counts[-1]) == int(counts[-50])
    np.testing.assert_allclose([health.loss_mean, jnp.sqrt(health.loss_variance)], [mean, deviation], rtol=2e-4)
    first = np.asarray(losses[:83])
    first = first[np.isfinite(first)]
    early, _ = jax.lax.scan(one, healthy(), jnp.asarray(first, jnp.float32))
    np.testing.assert_allclose([early.loss_mean, early.loss_variance], [first.mean(), first.var()], rtol=1e-5)
