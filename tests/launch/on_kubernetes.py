"""Sweeps on a kubectl whose pods are processes of this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress

from sweep_runs import MEMBERS, ROOT, SWEEP, Sweeps

from launch.submissions import Submissions
from vit_attn.store.run_dir import RunDir

TWO = SWEEP.replace('("relu", "relu2")', '("relu",)')  # two packs


class OnKubernetes(Sweeps):
    @property
    def cluster(self):
        return self.folder / "cluster"

    def backend(self, more=""):
        return ("--backend", f"gke:image=repo/vit:1,claim=sweeps,mount={self.folder}{more}")

    def calls(self, verb):
        lines = (self.cluster / "calls").read_text().splitlines() if (self.cluster / "calls").exists() else []
        return [words for words in map(json.loads, lines) if words[1] == verb]

    def say(self, verb, times, text):
        (self.cluster / f"say_{verb}").write_text(json.dumps([times, text]))

    def pods(self, pack):
        name = Submissions(self.workdir).newest_of_packs()[pack].ids[pack]
        return json.loads((self.cluster / f"{name}.pids").read_text())

    def lose(self, verb, times, text):
        """The answer, not what was asked for."""
        (self.cluster / f"lose_{verb}").write_text(json.dumps([times, text]))

    def jobsets(self):
        return sorted(file.stem for file in self.cluster.glob("vit-*.json"))

    def launch(self, module, *flags, program=None):
        """python -m launch.MODULE, or a program of the tests instead."""
        command = [str(ROOT / "tests/launch" / program)] if program else ["-m", f"launch.{module}"]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "STAND_IN_NOTES": str(self.folder), **self.environment}
        return subprocess.run(
            [sys.executable, *command, str(self.workdir), *flags],
            cwd=ROOT, env=env, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip

    def begin(self, *flags):
        return self.start(*self.backend(), *flags, config=self.config(TWO))

    def finish(self, *flags, code=0, process=None):
        process = process or self.begin(*flags)
        out, err = process.communicate(timeout=90)
        assert process.returncode == code, out + err
        return out if code != 2 else err

    def states(self):
        return {name: RunDir(self.workdir / name).status().state for name in MEMBERS[:3]}

    def assert_each_step_once(self):
        assert set(self.states().values()) == {"done"}
        assert sorted(self.steps()) == sorted([name, str(step)] for name in MEMBERS[:3] for step in range(1, 17))


@contextmanager
def on_kubernetes(tmp_path):
    """A folder with a kubectl of its own; no pod outlives it."""
    made = OnKubernetes(tmp_path)
    made.cluster.mkdir()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("drive_worker.py", "stand_in_worker.py", "fake_kubectl.py"):
        shutil.copy(ROOT / "tests/launch" / name, programs)
    (programs / "kubectl").write_text(f'#!/bin/bash\nexec {sys.executable} {programs}/fake_kubectl.py "$@"\n')
    (programs / "kubectl").chmod(0o755)
    made.environment = {"PATH": f"{programs}:{os.environ['PATH']}", "FAKE_CLUSTER": str(made.cluster)}
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
    for file in made.cluster.glob("*.json"):
        file.unlink()
    for file in made.cluster.glob("*.pids"):
        for pid in json.loads(file.read_text()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
