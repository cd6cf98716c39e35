"""A halved sweep of the real trainer: what goes on, in another pack than before, is what it would be alone."""

import os
import subprocess
import sys

from trainer_runs import ROOT, SETTINGS, assert_same_arrays, command, finish, saved_arrays, without_speed

from vit_attn.store.run_dir import RunDir

SWEEP = """
def get_sweep(arg=""):
    return {"base": "configs/quickstart.py", "points": [{"h": "relu", "alpha": a} for a in (1.0, 0.0, -20.0)]}
"""


def test_survivors_are_what_they_would_be_alone(tmp_path):
    """Three members in packs of one and two; the worst ends at step 6 of 12, the others go on as one pack."""
    (tmp_path / "sweep.py").write_text(SWEEP)
    flags = ["--config", tmp_path / "sweep.py", "--workdir", tmp_path / "W", "--pack", "2", "--max-parallel", "2"]
    flags += ["--halve-at", "0.5", "--metric", "val/accuracy", *(f"--config.{key}={value}" for key, value in SETTINGS.items())]
    env = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run(
        [sys.executable, "-m", "launch.sweep", *map(str, flags)], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    runs = {run.name: run for run in map(RunDir, (tmp_path / "W").glob("relu_*"))}
    at_rung = {name: row["val/accuracy"] for name, run in runs.items() for row in run.metrics() if row["step"] == 6}
    states = {name: run.status().state for name, run in runs.items()}
    (ended,) = [name for name, state in states.items() if state == "halved"]
    assert at_rung[ended] == min(at_rung.values())
    assert [row["step"] for row in runs[ended].metrics()][-1] == 6
    assert f"--run {tmp_path}/W/" in (tmp_path / "W" / "logs" / "relu_p14.log").read_text()  # both, one pack
    name = max(set(runs) - {ended})
    alpha = runs[name].spec().model.attention.alpha
    finish(command(tmp_path / "solo", model__attention__alpha=alpha), tmp_path / "log")
    assert_same_arrays(saved_arrays(runs[name].path), saved_arrays(tmp_path / "solo"))
    assert without_speed(runs[name].metrics()) == without_speed(RunDir(tmp_path / "solo").metrics())
