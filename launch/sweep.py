"""Trains every member of a sweep. Run the same command again to finish what is missing; nothing is repeated.

    python -m launch.sweep --config configs/sweeps/quickstart_alpha.py --workdir runs/grid
    python -m launch.sweep --config configs/sweeps/quickstart_alpha.py:seed=1 --workdir runs/seed1 --max-parallel 2 \\
        --config.train.steps=500
    python -m launch.sweep --config configs/sweeps/quickstart_alpha.py --workdir runs/grid --backend slurm:partition=gpu,nodes=2

--dry-run prints members by pack, steps, core-hours (see --device, --mfu, --step-ms) and storage; more than --ask-above
core-hours are not started unasked. --pack and --devices-per-pack say how members share processes and devices;
--halve-at 0.25,0.5 --metric val/accuracy gives up the worse half of them at those shares of the steps.

--config.KEY=VALUE overrides a setting of every member. Exit codes: 0 all members are finished (one that diverged is a
result), 1 a pack failed twice, 2 bad input, 3 stopped by a signal or launch.stop after the workers saved. On a cluster, jobs go
on without a launcher; the same command finds them again. A second launcher shows what the first one does.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from launch.backends import BACKENDS, Site
from launch.backends.job import Backend, Task, task_of
from launch.backends.program import MissingError
from launch.grid import Grid, load_grid
from launch.launcher import DONE, launch
from launch.place import Place, check_elsewhere
from launch.prepare import confirm_members, prepare
from launch.sweep_dir import AtWorkError, SweepDir
from launch.sweep_flags import add_plan_flags
from launch.watching import watch_other
from vit_attn.report.table import wide_console
from vit_attn.spec.errors import RunError, UserError, exit_code_of
from vit_attn.spec.flags import Flags
from vit_attn.spec.load import split_overrides
from vit_attn.store.run_dir import RunDir


def main(argv: Sequence[str], backends: Mapping[str, Callable[[Site], Backend]] = BACKENDS) -> int:
    """The command line. Returns the exit code; raises UserError for bad input, before anything is created."""
    rest, overrides = split_overrides(argv)
    flags = _flags(backends).parse_args(rest)
    if flags.max_parallel is not None and flags.max_parallel < 1:
        raise UserError(f"--max-parallel={flags.max_parallel} must be at least 1")
    if str(flags.workdir) == ".":
        raise UserError("--workdir is empty or '.': a sweep needs a directory of its own, for example --workdir runs/grid")
    if not flags.ask_above >= 0:
        raise UserError(f"--ask-above={flags.ask_above} must be a number of core-hours, at least 0")
    grid = load_grid(flags.config, overrides, lambda members: confirm_members(members, flags.yes))
    sweep, console = SweepDir(flags.workdir), wide_console()
    sweep.check(grid)
    if not flags.dry_run and sweep.path.exists() and sweep.at_work():
        return watch_other(sweep, console)
    place = Place(flags.backend, flags.max_parallel)
    backend = place.open(sweep, len(grid.packs), backends)
    if backend.sees_files:
        _check_data(grid)
    prepared = prepare(grid, sweep, flags, place, console)
    tasks = _tasks(sweep, prepared.packed)
    runs = {sweep.path / member.name: member.spec for member in grid.members}
    if flags.dry_run:
        prepared.print(console, flags.ask_above)
        backend.dry_run(tasks, lambda words: print(words, file=console.file))
        try:
            backend.check(runs)
        except MissingError as error:  # it may be there where the sweep will be launched
            console.print(f"a start from here would end: {error}", markup=False, highlight=False, soft_wrap=True)
        return DONE
    prepared.confirm_cost(flags.ask_above, flags.yes)
    backend.check(runs)
    try:
        with sweep.locked():
            sweep.check(grid)  # again, for a launcher that was here a moment ago
            check_elsewhere(sweep, place, backends, tasks)
            sweep.create(prepared.packed)
            prepared.remember(sweep)
            place = prepared.place(place)
            with place.recorded(sweep):
                return launch(sweep, prepared.stages(sweep), lambda todo: place.open(sweep, todo, backends), console)
    except AtWorkError:
        return watch_other(sweep, console)
    except OSError as error:
        raise RunError(f"{error}; make room, and the same command goes on") from error


def _flags(backends: Mapping[str, object]) -> argparse.ArgumentParser:
    flags = Flags("launch.sweep", __doc__)
    flags.add_argument("--config", required=True, metavar="FILE[:ARG]", help="a Python file that defines get_sweep(arg)")
    flags.add_argument("--workdir", required=True, type=Path, help="the sweep's directory: a run directory a member, and logs")
    flags.add_argument(
        "--backend", default="local", metavar="NAME[:KEY=VALUE,...]", help=f"where packs are trained: {', '.join(backends)}"
    )
    flags.add_argument(
        "--max-parallel", type=int, metavar="N", help="packs at a time (default: 1; on accelerators auto; in a queue all)"
    )
    flags.add_argument("--dry-run", action="store_true", help="print packs, members and costs, check everything, and end")
    add_plan_flags(flags)
    return flags


def _check_data(grid: Grid) -> None:
    """Opens every split that a member will read. Raises UserError for one that is not there."""
    from vit_attn.data.sources.open import open_source  # half a second, which --help need not wait for

    splits = {
        (member.spec.data.split(split), member.spec.model.num_classes)
        for member in grid.members
        for split in (member.spec.data.train_split, member.spec.eval.split)
    }
    for data, num_classes in splits:
        open_source(data, num_classes)


def _tasks(sweep: SweepDir, grid: Grid) -> list[Task]:
    return [task_of(sweep, pack.name, [RunDir(sweep.path / member.name) for member in pack.members]) for pack in grid.packs]


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:])))
