"""One of several processes dies, hangs, fails, is told to stop, or never comes: all end soon, and say why. Real processes."""

import os
import signal
import time
from pathlib import Path

import pytest
from tfds_sets import write_gray
from trainer_runs import (
    assert_same_arrays,
    command,
    ended,
    saved_arrays,
    saved_steps,
    start,
    start_together,
    together,
    wait_for,
    without_speed,
)

from vit_attn.store.run_dir import RunDir

EVERYTHING = bool(os.environ.get("VIT_ATTN_TEST_EVERYTHING"))
SECONDS = 60  # in which all have to end
LONG = {"train__steps": 5000, "train__warmup_steps": 2, "loop__log_steps": 1000, "loop__ckpt_steps": 1000, "eval__steps": 5000}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two processes that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    codes, logs = together(command(folder / "run"), folder / "log", 2, 1)
    assert codes == [0, 0], logs
    return folder / "run"


def last_line(log):
    return log.rstrip().splitlines()[-1]


def saving(workdir, printed):
    return any(".orbax-checkpoint-tmp" in name.name for name in (workdir / "checkpoints").glob("8*"))


MOMENTS = {  # (who dies, when)
    "process 1 while it saves": (1, saving),
    "process 0 while it trains": (0, lambda workdir, printed: "step  4/12" in printed),
    "process 0 while it saves": (0, saving),
    "process 1 while it evaluates": (1, lambda workdir, printed: "step  4/12" in printed),
    "process 1 while it compiles": (1, lambda workdir, printed: "compiling" in printed),
}


@pytest.mark.parametrize("moment", list(MOMENTS)[: None if EVERYTHING else 2])
def test_a_peer_that_dies(whole, tmp_path, moment):
    dies, now = MOMENTS[moment]
    argv = command(tmp_path / "run")
    running = start_together(argv, tmp_path / "log", 2, 1)
    deadline = time.monotonic() + 200
    while not now(tmp_path / "run", (tmp_path / "log.0").read_text()):
        assert running[0].poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    running[dies].kill()
    codes, logs = ended(running, tmp_path / "log", SECONDS)
    assert codes[1 - dies] == 1, logs
    assert codes[dies] == -signal.SIGKILL
    words = last_line(logs[1 - dies])
    assert words.startswith(f"error: process {dies} of 2 (host ")
    assert "is gone; stopped " in words
    assert words.endswith("the same command goes on")
    status = RunDir(tmp_path / "run").status()
    assert (status.state, f"error: {status.message}") == ("failed", words)
    steps = saved_steps(tmp_path / "run")
    assert (f"the last checkpoint is step {steps[-1]};" if steps else "there is no checkpoint yet;") in words
    if not EVERYTHING and dies == 0:
        return
    codes, logs = together(argv, tmp_path / "again", 2, 1)
    assert codes == [0, 0], logs
    assert (f"resumes at step {steps[-1]}" if steps else "starts (of 12)") in logs[0]
    assert_same_arrays(saved_arrays(tmp_path / "run"), saved_arrays(whole))
    assert without_speed(RunDir(tmp_path / "run").metrics()) == without_speed(RunDir(whole).metrics())


def test_a_peer_that_hangs(tmp_path):
    """Stopped for longer than the others wait. It ends as well, once it goes on."""
    running = start_together([*command(tmp_path / "run", **LONG), "--peer-seconds", 5], tmp_path / "log", 2, 1)
    wait_for(running[0], tmp_path / "log.0", "step    1/5000")
    running[1].send_signal(signal.SIGSTOP)
    assert running[0].wait(SECONDS) == 1
    words = last_line((tmp_path / "log.0").read_text())
    assert "process 1 of 2 (host " in words
    assert "nothing was heard of it for 5 s; stopped at about step " in words
    running[1].send_signal(signal.SIGCONT)
    codes, logs = ended(running, tmp_path / "log", SECONDS)
    assert codes == [1, 1], logs
    assert last_line(logs[1]).startswith("error: process ")
    assert RunDir(tmp_path / "run").status().state == "failed"


