"""Sweeps on a real Slurm: two slurmd on this machine. make test-slurm"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import slurm_cluster
from slurm_cluster import NODES
from sweep_runs import MEMBERS, ROOT, Sweeps
from trainer_runs import assert_same_arrays, command, finish, saved_arrays, without_speed

from launch.submissions import Submissions
from launch.sweep_dir import SweepDir
from vit_attn.store.run_dir import RunDir

WANTED = bool(os.environ.get("VIT_ATTN_TEST_SLURM"))
pytestmark = pytest.mark.skipif(
    not WANTED or bool(slurm_cluster.missing()),
    reason=slurm_cluster.missing() or "a real Slurm takes some minutes: make test-slurm",
)
PACKS = [MEMBERS[:1], MEMBERS[1:3], MEMBERS[3:]]
SLOW = {"STAND_IN_STEP_SECONDS": "0.4"}  # 16 steps: 6 s


@pytest.fixture(scope="module")
def slurm():
    folder = Path(
        tempfile.mkdtemp(prefix="slurm-", dir="/tmp")
    )  # short: it holds sockets; and munge looks at who may write above it
    folder.chmod(0o755)
    cluster = slurm_cluster.Slurm(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def sweeps(tmp_path, slurm):
    made = OnSlurm(tmp_path, slurm)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
    slurm.run("scancel", "--quiet", "--user=root", check=False)
    slurm.wait_for(lambda: not set(slurm.states().values()) & {"RUNNING", "PENDING", "COMPLETING"})


class OnSlurm(Sweeps):
    def __init__(self, folder, slurm):
        super().__init__(folder)
        self.slurm = slurm

    def start(self, *flags, **more):
        self.environment = {**self.environment, **self.slurm.environment}
        backend = [] if "--backend" in flags else ["--backend", "slurm:report=false"]
        return super().start(*backend, *flags, **more)

    def finish(self, *flags, code=0, process=None):
        """What the launcher printed."""
        process = process or self.start(*flags)
        out, err = process.communicate(timeout=200)
        assert process.returncode == code, out + err + self.logs()
        return out

    def logs(self):
        files = [*self.workdir.glob("logs/*"), *self.workdir.glob("slurm/*log*")]
        return "".join(f"\n== {file.name}\n{file.read_text()[-2000:]}" for file in files)

    def member(self, index):
        return RunDir(self.workdir / MEMBERS[index]).status()

    def states(self):
        return {name: RunDir(self.workdir / name).status().state for name in MEMBERS}

    def job(self, pack):
        submission = Submissions(self.workdir).newest_of_packs().get(pack)
        return submission and submission.ids and submission.ids[pack]

    def wait_for(self, true):
        self.slurm.wait_for(true)

    def launch(self, module, *flags):
        command = [sys.executable, "-m", f"launch.{module}", str(self.workdir), *flags]
        env = {**os.environ, **self.environment}
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)

    def assert_each_step_once(self):
        assert set(self.states().values()) == {"done"}
        assert sorted(self.steps()) == sorted([name, str(step)] for name in MEMBERS for step in range(1, 17))


@contextmanager
def drained(slurm):
    """No node takes a job."""
    for node in NODES:
        slurm.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    try:
        yield
    finally:
        for node in NODES:
            slurm.run("scontrol", "update", f"nodename={node}", "state=resume")


def test_a_sweep_is_one_array_job_and_a_report(sweeps):
    out = sweeps.finish("--backend", "slurm:partition=low,cpus_per_task=1")
    assert "pack relu_p7: queued" in out
    assert "pack relu_p7: finished" in out
    sweeps.assert_each_step_once()
    (submission,) = Submissions(sweeps.workdir).read()
    array = submission.ids["softmax_p7"].partition("_")[0]
    assert submission.ids == {"softmax_p7": f"{array}_0", "relu_p7": f"{array}_1", "relu2_p7": f"{array}_2"}
    assert sweeps.finish()
    assert len(Submissions(sweeps.workdir).read()) == 1  # nothing is repeated
    assert len(sweeps.starts()) == 3


def test_the_report_needs_no_launcher(sweeps):
    launcher = sweeps.start("--backend", "slurm:partition=low")
    sweeps.wait_for(lambda: sweeps.member(0).step > 2)
    launcher.kill()
    array = sweeps.job("softmax_p7").partition("_")[0]
    report = str(max(int(job) for job in sweeps.slurm.states() if "_" not in job))
    assert int(report) > int(array)
    sweeps.wait_for(lambda: sweeps.slurm.states().get(report) == "COMPLETED")
    assert "relu_alpha1.0_p7_seed0" in (sweeps.workdir / "report/results.csv").read_text()


def test_a_pack_that_fails_is_reported_and_retried_on_request(sweeps):
    sweeps.environment = {"STAND_IN_FAILING": MEMBERS[1], "STAND_IN_FAILURES": "2"}
    out = sweeps.finish(code=1)
    assert sweeps.states() == {name: "failed" if name in PACKS[1] else "done" for name in MEMBERS}
    assert "pack relu_p7: failed (exit code 1: RuntimeError: [no luck] at start 1); it will be tried once more" in out
    assert [one.packs for one in Submissions(sweeps.workdir).read()] == [("softmax_p7", "relu_p7", "relu2_p7"), ("relu_p7",)]
    shown = sweeps.launch("status", "--once").stdout
    assert "RuntimeError: [no luck] at start 2" in shown


def test_a_job_that_never_starts_says_why(sweeps):
    out = sweeps.finish("--backend", "slurm:report=false,sbatch=chdir=/nowhere error=/nowhere/x output=/nowhere/y", code=1)
    assert "pack softmax_p7: failed (" in out


def test_scancel_and_resume(sweeps):
    sweeps.environment = SLOW
    launcher = sweeps.start()
    sweeps.wait_for(lambda: sweeps.member(0).step > 2 and sweeps.member(1).step > 2)
    sweeps.slurm.run("scancel", sweeps.job("softmax_p7").partition("_")[0])
    out = sweeps.finish(process=launcher, code=3)
    assert "pack softmax_p7: stopped" in out
    assert "Stopped by somebody else (" in out
    assert sweeps.member(0).state == "stopped"
    sweeps.environment = {}
    sweeps.finish()
    sweeps.assert_each_step_once()


def test_a_drained_node_delays_and_loses_nothing(sweeps):
    with drained(sweeps.slurm):
        launcher = sweeps.start()
        sweeps.wait_for(lambda: sweeps.job("softmax_p7"))
        assert "5 queued" in sweeps.launch("status", "--once").stdout
        assert sweeps.starts() == []
    sweeps.finish(process=launcher)
    sweeps.assert_each_step_once()


def test_a_job_of_more_weight_takes_the_nodes_and_gives_them_back(sweeps):
    sweeps.environment = SLOW
    launcher = sweeps.start("--backend", "slurm:partition=low,report=false")
    sweeps.wait_for(lambda: sweeps.member(0).step > 2 and sweeps.member(1).step > 2)
    sweeps.slurm.run("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")
    sweeps.finish(process=launcher)
    sweeps.assert_each_step_once()
    shown = sweeps.launch("status", "--once").stdout
    assert "preempted" in shown
    assert any(line.split()[:1] == [MEMBERS[0]] and line.rstrip().endswith("1x") for line in shown.splitlines())
    assert len(Submissions(sweeps.workdir).read()) == 1


@pytest.mark.parametrize("moment", ["queued", "running", "before the answer"])
def test_a_killed_launcher_finds_its_jobs_again(sweeps, moment):
    sweeps.environment = {"STAND_IN_STEP_SECONDS": "0.2"}
    with drained(sweeps.slurm) if moment == "queued" else nullcontext():
        launcher = sweeps.start()
        sweeps.wait_for(lambda: sweeps.job("relu2_p7") if moment == "queued" else sweeps.member(0).step > 2)
        launcher.kill()
        launcher.wait()
    if moment == "before the answer":  # as if it had been killed while sbatch was asked
        (file,) = sweeps.workdir.glob("submissions/*.json")
        file.write_text(json.dumps({**json.loads(file.read_text()), "ids": None}))
    out = sweeps.finish()
    assert "at work already" in out
    assert "p7: queued" not in out
    sweeps.assert_each_step_once()
    assert len(sweeps.starts()) == 3
    assert len(Submissions(sweeps.workdir).read()) == 1


def test_stop_without_a_launcher(sweeps):
    sweeps.environment = SLOW
    launcher = sweeps.start("--max-parallel", "1")  # so that two packs wait in Slurm's queue
    sweeps.wait_for(lambda: sweeps.member(0).step > 2)
    launcher.kill()
    launcher.wait()
    done = sweeps.launch("stop")
    assert done.returncode == 0, done.stderr
    assert sweeps.states() == {name: "stopped" if name == MEMBERS[0] else "waiting" for name in MEMBERS}
    assert not set(sweeps.slurm.states().values()) & {"RUNNING", "PENDING"}
    sweeps.environment = {}
    sweeps.finish()
    sweeps.assert_each_step_once()


def test_a_node_daemon_that_is_killed(sweeps):
    sweeps.environment = SLOW
    launcher = sweeps.start()
    sweeps.wait_for(lambda: sweeps.member(0).step > 2)
    for node in NODES:
        sweeps.slurm.kill_node(node)
    sweeps.wait_for(lambda: sweeps.member(0).state == "done")
    for node in NODES:
        sweeps.slurm.start_node(node)
    sweeps.finish(process=launcher)
    sweeps.assert_each_step_once()


def test_a_worker_that_is_killed_is_tried_again(sweeps):
    sweeps.environment = SLOW
    launcher = sweeps.start()
    sweeps.wait_for(lambda: sweeps.member(0).step > 2)
    os.kill(sweeps.member(0).pid, signal.SIGKILL)
    out = sweeps.finish(process=launcher)
    assert "pack softmax_p7: failed (killed by SIGKILL" in out
    assert set(sweeps.states().values()) == {"done"}
    assert sweeps.starts().count(PACKS[0]) == 2


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("slurm:partition=nope,report=false", "nvalid partition"),
        ("slurm:partitoin=low", "did you mean 'partition'?"),
        ("slurm:nodes=two", "nodes='two' must be a whole number"),
        ("slurm:nodes", "must be KEY=VALUE"),
    ],
)
def test_what_slurm_cannot_do_is_one_line(sweeps, flags, told):
    process = sweeps.start("--backend", flags)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert told in err
    assert len(err.splitlines()) == 1


REAL = """
def get_sweep(arg=""):
    return {{"base": {base!r}, "points": [{points}]}}
