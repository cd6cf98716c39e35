"""Sweeps from start to end with real processes, real signals and real kills; the workers are stand-ins that train nothing."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from sweep_runs import MEMBERS, ROOT, SWEEP, wait_until

from vit_attn.store.run_dir import RunDir

PACKS = [MEMBERS[:1], MEMBERS[1:3], MEMBERS[3:]]


def states(sweeps):
    return {name: RunDir(sweeps.workdir / name).status().state for name in MEMBERS}


def test_a_sweep_finishes_and_repeats_nothing(sweeps):
    code, out, err = sweeps.run()
    assert (code, err) == (0, "")
    assert set(states(sweeps).values()) == {"done"}
    assert sweeps.starts() == PACKS
    assert "relu_alpha0.0_p7_seed0" in (sweeps.workdir / "logs/relu_p7.log").read_text()  # its command
    packs = json.loads((sweeps.workdir / "sweep.json").read_text())["packs"]
    assert [(pack["name"], [m["name"] for m in pack["members"]]) for pack in packs] == [
        *(("softmax_p7", PACKS[0]), ("relu_p7", PACKS[1]), ("relu2_p7", PACKS[2]))
    ]
    lines = out.splitlines()
    assert "0 of 5 finished" in "".join(lines[:4])
    for news in ("pack relu_p7: started", "pack relu_p7: finished", "relu_alpha1.0_p7_seed0: done"):
        assert any(line.endswith(news) for line in lines), news
    for shown in ("figure.png", "figure.svg", "results.csv", "results.md", f"tensorboard --logdir {sweeps.workdir}"):
        assert shown in out
    with open(sweeps.workdir / "report/results.csv") as handle:
        rows = {row["name"]: row for row in csv.DictReader(handle)}
    assert [float(rows[name]["accuracy"]) for name in MEMBERS] == [0.77, 0.5, 0.6, 0.5, 0.6]
    assert {float(row["core_seconds"]) for row in rows.values()} == {16.0}

    code, out, _ = sweeps.run()
    assert code == 0
    assert sweeps.starts() == PACKS
    assert "figure.png" in out


def test_a_member_that_diverges_is_a_result(sweeps):
    code, out, _ = sweeps.run(config=sweeps.config(SWEEP.replace("(0.0, 1.0)", "(0.0, 9.0)")))
    assert code == 0
    assert RunDir(sweeps.workdir / "relu_alpha9.0_p7_seed0").status().state == "diverged"
    assert len(sweeps.starts()) == 3
    assert "diverged at step 3" in out
    assert "Missing" not in out


def test_a_pack_that_fails_once_is_tried_again(sweeps):
    sweeps.environment = {"STAND_IN_FAILING": MEMBERS[1], "STAND_IN_FAILURES": "1"}
    code, out, _ = sweeps.run()
    assert code == 0
    assert set(states(sweeps).values()) == {"done"}
    assert sweeps.starts().count(MEMBERS[1:3]) == 2
    assert "pack relu_p7: failed (exit code 1: RuntimeError: [no luck] at start 1); it will be tried once more" in out


def test_a_pack_that_fails_twice_is_reported_and_the_others_go_on(sweeps):
    sweeps.environment = {"STAND_IN_FAILING": MEMBERS[1], "STAND_IN_FAILURES": "99"}
    code, out, _ = sweeps.run()
    assert code == 1
    assert states(sweeps) == {name: "failed" if name in MEMBERS[1:3] else "done" for name in MEMBERS}
    assert sweeps.starts().count(MEMBERS[1:3]) == 2
    assert RunDir(sweeps.workdir / MEMBERS[2]).status().message == "exit code 1: RuntimeError: [no luck] at start 2"
    assert "Missing: 2 of 5" in out
    assert out.splitlines()[-1].startswith("pack relu_p7 failed: exit code 1: RuntimeError: [no luck] at start 2 (log: ")

    sweeps.environment = {}
    assert sweeps.run()[0] == 0
    assert sweeps.starts()[4:] == [MEMBERS[1:3]]


def test_a_worker_that_is_killed_is_tried_again(sweeps):
    sweeps.environment = {"STAND_IN_STEP_SECONDS": "0.05"}
    launcher = sweeps.start()
    run = RunDir(sweeps.workdir / MEMBERS[0])
    wait_until(lambda: run.status().step > 3)
    os.kill(run.status().pid, signal.SIGKILL)
    out, _ = launcher.communicate(timeout=200)
    assert launcher.returncode == 0
    assert "pack softmax_p7: failed (killed by SIGKILL, and it printed nothing" in out
    assert sweeps.starts().count(MEMBERS[:1]) == 2


@pytest.mark.parametrize("moment", ["created", "second pack"])
def test_a_killed_launcher_is_taken_up_by_the_same_command(sweeps, moment):
    sweeps.environment = {"STAND_IN_STEP_SECONDS": "0.03"}
    launcher = sweeps.start()
    reached = {
        "created": lambda: (sweeps.workdir / "sweep.json").exists(),
        "second pack": lambda: RunDir(sweeps.workdir / MEMBERS[1]).status().step > 5,
    }
    wait_until(reached[moment])
    launcher.kill()
    launcher.wait()
    assert sweeps.run()[0] == 0
    assert set(states(sweeps).values()) == {"done"}
    assert sorted(sweeps.steps()) == sorted([name, str(step)] for name in MEMBERS for step in range(1, 17))  # each once
    if moment == "second pack":
        assert sweeps.starts() == [*PACKS[:2], *PACKS[1:]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_workers_save(sweeps, number):
    sweeps.environment = {"STAND_IN_STEP_SECONDS": "0.05"}
    launcher = sweeps.start()
    wait_until(lambda: RunDir(sweeps.workdir / MEMBERS[0]).status().step > 3)
    launcher.send_signal(number)
    out, err = launcher.communicate(timeout=10)
    assert (launcher.returncode, err) == (3, "")
    assert states(sweeps) == {name: "stopped" if name == MEMBERS[0] else "waiting" for name in MEMBERS}
    assert "Run the same command to go on" in out


def test_workers_share_the_cores_and_run_side_by_side(sweeps):
    sweeps.environment = {"STAND_IN_STEP_SECONDS": "0.1"}
    launcher = sweeps.start("--max-parallel", "2")
    runs = [RunDir(sweeps.workdir / name) for name in MEMBERS]
    wait_until(lambda: [run.status().state for run in runs] == ["running"] * 3 + ["waiting"] * 2)
    cores = [os.sched_getaffinity(runs[member].status().pid) for member in (0, 1)]
    mine = os.sched_getaffinity(0)
    if len(mine) >= 2:
        assert [len(share) for share in cores] == [len(mine) // 2] * 2
        assert not cores[0] & cores[1]
    assert cores[0] | cores[1] <= mine
    assert os.getsid(runs[0].status().pid) != os.getsid(launcher.pid)  # out of reach of the terminal's Ctrl-C
    launcher.terminate()
    assert launcher.wait(10) == 3


def test_a_second_launcher_watches_the_first(sweeps):
    sweeps.environment = {"STAND_IN_STEP_SECONDS": "0.05"}
    first = sweeps.start()
    wait_until(lambda: RunDir(sweeps.workdir / MEMBERS[0]).status().state == "running")
    second = sweeps.start("--max-parallel", "2")
    out, err = second.communicate(timeout=60)
    assert (second.returncode, err) == (0, "")
    assert f"another launcher is at work in {sweeps.workdir}; this one watches it" in out
    assert "relu2_alpha1.0_p7_seed0: done" in out
    assert first.wait(10) == 0
    assert sweeps.starts() == PACKS


def test_launch_stop_ends_the_launcher(sweeps):
    sweeps.environment = {"STAND_IN_STEP_SECONDS": "0.7"}
    first = sweeps.start()
    wait_until(lambda: RunDir(sweeps.workdir / MEMBERS[0]).status().step > 0)
    done = launched("stop", sweeps.workdir)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 waiting, 1 stopped" in done.stdout
    out, _ = first.communicate(timeout=10)
    assert first.returncode == 3
    assert "Stopped by launch.stop; all that was trained is saved" in out
    sweeps.environment = {}
    assert sweeps.run()[0] == 0
    assert sorted(sweeps.steps()) == sorted([name, str(step)] for name in MEMBERS for step in range(1, 17))


def test_a_worker_that_somebody_stops_is_no_failure(sweeps):
    sweeps.environment = {"STAND_IN_STEP_SECONDS": "0.05"}
    launcher = sweeps.start()
    wait_until(lambda: RunDir(sweeps.workdir / MEMBERS[0]).status().step > 3)
    os.kill(RunDir(sweeps.workdir / MEMBERS[0]).status().pid, signal.SIGTERM)
    out, _ = launcher.communicate(timeout=200)
    assert launcher.returncode == 3
    assert "Stopped by somebody else (softmax_p7)" in out
    assert states(sweeps) == {name: "stopped" if name == MEMBERS[0] else "done" for name in MEMBERS}


def test_retry_gives_only_what_failed_another_go(sweeps):
    sweeps.environment = {"STAND_IN_FAILING": MEMBERS[1], "STAND_IN_FAILURES": "2"}
    assert sweeps.run()[0] == 1
    RunDir(sweeps.workdir / MEMBERS[0]).write_status("stopped", step=5, steps=16)  # unfinished, but it did not fail
    done = launched(
        "retry", sweeps.workdir, "--failed", program="drive_retry.py", **sweeps.environment, STAND_IN_NOTES=str(sweeps.folder)
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Other members are unfinished" in done.stdout
    assert sweeps.starts().count(PACKS[1]) == 3
    assert sweeps.starts().count(PACKS[0]) == 1
    assert states(sweeps) == {name: "stopped" if name == MEMBERS[0] else "done" for name in MEMBERS}
    done = launched("retry", sweeps.workdir, "--failed")
    assert (done.returncode, done.stdout) == (0, "no member has failed\n")
    done = launched("retry", sweeps.workdir)
    assert (done.returncode, done.stderr) == (2, "error: say which members: --failed\n")


def launched(module, *words, program=None, **environment):
    """python -m launch.MODULE, or a program of these tests in its stead."""
    command = [sys.executable, *([ROOT / "tests/launch" / program] if program else ["-m", f"launch.{module}"]), *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([str(word) for word in command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=200)


@pytest.fixture
def small_disk(sweeps):
    """The sweep's directory on a file system of 1 MiB."""
    sweeps.workdir.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", sweeps.workdir]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield sweeps.workdir
    subprocess.run(["umount", "--lazy", sweeps.workdir], check=True)


