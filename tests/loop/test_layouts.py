"""The trainer on meshes of every axis: same results, nothing compiled and nothing transferred unasked once it runs."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainer_runs import assert_close, command, run_here, saved_arrays, without_speed

from vit_attn.loop.feed import Feed
from vit_attn.loop.train import Pack
from vit_attn.spec.load import load_run, split_overrides
from vit_attn.store.run_dir import RunDir

FORM = "configs/quickstart.py:h=relu"
GATE = {"model__attention__gate": "linear", "train__adam_eps": 1e-4}  # eps: else the rounding of gradients near 0 is blown up
MESH = {"mesh__data": 2, "mesh__fsdp": 2, "mesh__model": 2}
WAYS = {"train__accumulate": 2, "model__scan_layers": "true", "model__remat": "nothing_saveable"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("plain") / "run"
    assert run_here(*command(workdir, FORM, **GATE)) == 0
    return workdir


@pytest.mark.parametrize("ways", [MESH, {**MESH, **WAYS}], ids=["sharded", "sharded, scanned, in parts"])
def test_a_run_on_another_mesh_is_the_same_run(plain, tmp_path, ways):
    assert run_here(*command(tmp_path / "run", FORM, **GATE, **ways)) == 0
    assert_close(saved_arrays(tmp_path / "run"), saved_arrays(plain))
    rows = [without_speed(RunDir(workdir).metrics()) for workdir in (tmp_path / "run", plain)]
    for mine, wanted in zip(*rows, strict=True):
        assert mine == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def test_a_sharded_pack(plain, tmp_path):
    """Two members on a mesh of three axes; one of them is the plain run."""
    for name, alpha in (("same", 1.0), ("other", 0.5)):
        words, settings = split_overrides(command(tmp_path / name, FORM, **GATE, **MESH))
        RunDir(tmp_path / name).create(load_run(words[1], {**settings, "model.attention.alpha": alpha}))
    assert run_here("--run", tmp_path / "same", tmp_path / "other") == 0
    same, other = saved_arrays(tmp_path / "same"), saved_arrays(tmp_path / "other")
    assert_close(same, saved_arrays(plain))
    assert any((same[name] != other[name]).any() for name in same)


COMPILES = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/backend_compile_duration")


@pytest.fixture
def compiled():
    """What jax traced and compiled while a `Pack` trained: (event, step)."""
    found, packs = [], []
    train = Pack.train

    def watched(self, *arguments):
        packs.append(self)
        try:
            return train(self, *arguments)
        finally:
            packs.pop()

    def listen(event, _duration, **_more):
        if packs and event in COMPILES:
            found.append((event, packs[-1].step))

    jax.monitoring.register_event_duration_secs_listener(listen)
    Pack.train = watched
    yield found
    Pack.train = train
    jax.monitoring.unregister_event_duration_listener(listen)


def test_nothing_is_compiled_once_training_runs(compiled, tmp_path, monkeypatch):
    """Over training, evaluation and saving, and of a run that is resumed; then that the count can see something."""
    argv = command(tmp_path / "run", FORM, **GATE, **MESH, evals__stats__type="attention_stats", evals__stats__images=8)
    assert run_here(*argv) == 0
    forget(tmp_path / "run", 12)
    assert run_here(*argv) == 0
    assert compiled == []
    monkeypatch.setattr(Feed, "metrics", with_one_more(lambda: jax.jit(jnp.sin)(jax.device_put(np.float32(1)))))
    forget(tmp_path / "run", 12)
    assert run_here(*argv) == 0
    assert compiled


def forget(workdir, step):
    """As if it had been killed before it saved `step`."""
    shutil.rmtree(workdir / "checkpoints" / str(step))
    (workdir / "status.json").unlink()


def with_one_more(compute):
    metrics = Feed.metrics
    return lambda self, *given: metrics(self, *given) | {"one_more": float(jax.device_get(compute()))}


def test_nothing_is_transferred_unasked(tmp_path, monkeypatch):
    """A number that goes to the devices by itself ends the run, so that there is none."""
    monkeypatch.setattr(Feed, "metrics", with_one_more(lambda: jnp.sin(1.0)))
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        run_here(*command(tmp_path / "run", FORM))