def test_a_signal_stops_all_after_the_same_step_although_nothing_is_logged(tmp_path):
    argv = command(tmp_path / "run", **LONG)
    running = start_together(argv, tmp_path / "log", 2, 1)
    wait_for(running[0], tmp_path / "log.0", "step    1/5000")
    running[1].send_signal(signal.SIGTERM)
    codes, logs = ended(running, tmp_path / "log", 30)
    assert codes == [3, 3], logs
    assert "process 1 of 2 (host " in logs[0]
    assert "received SIGTERM" in logs[0]
    (step,) = saved_steps(tmp_path / "run")
    assert step < 1000
    assert f"stopped at step {step}, saved" in logs[0]
    assert RunDir(tmp_path / "run").status().state == "stopped"


def test_a_peer_that_fails_by_what_only_it_reads(tmp_path):
    """The labels on the host of process 1 are not those of the task."""
    for name, labels in (("good", [0, 1, 2, 9]), ("bad", [0, 1, 2, 10])):
        write_gray(tmp_path / name, "gray", labels * 8)
    argv = command(tmp_path / "run", data__name="gray", eval__split="train[:16]")
    each = [[f"--config.data.data_dir={tmp_path / name}"] for name in ("good", "bad")]
    codes, logs = together(argv, tmp_path / "log", 2, 1, each)
    assert codes == [2, 2], logs
    assert last_line(logs[1]).startswith("error: ")
    assert "num_classes=10" in last_line(logs[1])
    for part in ("error: process 1 of 2 (host ", ") failed: ", "num_classes=10", "the same command goes on"):
        assert part in last_line(logs[0])
    assert RunDir(tmp_path / "run").status().state == "failed"
    assert not any("Traceback" in log for log in logs)


def test_a_peer_that_never_comes(tmp_path):
    """Process 0 waits in vain, and so does process 1 where it looks for a process 0: both say so before anything is made."""
    argv = [*command(tmp_path / "run"), "--join-seconds", 2]
    running = start_together(argv, tmp_path / "log", 3, 1)
    running[1].kill()
    lone = start([*argv, "--processes", 2, "--process", 1, "--coordinator", "localhost:9"], tmp_path / "lone")
    codes, logs = ended(running, tmp_path / "log", SECONDS)
    assert [codes[0], codes[2]] == [2, 2], logs
    for log in (logs[0], logs[2]):
        assert "error: process 1 of 3 did not come within 2 s to localhost:" in last_line(log)
    assert lone.wait(SECONDS) == 2
    assert "error: process 0 of 2 did not come within 2 s to localhost:9" in last_line((tmp_path / "lone").read_text())
    assert not any("Traceback" in log for log in logs)
    assert not (tmp_path / "run").exists()


SLURM = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "2"}
MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMIX_NAMESPACE": "5"}


@pytest.mark.parametrize("cluster", ["Slurm", "Open MPI"])
def test_found_by_itself(tmp_path, cluster):
    """Environments as srun and mpirun make them, on an identity of its own for each test run."""
    running = []
    for task in ("0", "1"):
        step = {"SLURM_STEP_ID": str(os.getpid()), "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost"}
        env = {
            "Slurm": {**SLURM, **step, "SLURM_PROCID": task, "SLURM_LOCALID": task},
            "Open MPI": {
                **MPI,
                "PMIX_NAMESPACE": str(os.getpid()),
                "OMPI_COMM_WORLD_RANK": task,
                "OMPI_COMM_WORLD_LOCAL_RANK": task,
            },
        }[cluster]
        running.append(start(command(tmp_path / "run", train__steps=3, eval__steps=0), f"{tmp_path}/log.{task}", **env))
    codes, logs = ended(running, tmp_path / "log")
    assert codes == [0, 0], logs
    for task, log in enumerate(logs):
        assert f"process {task} of 2, found by {cluster}, coordinator localhost:" in log
    assert "2 cpu device(s) in 2 processes" in logs[0]


def test_alone_inside_a_step(tmp_path):
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "nowhere"}
    argv = [*command(tmp_path / "run", train__steps=3, eval__steps=0), "--alone", "--join-seconds", 1]
    assert start(argv, tmp_path / "log", **SLURM, **step).wait(SECONDS) == 0, Path(tmp_path / "log").read_text()
    assert "found by" not in (tmp_path / "log").read_text()
