"""Asks all workers of a sweep, wherever they are, to save and to end, and waits until they have.

python -m launch.stop runs/grid

Jobs that wait in a cluster's queue leave it. The command that launched the sweep goes on with it. Where there is neither a
launcher nor a job, nobody is waited for: members that still call themselves running are named. Exit code: 0.
"""

import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from launch.backends import BACKENDS
from launch.backends.job import BusyError, Job, task_of
from launch.launcher import SHOW_SECONDS
from launch.place import last_place
from launch.progress import Watch
from launch.sweep_dir import SweepDir, all_finished, some
from launch.table import summary
from vit_attn.report.table import wide_console
from vit_attn.spec.errors import RunError, UserError, exit_code_of
from vit_attn.spec.flags import Flags
from vit_attn.store.run_dir import RunDir


def main(argv: Sequence[str]) -> int:
    """The command line. Raises UserError where no sweep lives."""
    parser = Flags("launch.stop", __doc__)
    parser.add_argument("workdir", type=Path, help="the --workdir of python -m launch.sweep")
    parser.add_argument("--no-wait", action="store_true", help="ask, and end")
    flags = parser.parse_args(argv)
    sweep, console = SweepDir(flags.workdir), wide_console()
    watch = Watch(sweep.path)
    sweep.stop_file.touch()
    launched = sweep.at_work()
    console.print("asked all workers to save and to end" + (", through their launcher" if launched else ""), highlight=False)
    jobs = {} if launched else _ask_cluster(sweep)
    while not flags.no_wait:
        jobs = {pack: job for pack, job in jobs.items() if job.poll() is None}
        if not jobs and not sweep.at_work() and not _alive_here(watch.packs):
            break
        time.sleep(SHOW_SECONDS)
    members = watch.look()
    console.print(summary(members), highlight=False)
    running = [member.name for member in members if member.state == "running"]
    if running and not flags.no_wait:
        words = f"no job is known, but these members call themselves running: {some(running)}"
        console.print(words, markup=False, highlight=False, soft_wrap=True)
    return 0


def _ask_cluster(sweep: SweepDir) -> dict[str, Job]:
    """Without a launcher: the jobs that one has left in a cluster's queue, asked to end. On this machine there are none."""
    packs = {name: runs for name, runs in sweep.packs().items() if not all_finished(runs)}
    tasks = [task_of(sweep, name, runs) for name, runs in packs.items()]
    backend = last_place(sweep).open(sweep, len(packs), BACKENDS)
    try:
        jobs = backend.attach(tasks)
        for job in jobs.values():
            job.stop()
    except BusyError as busy:
        raise RunError(f"{busy}; {_told_all_the_same(sweep)}") from busy
    except UserError as error:
        raise UserError(f"{error}; {_told_all_the_same(sweep)}") from error
    return jobs


def _told_all_the_same(sweep: SweepDir) -> str:
    return f"workers that see {sweep.stop_file} save and end all the same"


def _alive_here(packs: Mapping[str, list[RunDir]]) -> bool:
    """Whether a worker of this machine is still at it: one whose launcher was killed ends by itself, once it has saved."""
    statuses = [run.status() for runs in packs.values() for run in runs]
    return any(status.host == socket.gethostname() and status.alive() for status in statuses)


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:])))
