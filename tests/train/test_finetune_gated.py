"""A trained softmax run continued with gates: at first it computes what it computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainer_runs import command, run_here, saved_arrays

from vit_attn.interop.run import forward, load_run
from vit_attn.models.attention import Attention
from vit_attn.ops.nonlinearity import Numbers
from vit_attn.spec.load import load_run as load_spec
from vit_attn.spec.model import AttentionSpec
from vit_attn.spec.run import knobs_of
from vit_attn.store.run_dir import RunDir
from vit_attn.train.init_from import start_params
from vit_attn.train.state import init_state


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A vanilla run of 6 steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert run_here(*command(folder, "configs/quickstart.py", train__steps=6)) == 0
    return folder


@pytest.mark.parametrize(("gate", "pi_init"), [("linear", 0.5), ("linear", 0.3), ("mlp", 0.9), ("all_heads", 0.25)])
def test_with_weights_of_zero_the_network_is_the_trained_one(trained, gate, pi_init):
    spec = load_spec(f"configs/finetune_gated.py:run={trained},gate={gate},pi_init={pi_init},std=0", {})
    params, line = start_params(spec, jax.jit(lambda: init_state(spec, knobs_of(spec)).params)())
    assert "arrays of gates are fresh" in line
    before = load_run(trained)
    images = np.random.default_rng(0).uniform(-1, 1, size=(7, 28, 28, 3)).astype(np.float32)
    gated = jax.jit(lambda params, images: forward(spec, params, images))(params, images)
    np.testing.assert_array_equal(gated, before.predict(images))
    moved = jax.tree.map(lambda x: x + 0.1, params)
    assert not np.array_equal(jax.jit(lambda params, images: forward(spec, params, images))(moved, images), gated)


def test_it_trains_on_with_the_settings_of_the_run(trained, tmp_path, capfd):
    argv = ["--config", f"configs/finetune_gated.py:run={trained},steps=4", "--workdir", tmp_path / "gated"]
    assert run_here(*argv, "--config.loop.ckpt_steps=4") == 0
    assert "arrays of gates are fresh" in capfd.readouterr().out
    old, new = RunDir(trained).spec(), RunDir(tmp_path / "gated").spec()
    assert (new.model.variant, new.data, new.train.batch_images) == (old.model.variant, old.data, old.train.batch_images)
    assert new.train.peak_lr == pytest.approx(old.train.peak_lr / 10)
    kernel = saved_arrays(tmp_path / "gated", 4)[
        "/params/Transformer/encoderblock_0/MultiHeadDotProductAttention_0/gate/dense/kernel"
    ]
    assert 0 < np.abs(kernel).max() < 0.1


def test_small_weights_and_the_scale():
    """Kernel of the given standard deviation; the output of attention times sigmoid(x W + b) / pi_init."""
    module = Attention(AttentionSpec(gate="linear", gate_std=0.01, gate_rescale=True), 6, jnp.dtype("float32"))
    plain = Attention(AttentionSpec(gate="linear", gate_std=0.01), 6, jnp.dtype("float32"))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 384)), jnp.float32)
    numbers = Numbers(pi_init=0.25)
    params = module.init(jax.random.key(0), x, x, numbers, length=5)
    assert np.std(params["params"]["gate"]["dense"]["kernel"]) == pytest.approx(0.01, rel=0.15)
    bias = np.asarray(params["params"]["out"]["bias"])
    scaled, found = (np.asarray(m.apply(params, x, x, numbers, length=5)) - bias for m in (module, plain))
    np.testing.assert_allclose(scaled, found / 0.25, rtol=1e-4, atol=1e-6)


def test_a_gate_that_changes_the_network_is_refused(trained, capfd, tmp_path):
    """One that is no gate of the paper; and gates of a run that has some already, as without them."""
    config = f"configs/finetune_gated.py:run={trained}"
    assert run_here("--config", f"{config},gate=gau", "--workdir", tmp_path / "gau") == 2
    assert "gate='gau' must be one of linear, mlp, all_heads, none" in capfd.readouterr().err
    assert run_here("--config", f"{config},steps=2,gate=mlp", "--workdir", tmp_path / "gated") == 0
    for gate in ("none", "mlp", "linear"):
        again = f"configs/finetune_gated.py:run={tmp_path / 'gated'},gate={gate}"
        assert run_here("--config", again, "--workdir", tmp_path / "again") == 2
        assert "is a run with gates already (gate=mlp): take one without" in capfd.readouterr().err
    assert not (tmp_path / "again").exists()


def test_a_run_that_is_none(capfd, tmp_path):
    for run in ("", str(tmp_path)):
        assert run_here("--config", f"configs/finetune_gated.py:run={run}", "--workdir", tmp_path / "gated") == 2
        assert "must be the directory of a run" in capfd.readouterr().err
    assert not (tmp_path / "gated").exists()
