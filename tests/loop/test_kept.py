"""Where a run's checkpoints are and which of them stay, on the whole trainer."""

import json
import shutil
from dataclasses import asdict

import jax
import jax.numpy as jnp
import pytest
from trainer_runs import assert_same_arrays, command, run_here, saved_arrays, saved_steps, without_speed

from vit_attn.interop.run import load_run
from vit_attn.spec.run import LoopSpec, knobs_of
from vit_attn.store.checkpoint import Checkpoints
from vit_attn.store.restore import read_info
from vit_attn.store.run_dir import RunDir, file_lock
from vit_attn.train.state import init_state

MISSPELT = {"loop__ckpt_keep": 1, "loop__ckpt_keep_every": 8, "loop__ckpt_best": "val/acuracy"}


def apart(folder, name="one", **more):
    """A run in one folder whose checkpoints are in another one."""
    return command(folder / "runs" / name, **{"loop__ckpt_dir": str(folder / "disk" / "{name}"), **MISSPELT, **more})


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("apart")
    assert run_here(*apart(folder)) == 0
    return folder


@pytest.fixture
def copied(ended, tmp_path):
    """The same, for whoever breaks it. (What config.json says of places is a folder away.)"""
    shutil.copytree(ended, tmp_path / "copy")
    for file in (tmp_path / "copy").glob("*/one/config.json"):
        file.write_text(file.read_text().replace(str(ended), str(tmp_path / "copy")))
    return tmp_path / "copy"


def test_lies_where_it_should(ended):
    assert saved_steps(ended / "disk" / "one") == [8, 12]
    assert not (ended / "runs" / "one" / "checkpoints").exists()
    assert load_run(ended / "runs" / "one").step == 12
    rows = RunDir(ended / "runs" / "one").metrics()
    assert [row["step"] for row in rows if "speed/save_share" in row] == [6, 8, 10]
    assert all(0 < row["speed/save_share"] < 1 for row in rows if "speed/save_share" in row)


def test_goes_on_where_the_directory_is_empty(ended, copied, capfd):
    """A fresh machine: what it needs lies with the checkpoints. And the metric that was misspelt is said, with the choices."""
    shutil.rmtree(copied / "runs")
    shutil.rmtree(copied / "disk" / "one" / "checkpoints" / "12")
    assert run_here(*apart(copied)) == 0
    printed = capfd.readouterr().out
    assert "resumes at step 8" in printed
    assert printed.count("note: config.loop.ckpt_best: the metric 'val/acuracy' is unknown; did you mean 'val/accuracy'?") == 1
    assert_same_arrays(saved_arrays(copied / "disk" / "one"), saved_arrays(ended / "disk" / "one"))
    rows, wanted = (without_speed(RunDir(folder / "runs" / "one").metrics()) for folder in (copied, ended))
    assert rows == wanted


def test_it_must_find_what_it_has_saved(copied, capfd):
    before = sorted(copied.rglob("*"))
    (copied / "runs" / "one" / "status.json").write_text("{}")  # as if it were not done
    assert run_here(*apart(copied, loop__ckpt_dir=str(copied / "new"))) == 2
    assert f"(steps 8, 12) are in {copied}/disk/one, and {copied}/new has none: copy" in capfd.readouterr().err
    assert run_here(*apart(copied, name="two", loop__ckpt_dir=str(copied / "disk" / "one"), seed=5)) == 2
    assert "holds another run's checkpoints, which differs in config.seed: 0 there, 5 here" in capfd.readouterr().err
    assert run_here(*apart(copied, name="two", loop__ckpt_dir=str(copied / "disk" / "one"), seed=5), "--overwrite") == 2
    assert sorted(copied.rglob("*")) == before
    moved = (copied / "disk" / "one").rename(copied / "new")
    assert run_here(*apart(copied, loop__ckpt_dir=str(moved))) == 0
    assert "resumes at step 12" in capfd.readouterr().out


def test_overwrite_starts_over_there_too(copied, capfd):
    assert run_here(*apart(copied, seed=5, train__steps=4), "--overwrite") == 0
    assert saved_steps(copied / "disk" / "one") == [4]
    assert json.loads((copied / "disk" / "one" / "config.json").read_text())["seed"] == 5


