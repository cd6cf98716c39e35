"""Gives members of a sweep that failed another go, where the sweep was launched last; the others are left alone.

python -m launch.retry runs/grid --failed
python -m launch.retry runs/grid --failed --backend slurm:partition=long

Exit codes: as those of launch.sweep.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from launch.backends import BACKENDS, Site
from launch.backends.job import Backend
from launch.launcher import DONE, Stage, launch
from launch.place import Place, check_elsewhere, last_place
from launch.sweep_dir import SweepDir
from vit_attn.report.table import wide_console
from vit_attn.spec.errors import UserError, exit_code_of
from vit_attn.spec.flags import Flags


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
    failed = {name: runs for name, runs in sweep.packs().items() if any(run.status().state == "failed" for run in runs)}
    if not failed:
        console.print("no member has failed", highlight=False)
        return DONE
    place = last_place(sweep)
    if flags.backend or flags.max_parallel:
        place = Place(flags.backend or place.backend, flags.max_parallel)
    place.check(sweep, failed, backends)  # what is missing shows now
    with sweep.locked():
        check_elsewhere(sweep, place, backends)
        with place.recorded(sweep):
            return launch(sweep, [Stage([], failed)], lambda todo: place.open(sweep, todo, backends), console)


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:])))
