"""Interrupted runs end as if nothing had happened, bit for bit: real processes, real signals."""

import signal

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from trainer_runs import (
    assert_same_arrays,
    command,
    finish,
    kill_at,
    run_here,
    saved_arrays,
    saved_steps,
    without_speed,
)

from vit_attn.store.run_dir import RunDir


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    printed = finish(command(folder / "run"), folder / "log")
    assert "step  2/12 |" in printed
    return folder / "run"


def rows(workdir):
    return without_speed(RunDir(workdir).metrics())


def scalars(workdir, tag):
    events = EventAccumulator(str(workdir))
    events.Reload()
    return [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]


def assert_same_run(workdir, uninterrupted):
    assert_same_arrays(saved_arrays(workdir), saved_arrays(uninterrupted))
    assert rows(workdir) == rows(uninterrupted)
    for tag in ("train/loss", "val/accuracy"):
        assert scalars(workdir, tag) == scalars(uninterrupted, tag)
    assert RunDir(workdir).status().state == "done"


def test_uninterrupted_leaves_what_it_should(uninterrupted):
    assert [row["step"] for row in rows(uninterrupted)] == [1, 2, 4, 6, 8, 10, 12]
    assert [row["step"] for row in rows(uninterrupted) if "val/accuracy" in row] == [6, 12]
    assert all(row["val/images"] == 37 for row in rows(uninterrupted) if "val/images" in row)
    assert saved_steps(uninterrupted) == [8, 12]
    assert (uninterrupted / "env.json").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 3), (signal.SIGINT, 3), (signal.SIGKILL, -9)])
def test_signal_then_the_same_command(uninterrupted, tmp_path, number, code):
    assert kill_at(command(tmp_path / "run"), tmp_path / "log1", "step  6/12", number) == code
    state = RunDir(tmp_path / "run").status().seen_state()
    assert state == ("interrupted" if number == signal.SIGKILL else "stopped")
    steps = saved_steps(tmp_path / "run")
    assert steps or number == signal.SIGKILL
    printed = finish(command(tmp_path / "run"), tmp_path / "log2")
    assert (f"resumes at step {steps[-1]}" if steps else "starts (of 12)") in printed
    assert_same_run(tmp_path / "run", uninterrupted)


def test_ctrl_c_at_a_terminal_reaches_worker_processes_as_well(uninterrupted, tmp_path):
    argv = command(tmp_path / "run", data__workers=2)
    assert kill_at(argv, tmp_path / "log1", "step  4/12", signal.SIGINT, group=True) == 3
    printed = (tmp_path / "log1").read_text()
    assert "received SIGINT" in printed
    assert "Traceback" not in printed
    finish(argv, tmp_path / "log2")
    assert_same_run(tmp_path / "run", uninterrupted)


def test_killed_before_the_first_checkpoint(uninterrupted, tmp_path):
    assert kill_at(command(tmp_path / "run"), tmp_path / "log1", "starts (of 12)", signal.SIGKILL) == -9
    finish(command(tmp_path / "run"), tmp_path / "log2")
    assert_same_run(tmp_path / "run", uninterrupted)


def test_complete_run_is_left_alone(uninterrupted, capsys):
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")}
    assert run_here(*command(uninterrupted)) == 0
    assert "is complete (done, step 12): nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")} == before


def test_hparams_are_sortable_columns(uninterrupted):
    events = EventAccumulator(str(uninterrupted))
    events.Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"model.attention.alpha" in content
    assert b"model.attention.h" in content
