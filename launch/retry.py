"""Gives members of a sweep that failed another go, where the sweep was launched last; the others are left alone.

python -m launch.retry runs/grid --failed
python -m launch.retry runs/grid --failed --backend slurm:partition=long

Exit codes: as those of launch.sweep.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from launch.backends import BACKENDS, Site
from launch.backends.job import Backend
from launch.halving import file_of
from launch.launcher import DONE, STOPPED, Stage, launch
from launch.place import Place, check_elsewhere, last_place
from launch.sweep_dir import SweepDir, all_finished
from vit_attn.report.table import wide_console
from vit_attn.spec.errors import UserError, exit_code_of
from vit_attn.spec.flags import Flags
from vit_attn.store.run_dir import FINISHED, RunDir


def main(argv: Sequence[str], backends: Mapping[str, Callable[[Site], Backend]] = BACKENDS) -> int:
    """The command line. Raises UserError where no sweep lives, or a launcher is at work that would fight over the packs."""
    parser = Flags("launch.retry", __doc__)
    parser.add_argument("workdir", type=Path, help="the --workdir of python -m launch.sweep")
    parser.add_argument("--failed", action="store_true", help="the members that failed: all that can be retried so far")
    parser.add_argument("--backend", metavar="NAME[:KEY=VALUE,...]", help="another place than the last one")
    parser.add_argument("--max-parallel", type=int, metavar="N", help="packs at a time")
    flags = parser.parse_args(argv)
    if not flags.failed:
        raise UserError("say which members: --failed")
    sweep, console = SweepDir(flags.workdir), wide_console()
    if file_of(sweep).exists():
        raise UserError(f"{sweep.path} is halved, and its members are ranked together: the launch.sweep command retries them")
    failed = _failed(sweep)
    if not failed:
        console.print("no member has failed", highlight=False)
        return DONE
    place = last_place(sweep)
    if flags.backend:
        place = Place(flags.backend)
    if flags.max_parallel is not None:
        if flags.max_parallel < 1:
            raise UserError(f"--max-parallel={flags.max_parallel} must be at least 1")
        place = dataclasses.replace(place, max_parallel=flags.max_parallel)
    place.check(sweep, failed, backends)  # what is missing shows now
    with sweep.locked():
        check_elsewhere(sweep, place, backends)
        with place.recorded(sweep):
            code = launch(sweep, [Stage([], failed)], lambda todo: place.open(sweep, todo, backends), console)
    if code == DONE and not all(all_finished(runs) for runs in sweep.packs().values()):
        console.print("Other members are unfinished: the launch.sweep command goes on with them.", highlight=False)
        return STOPPED
    return code


def _failed(sweep: SweepDir) -> dict[str, list[RunDir]]:
    """Packs with a member that failed; of them, what is unfinished."""
    packs = {name: {run: run.status().state for run in runs} for name, runs in sweep.packs().items()}
    with_failed = {name: states for name, states in packs.items() if "failed" in states.values()}
    return {name: [run for run, state in states.items() if state not in FINISHED] for name, states in with_failed.items()}


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:])))