def test_a_full_disk_loses_nothing_that_is_finished(sweeps, small_disk):
    sweeps.environment = {"STAND_IN_STEP_SECONDS": "0.05"}
    launcher = sweeps.start()
    wait_until(lambda: RunDir(small_disk / MEMBERS[0]).status().state == "done")
    wait_until(lambda: RunDir(small_disk / MEMBERS[1]).status().step > 3)
    with open(small_disk / "ballast", "wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(b"x" * 4096)
        except OSError:
            pass
    wait_until(lambda: RunDir(small_disk / MEMBERS[1]).status().seen_state() != "running")
    time.sleep(1)  # in which the launcher finds that it cannot start a worker, or that it ended as the first one did
    assert states(sweeps)[MEMBERS[0]] == "done"
    (small_disk / "ballast").unlink()
    out, err = launcher.communicate(timeout=60)
    assert err == ""
    assert "pack relu_p7: failed (" in out
    assert launcher.returncode == 0 or sweeps.run()[0] == 0
    assert set(states(sweeps).values()) == {"done"}
    assert sweeps.starts().count(PACKS[0]) == 1  # what was finished is not done again
    assert len([1 for name, _ in sweeps.steps() if name == MEMBERS[0]]) == 16


def test_dry_run_prints_the_plan_and_creates_nothing(sweeps):
    code, out, _ = sweeps.run("--dry-run")
    assert code == 0
    assert "5 members in 3 packs" in out
    (row,) = [line.split() for line in out.splitlines() if line.split()[:1] == ["relu_alpha1.0_p7_seed0"]]
    assert row[-3:] == ["configs/quickstart.py:h=relu,alpha=1.0", "--config.train.steps=16", "--config.train.warmup_steps=0"]
    assert not sweeps.workdir.exists()


def test_help_is_there_and_no_launcher_loads_an_accelerator():
    shown = subprocess.run(
        [sys.executable, "-m", "launch.sweep", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--max-parallel" in shown.stdout
    program = (
        "import sys, launch.sweep, launch.status, vit_attn.report.__main__, vit_attn.report.figure\n"
        "print(*sorted({m.partition('.')[0] for m in sys.modules} & {'jax', 'jaxlib', 'flax', 'tensorflow', 'optax'}))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
