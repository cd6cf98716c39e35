"""Slurm, through submitit: a submission is one array job, with a task a pack; a last job waits for it and writes the report."""

import getpass
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from launch.backends.cluster import Cluster, State
from launch.backends.job import BusyError, Task
from launch.backends.program import call, need, refusal
from launch.submissions import Submission
from launch.sweep_dir import SweepDir
from launch.worker import COMMAND, Worker
from vit_attn.spec.errors import UserError
from vit_attn.spec.run import RunSpec

ROOT = Path(__file__).resolve().parents[2]  # where the packages lie
BUSY = "unable to contact|timed out|timeout|connection|temporarily|try again|limit|unexpected message|backup controller"
OVER = {
    **dict.fromkeys(("PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "TIMEOUT", "DEADLINE"), State.TAKEN),
    "CANCELLED": State.CANCELLED,
    **dict.fromkeys(("COMPLETED", "FAILED", "OUT_OF_MEMORY"), State.OVER),
}
FOREVER = 10**6  # how often submitit puts a job back that has reached its time limit


@dataclass(frozen=True)
class SlurmOptions:
    """What a pack asks for; 0 and "" leave it to the cluster. `time_min`: minutes until a job saves and queues again.

    `save_s`: seconds before that, when it is told. `sbatch`: other flags of sbatch, such as "mem=64G constraint=a100".
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    time_min: int = 1440
    save_s: int = 180
    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int = 0
    cpus_per_task: int = 0
    gres: str = ""
    sbatch: str = ""
    report: bool = True

    def parameters(self) -> dict[str, Any]:
        """As submitit's executor names them."""
        named = {key: getattr(self, key) for key in ("partition", "account", "qos", "gpus_per_node", "cpus_per_task", "gres")}
        more = dict(item.removeprefix("--").partition("=")[::2] for item in self.sbatch.split())
        return {
            **{key: value for key, value in named.items() if value},
            **{
                "time": self.time_min,
                "signal_delay_s": self.save_s,
                "nodes": self.nodes,
                "ntasks_per_node": self.tasks_per_node,
            },
            "additional_parameters": {"requeue": True, **{key: value or True for key, value in more.items()}},
        }


class Slurm(Cluster):
    kind = "slurm"
    programs = ("sbatch", "squeue", "scancel")

    def __init__(
        self, sweep: SweepDir, max_parallel: int | None, options: SlurmOptions, command: Sequence[str] = COMMAND
    ) -> None:
        """Raises UserError where Slurm's programs or submitit are missing."""
        need(*self.programs)
        try:
            import submitit
        except ImportError:
            raise UserError("--backend=slurm needs submitit: pip install submitit") from None
        super().__init__(sweep)
        self.submitit, self.max_parallel, self.options, self.command = submitit, max_parallel, options, tuple(command)

    def check(self, runs: Mapping[Path, RunSpec]) -> None:
        """What could be missing was looked for at the start: a dry run needs it too."""

    def dry_run(self, tasks: Sequence[Task], say: Callable[[str], None]) -> None:
        executor = self._executor(**self._parameters(self.submissions.next(self.kind, []).name))
        if len(tasks) > 1:
            executor.parameters["map_count"] = len(tasks)  # as submitit does for arrays
        say("what sbatch would be given, a task for each pack in the order above:")
        say(executor._make_submission_file_text(executor._submitit_command_str, "UID"))

    def send(self, submission: Submission, tasks: Sequence[Task]) -> dict[str, str]:
        workers = [Worker(self.sweep.path.absolute(), task.pack, submission.name, self.command) for task in tasks]
        executor = self._executor(**self._parameters(submission.name))
        jobs = self._refusals_sorted(lambda: executor.submit_array(workers))
        ids = {task.pack: job.job_id for task, job in zip(tasks, jobs, strict=True)}
        if self.options.report:
            with suppress(BusyError, UserError):  # the packs are queued, and the launcher writes the report too
                self._submit_report(next(iter(ids.values())).partition("_")[0], submission)
        return ids

    def find(self, submission: Submission) -> dict[str, str]:
        rows = self._queue("--name", submission.name)
        indices = {job: int(job.partition("_")[2] or 0) for job in rows}
        return {submission.packs[index]: job for job, index in indices.items()}

    def listed(self) -> dict[str, State]:
        return {job: OVER.get(state, State.HERE) for job, state in self._queue("--user", getpass.getuser()).items()}

    def cancel(self, job: str) -> None:
        """A running one gets a signal only, for scancel alone would leave it no more than Slurm's KillWait to save."""
        for flags in (["--state=PENDING"], ["--signal=TERM", "--state=RUNNING"]):
            subprocess.run(["scancel", "--quiet", *flags, job], capture_output=True, check=False, timeout=60)

    def words(self, job: str) -> str:
        files = [self._folder / f"{job}_0_log.{kind}" for kind in ("out", "err")]
        text = "\n".join(file.read_text(errors="replace").rstrip() for file in files if file.exists())
        return "\n".join(text.splitlines()[-5:])

    def _queue(self, *flags: str) -> dict[str, str]:
        """{"12_3": "RUNNING"}, with the jobs that ended in the last minutes (Slurm's MinJobAge)."""
        command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T", *flags]
        try:
            rows = call(command, BUSY).splitlines()
        except UserError as error:
            raise BusyError(str(error)) from error
        return {job: state for job, _, state in (row.strip().partition("|") for row in rows) if state}

    @property
    def _folder(self) -> Path:
        return self.sweep.path.absolute() / "slurm"

    def _parameters(self, name: str) -> dict[str, Any]:
        parallel = {"array_parallelism": self.max_parallel} if self.max_parallel else {}
        return {**self.options.parameters(), **parallel, "job_name": name}

    def _executor(self, **parameters: Any) -> Any:
        executor = self.submitit.SlurmExecutor(folder=self._folder, max_num_timeout=FOREVER)
        executor.update_parameters(setup=[f"export PYTHONPATH={shlex.quote(str(ROOT))}:$PYTHONPATH"], **parameters)
        return executor

    def _submit_report(self, array: str, submission: Submission) -> None:
        """afterany: also where packs have failed, for a report says what is missing. It is written over by later ones."""
        options = {key: value for key, value in self.options.parameters().items() if key in ("partition", "account", "qos")}
        executor = self._executor(**options, time=30, dependency=f"afterany:{array}", job_name=f"{submission.name}-report")
        command = [sys.executable, "-m", "vit_attn.report", str(self.sweep.path.absolute())]
        self._refusals_sorted(lambda: executor.submit(self.submitit.helpers.CommandFunction(command)))

    def _refusals_sorted(self, submit: Callable[[], Any]) -> Any:
        try:
            with redirect_stderr(StringIO()):  # submitit prints what it raises
                return submit()
        except self.submitit.core.utils.FailedJobError as error:
            raise refusal("sbatch", str(error), BUSY) from error
