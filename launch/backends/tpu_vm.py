"""Cloud TPU VMs: a queued resource a pack, through gcloud. Machines come and go; what they know is kept in a bucket.

bucket/code-HASH.tar        this package, as it is here            bucket/SWEEP-ID/  small files of the sweep, but for
bucket/checkpoints/ ...     config.loop.ckpt_dir, the user's own                     checkpoints: written by the machines
"""

import json
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.backends.cluster import Cluster, State
from launch.backends.job import BusyError, Task
from launch.backends.mirror import Mirror
from launch.backends.program import call, need
from launch.submissions import Submission
from launch.sweep_dir import SweepDir
from vit_attn.spec.errors import UserError
from vit_attn.spec.run import RunSpec
from vit_attn.store.place import place_of

BUSY = (
    "quota|RESOURCE_EXHAUSTED|UNAVAILABLE|DEADLINE_EXCEEDED|INTERNAL|ABORTED|timed? ?out|timeout|connection|network|"
    "unable to find the server|name resolution|HttpError 5|HTTPError 5|try again|429|stockout|no more capacity"
)
ALREADY = "ALREADY_EXISTS"
TAKEN = ("SUSPENDING", "SUSPENDED")
SCRIPT = Path(__file__).with_name("tpu_vm_startup.sh")


@dataclass(frozen=True)
class TpuVmOptions:
    """`type` as gcloud's --accelerator-type, such as v5litepod-8; `bucket`: gs://BUCKET/FOLDER, a folder for all sweeps."""

    zone: str
    type: str
    bucket: str
    runtime: str = "tpu-ubuntu2204-base"
    project: str = ""
    spot: bool = False
    service_account: str = ""


class TpuVm(Cluster):
    kind = "tpu-vm"
    programs = ("gcloud",)
    sees_files = False
    keeps_machines = True
    look_seconds = 30.0

    def __init__(self, sweep: SweepDir, max_parallel: int | None, options: TpuVmOptions) -> None:
        """Raises UserError for what cannot be."""
        if not options.bucket.startswith("gs://"):
            raise UserError(f"--backend=tpu-vm: bucket={options.bucket!r} must be gs://BUCKET/FOLDER")
        if max_parallel is not None:
            raise UserError("--max-parallel is not for tpu-vm: how many machines there are is your project's quota")
        super().__init__(sweep)
        self.options, self.mirror = options, Mirror(sweep, options.bucket, BUSY)

    def check(self, runs: Mapping[Path, RunSpec]) -> None:
        for path, spec in runs.items():
            if not place_of(path, spec.loop).remote:
                raise UserError(
                    f"{path.name}: the disk of a TPU VM is lost with it: save in a bucket, "
                    f"--config.loop.ckpt_dir={self.options.bucket}/checkpoints/{{name}}"
                )
        need(*self.programs)

    def dry_run(self, tasks: Sequence[Task], say: Callable[[str], None]) -> None:
        submission = self.submissions.next(self.kind, [task.pack for task in tasks])
        for task in tasks:
            name = _names(submission)[task.pack]
            say(f"# pack {task.pack}\n{shlex.join(self._create(name, Path(f'{name}.sh')))}")
            say(f"# {name}.sh\n{self._script(task.pack, submission.name, name, [run.name for run in task.runs])}")

    def send(self, submission: Submission, tasks: Sequence[Task]) -> dict[str, str]:
        """As many as are taken: those that a quota refuses go into the next submission."""
        self.mirror.push([run for task in tasks for run in task.runs])
        names = _names(submission)
        with tempfile.TemporaryDirectory() as folder:
            for task in tasks:
                script = Path(folder, f"{names[task.pack]}.sh")
                script.write_text(self._script(task.pack, submission.name, names[task.pack], [run.name for run in task.runs]))
                try:
                    call(self._create(names[task.pack], script), BUSY)
                except BusyError:
                    with suppress(BusyError):  # then the launcher looks before it asks again
                        if ids := self.find(submission):  # also the one whose answer was lost
                            return ids
                    raise
                except UserError as error:
                    if ALREADY not in str(error):  # no other sweep has its name: an answer was lost
                        raise
        return names

    def find(self, submission: Submission) -> dict[str, str]:
        there = self._resources()
        return {pack: name for pack, name in _names(submission).items() if name in there}

    def listed(self) -> dict[str, State]:
        self.mirror.pull()
        return {name: _state(resource) for name, resource in self._resources().items()}

    def cancel(self, job: str) -> None:
        """A machine looks for `stop` in the bucket, saves and ends. One that waits in the queue is deleted."""
        self.mirror.push_stop()
        if self._resources().get(job, {}).get("state", {}).get("state") not in ("ACTIVE", None):
            self.release(job)

    def release(self, job: str) -> None:
        """Deletes the machines. They delete themselves too; whoever comes second finds nothing."""
        words = [*self._gcloud("delete", job), "--force", "--async", "--quiet"]
        with suppress(BusyError, UserError):  # it is gone already, or the machine itself does it
            call(words, BUSY)

    def _resources(self) -> dict[str, Any]:
        try:
            found = json.loads(call([*self._gcloud("list"), "--format=json"], BUSY) or "[]")
        except (UserError, ValueError) as error:
            raise BusyError(str(error)) from error
        return {resource["name"].rpartition("/")[2]: resource for resource in found}

    def _gcloud(self, *words: str) -> list[str]:
        project = [f"--project={self.options.project}"] if self.options.project else []
        return ["gcloud", "compute", "tpus", "queued-resources", *words, f"--zone={self.options.zone}", *project]

    def _create(self, name: str, script: Path) -> list[str]:
        options = self.options
        return [
            *self._gcloud("create", name),
            f"--node-id={name}",
            f"--accelerator-type={options.type}",
            f"--runtime-version={options.runtime}",
            f"--metadata-from-file=startup-script={script}",
            "--scopes=https://www.googleapis.com/auth/cloud-platform",
            *(["--spot"] if options.spot else []),
            *([f"--service-account={options.service_account}"] if options.service_account else []),
            "--async",
            "--quiet",
        ]

    def _script(self, pack: str, submission: str, name: str, members: list[str]) -> str:
        """The script that each host runs at each boot, with its words set."""
        words = {
            "SWEEP": self.sweep.path.absolute().name,
            "PACK": pack,
            "SUBMISSION": submission,
            "RESOURCE": name,
            "MIRROR": self.mirror.url,
            "CODE": self.mirror.code_url,
            "ZONE": self.options.zone,
        }
        lines = [f"{key}={shlex.quote(value)}" for key, value in words.items()]
        lines.append(f"MEMBERS=({' '.join(map(shlex.quote, members))})")
        return SCRIPT.read_text().replace("# SETTINGS\n", "\n".join(lines) + "\n")


def _names(submission: Submission) -> dict[str, str]:
    """Of each pack's queued resource: at most 63 letters."""
    return {pack: f"{submission.name}-{index}" for index, pack in enumerate(submission.packs)}


def _state(resource: dict[str, Any]) -> State:
    state = resource.get("state", {})
    if state.get("state") in TAKEN:
        return State.CANCELLED if state.get("stateInitiator") == "USER" else State.TAKEN
    return State.OVER if state.get("state") == "FAILED" else State.HERE
