"""Cloud TPU VMs as far as they go without a cloud: a gcloud that records, runs the startup script here, and misbehaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from sweep_runs import MEMBERS, ROOT, SWEEP, Sweeps, wait_until

from launch.submissions import Submissions
from launch.sweep_dir import SweepDir
from vit_attn.store.run_dir import RunDir

CKPT = "--config.loop.ckpt_dir=gs://b/ckpt/{name}"
BACKEND = ("--backend", "tpu-vm:zone=us-west4-a,type=v5litepod-8,bucket=gs://b/sweeps", CKPT)
TWO = SWEEP.replace('("relu", "relu2")', '("relu",)')  # two packs


class OnCloud(Sweeps):
    @property
    def cloud(self):
        return self.folder / "cloud"

    def calls(self, kind):
        lines = (self.cloud / "calls").read_text().splitlines() if (self.cloud / "calls").exists() else []
        return [words for words in map(json.loads, lines) if kind in words[:4]]

    def say(self, kind, times, text):
        (self.cloud / f"say_{kind}").write_text(json.dumps([times, text]))

    def lose(self, kind, times, text):
        """The answer, not what was asked for."""
        (self.cloud / f"lose_{kind}").write_text(json.dumps([times, text]))

    def vm(self, name):
        return self.cloud / "vms" / name

    @property
    def bucket(self):
        """Of this sweep."""
        return self.cloud / "buckets/b/sweeps" / SweepDir(self.workdir).id

    def names(self):
        return {
            pack: one.ids[pack] for pack, one in Submissions(self.workdir).newest_of_packs().items() if pack in (one.ids or {})
        }

    def machines(self):
        return sorted(file.stem for file in (self.cloud / "vms").glob("*.json"))

    def finish(self, *flags, code=0):
        process = self.start(*BACKEND, *flags, config=self.config(TWO))
        out, err = process.communicate(timeout=90)
        assert process.returncode == code, out + err + "".join(p.read_text() for p in self.cloud.glob("vms/*/startup.log"))
        return out if code != 2 else err


@pytest.fixture
def sweeps(tmp_path):
    made = OnCloud(tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    (made.cloud / "vms").mkdir(parents=True)
    for name, text in {
        "gcloud": (ROOT / "tests/launch/fake_gcloud.py").read_text(),
        "python3": "#!/bin/bash\nexit 0\n",  # of the machine: it sets up what fake_gcloud has made
        "curl": "#!/bin/bash\nexit 7\n",  # there is no metadata server
    }.items():
        (programs / name).write_text(text.replace("/usr/bin/env python3", sys.executable))
        (programs / name).chmod(0o755)
    shutil.copy(ROOT / "tests/launch/drive_worker.py", programs)
    shutil.copy(ROOT / "tests/launch/stand_in_worker.py", programs)
    made.environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "FAKE_CLOUD": str(made.cloud),
        "STAND_IN_STEP_SECONDS": "0.1",
    }
    yield made
    for file in made.cloud.glob("vms/*/pid"):
        kill(int(file.read_text()))
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def kill(group):
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def states(sweeps):
    return {name: RunDir(sweeps.workdir / name).status().state for name in MEMBERS[:3]}


def test_a_machine_a_pack_once_there_is_quota_and_all_come_back(sweeps):
    sweeps.say("create", 1, "Quota limit 'TPUV5sLitepodPerProjectPerZone' has been exceeded")
    sweeps.say("list", 2, "HttpError 503: The service is currently UNAVAILABLE")
    out = sweeps.finish()
    assert "no pack was started (gcloud: ERROR: (gcloud.compute.tpus.queued-resources.create) Quota limit" in out
    assert "the next try is in 5 seconds" in out
    assert "pack relu_p7: finished" in out
    assert set(states(sweeps).values()) == {"done"}
    assert sorted(sweeps.steps()) == sorted([name, str(step)] for name in MEMBERS[:3] for step in range(1, 17))
    wait_until(lambda: not sweeps.machines())  # all are given back
    (refused, first, second) = sweeps.calls("create")
    assert first[:4] == ["compute", "tpus", "queued-resources", "create"]
    name = first[4]
    assert first[5:7] == ["--zone=us-west4-a", f"--node-id={name}"]
    assert {"--accelerator-type=v5litepod-8", "--runtime-version=tpu-ubuntu2204-base", "--async", "--quiet"} <= set(first)
    assert refused[4] == name  # nothing was taken under it
    assert second[4] != name
    assert len(name) <= 63
    bucket = sweeps.cloud / "buckets/b/sweeps"
    (code,) = bucket.glob("code-*.tar")
    with tarfile.open(code) as archive:
        assert {"launch/worker.py", "vit_attn/main.py", "requirements-tpu.txt"} <= set(archive.getnames())
    assert json.loads((sweeps.bucket / "softmax_p7_seed0/status.json").read_text())["state"] == "done"
    assert (sweeps.workdir / "logs/relu_p7.log").read_text().startswith("$ ")
    assert sweeps.finish()
    assert len(sweeps.calls("create")) == 3


def test_a_preempted_machine_is_asked_for_again(sweeps):
    sweeps.environment["STAND_IN_STEP_SECONDS"] = "0.3"
    launcher = sweeps.start(*BACKEND, config=sweeps.config(TWO))
    wait_until(lambda: RunDir(sweeps.bucket / MEMBERS[0]).status().step > 3, 30)
    name = sweeps.names()["softmax_p7"]
    file = sweeps.cloud / "vms" / f"{name}.json"
    resource = json.loads(file.read_text())
    kill(resource["pid"])
    resource["state"] = {"state": "SUSPENDED", "stateInitiator": "SERVICE"}
    file.write_text(json.dumps(resource))
    out, err = launcher.communicate(timeout=90)
    assert launcher.returncode == 0, out + err
    assert "pack softmax_p7: interrupted by the cluster; it is queued again" in out
    assert set(states(sweeps).values()) == {"done"}
    assert sweeps.names()["softmax_p7"] != name
    assert sweeps.starts().count(MEMBERS[:1]) == 2
    assert (
        sweeps.steps().count([MEMBERS[0], "1"]) == 1
    )  # the second machine went on from what the first had put into the bucket
    assert not sweeps.vm(f"{name}.json").exists()


def test_what_is_not_found_is_one_line(sweeps):
    sweeps.say("create", 9, "NOT_FOUND: Accelerator type 'v5litepod-8' is not found in us-west4-a")
    err = sweeps.finish(code=2)
    assert "NOT_FOUND: Accelerator type 'v5litepod-8'" in err
    assert len(err.splitlines()) == 1


def test_a_killed_launcher_finds_its_machines_again(sweeps):
    sweeps.environment["STAND_IN_STEP_SECONDS"] = "0.7"
    launcher = sweeps.start(*BACKEND, config=sweeps.config(TWO))
    wait_until(lambda: len(sweeps.starts()) == 2, 120)
    launcher.kill()
    launcher.wait()
    for file in sweeps.workdir.glob("submissions/*.json"):  # as if it had been killed before it wrote down the answer
        file.write_text(json.dumps({**json.loads(file.read_text()), "ids": None}))
    out = sweeps.finish()
    assert out.count("at work already") == 2
    assert set(states(sweeps).values()) == {"done"}
    assert len(sweeps.calls("create")) == 2


@pytest.mark.parametrize("lists", [0, 1])  # whether the list fails too
def test_a_machine_whose_answer_is_lost_is_not_asked_for_twice(sweeps, lists):
    sweeps.environment["STAND_IN_STEP_SECONDS"] = "0.6"
    sweeps.lose("create", 1, "DEADLINE_EXCEEDED: timed out")
    sweeps.say("list", lists, "HttpError 503: The service is currently UNAVAILABLE")
    sweeps.finish()
    assert sorted(sweeps.steps()) == sorted([name, str(step)] for name in MEMBERS[:3] for step in range(1, 17))
    assert len({words[4] for words in sweeps.calls("create")}) == 2
    wait_until(lambda: not sweeps.machines())


def test_a_directory_made_anew_takes_nothing_from_the_bucket(sweeps):
    sweeps.finish()
    steps = sweeps.steps()
    shutil.rmtree(sweeps.workdir)
    sweeps.finish("--config.train.peak_lr=0.5")
    assert len(sweeps.steps()) == 2 * len(steps)


def test_a_stopped_sweep_gives_its_machines_back(sweeps):
    sweeps.environment["STAND_IN_STEP_SECONDS"] = "0.5"
    launcher = sweeps.start(*BACKEND, config=sweeps.config(TWO))
    wait_until(lambda: len(sweeps.starts()) == 2, 120)
    launcher.terminate()
    out, err = launcher.communicate(timeout=200)
    assert launcher.returncode == 3, out + err
    assert set(states(sweeps).values()) == {"stopped"}
    wait_until(lambda: not sweeps.machines())
    sweeps.environment["STAND_IN_STEP_SECONDS"] = "0.01"
    sweeps.finish()
    assert set(states(sweeps).values()) == {"done"}


def test_dry_run_says_what_would_be_called_and_calls_nothing(sweeps):
    out = sweeps.finish("--dry-run")
    creates = [line for line in out.splitlines() if line.startswith("gcloud compute tpus queued-resources create vit-w-")]
    assert len(creates) == 2
    assert all("--accelerator-type=v5litepod-8" in line for line in creates)
    script = out[out.index("#!/bin/bash") : out.index("# pack relu_p7")]
    assert "PACK=softmax_p7\n" in script
    assert "MEMBERS=(softmax_p7_seed0)\n" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert not (sweeps.cloud / "calls").exists()
    assert not sweeps.workdir.exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--backend", "tpu-vm:zone=z,type=t"], "bucket is missing"),
        (["--backend", "tpu-vm:zone=z,type=t,bucket=/disk"], "must be gs://BUCKET/FOLDER"),
        (["--backend", "tpu-vm:zone=z,type=t,bucket=gs://b/s,spto=true"], "did you mean 'spot'?"),
        (["--backend", "tpu-vm:zone=z,type=t,bucket=gs://b/s,spot=yes"], "spot='yes' must be true or false"),
        (["--backend", "tpu-vm:zone=z,type=t,bucket=gs://b/s"], "--config.loop.ckpt_dir=gs://b/s/checkpoints/{name}"),
    ],
)
def test_bad_input_is_one_line(sweeps, flags, told):
    for dry in ([], ["--dry-run"]):
        code, _, err = sweeps.run(*flags, *dry)
        assert code == 2
        assert told in err
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("backend", "told"),
    [
        ("slurm", "there is no program 'sbatch' here: install Slurm's client"),
        ("tpu-vm:zone=z,type=t,bucket=gs://b/s", "there is no program 'gcloud' here: install the Google Cloud CLI"),
        ("gke:image=i,claim=c,mount=/", "there is no program 'kubectl' here: install kubectl"),
    ],
)
def test_a_missing_program_is_named_with_its_package(sweeps, backend, told):
    sweeps.environment["PATH"] = str(Path(sweeps.folder, "empty"))
    code, _, err = sweeps.run("--backend", backend, CKPT)
    assert code == 2
    assert told in err
    assert len(err.splitlines()) == 1
    assert not sweeps.workdir.exists()