"""


def real_sweep(sweeps, tmp_path, points, *flags, steps=60):
    """A launcher of the real trainer, as a user starts it."""
    path = tmp_path / "real.py"
    path.write_text(REAL.format(base=str(ROOT / "configs/quickstart.py"), points=points))
    settings = [
        word for word in command("x", train__steps=steps, loop__ckpt_steps=10, eval__steps=30) if word.startswith("--config.")
    ]
    words = [sys.executable, "-m", "launch.sweep", "--config", path, "--workdir", sweeps.workdir, *settings, *flags]
    env = {**os.environ, **sweeps.slurm.environment, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    process = subprocess.Popen(
        [str(word) for word in words], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    sweeps.processes.append(process)
    return process


def test_real_training_preempted_and_at_its_time_limit_is_bit_identical(sweeps, tmp_path):
    settings = {"train__steps": 60, "loop__ckpt_steps": 10, "eval__steps": 30}
    finish(command(tmp_path / "alone", "configs/quickstart.py:h=relu,alpha=1.0", **settings), tmp_path / "log")
    launcher = real_sweep(sweeps, tmp_path, "{'h': 'relu', 'alpha': 1.0}", "--backend", "slurm:report=false")
    run = RunDir(sweeps.workdir / "relu_alpha1.0_p14_seed0")
    sweeps.wait_for(lambda: run.status().step >= 8)
    sweeps.slurm.run("scontrol", "requeue", sweeps.job("relu_p14"))
    sweeps.wait_for(lambda: run.status().state == "stopped")
    stopped = run.status().step
    assert 8 <= stopped < 60
    sweeps.wait_for(lambda: run.status().state == "running" and run.status().step >= stopped + 4)
    sweeps.slurm.run("scancel", "--signal=USR2", sweeps.job("relu_p14"))  # what Slurm sends before the time limit
    out = sweeps.finish(process=launcher)
    assert "pack relu_p14: finished" in out
    assert_same_arrays(saved_arrays(run.path), saved_arrays(tmp_path / "alone"))
    assert without_speed(run.metrics()) == without_speed(RunDir(tmp_path / "alone").metrics())
    records = SweepDir(sweeps.workdir).journal("relu_p14").read()
    assert [record["event"] for record in records] == ["start", "end"] * 3
    assert [record["code"] for record in records if record["event"] == "end"] == [3, 3, 0]


def test_a_pack_on_two_nodes(sweeps, tmp_path):
    """Each node's slurmd starts one process; they find each other by Slurm's words and train together."""
    launcher = real_sweep(sweeps, tmp_path, "{'h': 'relu', 'alpha': 1.0}", "--backend", "slurm:nodes=2,report=false", steps=12)
    sweeps.finish(process=launcher)
    log = (sweeps.workdir / "logs/relu_p14.log").read_text()
    assert "process 0 of 2, found by Slurm" in log
    assert "in 2 processes" in log
    assert RunDir(sweeps.workdir / "relu_alpha1.0_p14_seed0").status().state == "done"
