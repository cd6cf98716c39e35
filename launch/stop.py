"""Asks all workers of a sweep, wherever they are, to save and to end, and waits until they have.

python -m launch.stop runs/grid

Jobs that wait in a cluster's queue leave it. The command that launched the sweep goes on with it. Exit code: 0.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from launch.backends import BACKENDS
from launch.backends.job import BusyError, Job, Task
from launch.launcher import SHOW_SECONDS
from launch.place import last_place
from launch.progress import Watch
from launch.sweep_dir import SweepDir, all_finished
from launch.table import summary
from vit_attn.report.table import wide_console
from vit_attn.spec.errors import RunError, exit_code_of
from vit_attn.spec.flags import Flags


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
        members = watch.look()
        if not jobs and not sweep.at_work() and not any(member.state == "running" for member in members):
            break
        time.sleep(SHOW_SECONDS)
    console.print(summary(watch.look()), highlight=False)
    return 0


def _ask_cluster(sweep: SweepDir) -> dict[str, Job]:
    """Without a launcher: the jobs that one has left in a cluster's queue, asked to end. On this machine there are none."""
    packs = {name: runs for name, runs in sweep.packs().items() if not all_finished(runs)}
    tasks = [Task(name, tuple(run.path for run in runs), sweep.log(name)) for name, runs in packs.items()]
    backend = last_place(sweep).open(sweep, len(packs), BACKENDS)
    try:
        jobs = backend.attach(tasks)
    except BusyError as busy:
        raise RunError(f"{busy}; workers will see {sweep.stop_file} all the same") from busy
    for job in jobs.values():
        job.stop()
    return jobs


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:])))
