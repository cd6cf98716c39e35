"""A signal while a long evaluation runs: it is left off, the step is saved, and the evaluation is made up for."""

import signal
import time

import pytest
from trainer_runs import (
    assert_same_arrays,
    command,
    ended,
    finish,
    saved_arrays,
    saved_steps,
    start,
    start_together,
    wait_for,
    without_speed,
)

from vit_attn.spec.load import load_run, split_overrides
from vit_attn.store.run_dir import RunDir

NAMES = {"one": 1.0, "two": 0.5}  # members: alpha
SECONDS = {  # an evaluation takes some, whatever the machine: a batch has 2 images
    "train__steps": 5,
    "loop__log_steps": 1,
    "loop__ckpt_steps": 5,
    "eval__steps": 3,
    "eval__split": "train[:4000]",
    "eval__batch_images": 2,
}


def pack(folder):
    """The command for two members."""
    for name, alpha in NAMES.items():
        words, settings = split_overrides(command(folder / name, **SECONDS))
        RunDir(folder / name).create(load_run(words[1], {**settings, "model.attention.alpha": alpha}))
    return ["--run", *(folder / name for name in NAMES)]


def rows(workdir):
    return without_speed(RunDir(workdir).metrics())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    finish(pack(folder), folder / "log")
    assert [row["step"] for row in rows(folder / "one") if "val/accuracy" in row] == [3, 5]
    return folder


def stopped_after(text, argv, log):
    """The exit code of a command that gets SIGTERM a moment after it printed `text`."""
    process = start(argv, log)
    wait_for(process, log, text)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=100)


def test_made_up_for(whole, tmp_path):
    """Also where the second attempt is stopped."""
    argv = pack(tmp_path)
    for number, text in enumerate(("step 2/5", "resumes at step 3")):
        assert stopped_after(text, argv, tmp_path / f"log{number}") == 3
        for name in NAMES:
            assert [row["step"] for row in rows(tmp_path / name)] == [1, 2]
            assert saved_steps(tmp_path / name) == [3]
            status = RunDir(tmp_path / name).status()
            assert (status.state, status.step, status.message) == ("stopped", 3, "received SIGTERM")
    finish(argv, tmp_path / "log")
    for name in NAMES:
        assert rows(tmp_path / name) == rows(whole / name)
        assert_same_arrays(saved_arrays(tmp_path / name), saved_arrays(whole / name))


def test_in_processes_that_train_together(tmp_path):
    """All leave off behind the same batch; one process makes up for it."""
    argv = command(tmp_path / "run", **SECONDS)
    running = start_together(argv, tmp_path / "log", 2, 1)
    wait_for(running[0], tmp_path / "log.0", "step 2/5")
    time.sleep(0.3)
    running[1].send_signal(signal.SIGTERM)
    codes, logs = ended(running, tmp_path / "log", 100)
    assert codes == [3, 3], logs
    assert "stopped at step 3, saved: process 1 of 2 (host " in logs[0]
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2]
    finish(argv, tmp_path / "log")
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in rows(tmp_path / "run") if "val/accuracy" in row] == [3, 5]


def test_a_kill_after_the_evaluation_evaluates_nothing_twice(whole, tmp_path):
    """The step was saved without its evaluation, which is in the metrics since."""
    argv = pack(tmp_path)
    assert stopped_after("step 2/5", argv, tmp_path / "log0") == 3
    process = start(argv, tmp_path / "log1")
    wait_for(process, tmp_path / "log1", "step 3/5")
    process.kill()
    process.wait()
    finish(argv, tmp_path / "log")
    for name in NAMES:
        assert rows(tmp_path / name) == rows(whole / name)