def test_members_do_not_meet(ended, tmp_path, capfd):
    spec = load_run(ended / "runs" / "one").spec
    values = json.loads(json.dumps(asdict(spec)))
    values["loop"]["ckpt_dir"] = str(tmp_path / "disk")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(values))
    assert run_here("--run", tmp_path / "a", tmp_path / "b") == 2
    assert "is the same directory for several runs: write {name} into it" in capfd.readouterr().err
    assert not (tmp_path / "disk").exists()


def test_a_metric_that_cannot_be(tmp_path, capfd):
    assert run_here(*command(tmp_path / "run", loop__ckpt_best="vall/accuracy")) == 2
    assert "config.loop.ckpt_best='vall/accuracy' is the name of no metric" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_arrays_of_other_code_are_listed_and_left_alone(copied, capfd):
    """As if the code that wrote step 16 had one parameter more, and another one in another shape."""
    run_dir = RunDir(copied / "runs" / "one")
    spec = run_dir.spec()
    state = jax.jit(lambda: init_state(spec, knobs_of(spec)))()
    params = {**state.params, "extra": {"scale": jnp.ones(3)}, "head": {**state.params["head"], "bias": jnp.ones(11)}}
    checkpoints = Checkpoints(run_dir, LoopSpec(ckpt_keep=3, ckpt_dir=spec.loop.ckpt_dir))
    checkpoints.save(16, state._replace(params=params), {"config": asdict(spec), "train_seconds": 1.0, "bad_images": 0})
    checkpoints.close()
    (run_dir.path / "status.json").unlink()
    before = sorted(path for path in copied.rglob("*") if path.name not in (".lock", "env.json"))
    assert run_here(*apart(copied)) == 2
    error = capfd.readouterr().err.splitlines()
    assert "is whole, but not of this program: its arrays differ as below. Nothing was changed." in error[-3]
    assert error[-2:] == [
        "  extra: params/extra/scale float32[3]",
        "  other shape: params/head/bias is float32[11] there, float32[10] here",
    ]
    assert sorted(path for path in copied.rglob("*") if path.name not in (".lock", "env.json")) == before


def test_a_place_is_written_by_one_run_at_a_time(copied, capfd):
    """Also where two machines, with a directory of their own each, are given the same one by mistake."""
    where = copied / "disk" / "one"
    with file_lock(where / ".lock", "held by the test"):
        assert run_here(*apart(copied, name="two", loop__ckpt_dir=str(where))) == 2
    assert f"{where} is being written by another run" in capfd.readouterr().err
    assert not (copied / "runs" / "two").exists()
    assert saved_steps(where) == [8, 12]


def test_the_best_is_what_was_measured(tmp_path):
    """Evaluated at 3, 6, 9, 12, saved at 4, 8, 12 too: the accuracy of a step belongs to the weights of that step."""
    argv = command(tmp_path / "run", eval__steps=3, loop__ckpt_best="val/accuracy", loop__ckpt_keep=9, train__peak_lr=0.02)
    assert run_here(*argv) == 0
    measured = {row["step"]: row["val/accuracy"] for row in RunDir(tmp_path / "run").metrics() if "val/accuracy" in row}
    assert saved_steps(tmp_path / "run") == [3, 4, 6, 8, 9, 12]
    found = {
        step: read_info(RunDir(tmp_path / "run").checkpoints / str(step))["metrics"] for step in saved_steps(tmp_path / "run")
    }
    assert {step: one["val/accuracy"] for step, one in found.items() if "val/accuracy" in one} == measured
    assert all("train/loss" in one for one in found.values())


def test_speeds_are_of_all_steps_since_the_row_before(tmp_path):
    """Saved more often than logged: the seconds of the rows' speeds are all those of the run's core-hours."""
    assert run_here(*command(tmp_path / "run", loop__ckpt_steps=2, loop__log_steps=5)) == 0
    rows, cores = RunDir(tmp_path / "run").metrics(), jax.device_count()
    assert [row["step"] for row in rows] == [1, 5, 6, 10, 12]
    before = {"step": 0, "speed/core_hours": 0.0}
    for row in rows:
        seconds = (row["speed/core_hours"] - before["speed/core_hours"]) * 3600 / cores
        assert seconds * row["speed/images_per_second"] == pytest.approx((row["step"] - before["step"]) * 16, rel=1e-4)
        before = row
