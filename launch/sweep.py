"""Trains every member of a sweep. Run the same command again to finish what is missing; nothing is repeated.

    python -m launch.sweep --config configs/sweeps/quickstart_alpha.py --workdir runs/grid
    python -m launch.sweep --config configs/sweeps/quickstart_alpha.py:seed=1 --workdir runs/seed1 --max-parallel 2 \\
        --config.train.steps=500

--dry-run prints members by pack, steps, core-hours (see --device, --mfu, --step-ms) and storage; more than --ask-above
core-hours are not started unasked. --pack and --devices-per-pack say how members share processes and devices;
--halve-at 0.25,0.5 --metric val/accuracy gives up the worse half of them at those shares of the steps.

--config.KEY=VALUE overrides a setting of every member. Exit codes: 0 all members are finished (one that diverged is a
result), 1 a pack failed twice, 2 bad input, 3 stopped by a signal after the workers saved.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals, signal

from rich.console import Console

from launch.backends import BACKENDS
from launch.backends.job import Backend
from launch.display import Display, display
from launch.grid import Grid, load_grid
from launch.prepare import Prepared, confirm_members, prepare
from launch.progress import Watch, mark_starting
from launch.schedule import Schedule
from launch.sweep_dir import SweepDir, all_finished
from launch.sweep_flags import add_plan_flags
from vit_attn.report.publish import publish
from vit_attn.report.table import wide_console
from vit_attn.spec.errors import UserError, exit_code_of, unknown
from vit_attn.spec.flags import Flags
from vit_attn.spec.load import split_overrides

DONE, FAILED, STOPPED = 0, 1, 3
POLL_SECONDS, SHOW_SECONDS = 0.1, 0.5


def main(argv: Sequence[str], backends: Mapping[str, Callable[[int], Backend]] = BACKENDS) -> int:
    """The command line. Returns the exit code; raises UserError for bad input, before anything is created."""
    rest, overrides = split_overrides(argv)
    flags = _flags(backends).parse_args(rest)
    if flags.max_parallel is not None and flags.max_parallel < 1:
        raise UserError(f"--max-parallel={flags.max_parallel} must be at least 1")
    if str(flags.workdir) == ".":
        raise UserError("--workdir is empty or '.': a sweep needs a directory of its own, for example --workdir runs/grid")
    if flags.backend not in backends:
        raise unknown("--backend: the backend", flags.backend, backends)
    grid = load_grid(flags.config, overrides, lambda members: confirm_members(members, flags.yes))
    sweep, console = SweepDir(flags.workdir), wide_console()
    sweep.check(grid)
    _check_data(grid)
    prepared = prepare(grid, sweep, flags, console)
    if flags.dry_run:
        prepared.print(console, flags.ask_above)
        return DONE
    prepared.confirm_cost(flags.ask_above, flags.yes)
    with sweep.locked():
        sweep.check(grid)  # again, for a launcher that was here a moment ago
        sweep.create(prepared.packed)
        prepared.remember(sweep)
        return _run(sweep, prepared, backends[flags.backend], console)


def _flags(backends: Mapping[str, object]) -> argparse.ArgumentParser:
    flags = Flags("launch.sweep", __doc__)
    flags.add_argument("--config", required=True, metavar="FILE[:ARG]", help="a Python file that defines get_sweep(arg)")
    flags.add_argument("--workdir", required=True, type=Path, help="the sweep's directory: a run directory a member, and logs")
    flags.add_argument("--backend", default="local", help=f"where packs are trained: {', '.join(backends)} (default: local)")
    flags.add_argument(
        "--max-parallel", type=int, metavar="N", help="packs trained at a time (default: 1; on accelerators: auto)"
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


def _run(sweep: SweepDir, prepared: Prepared, backend: Callable[[int], Backend], console: Console) -> int:
    plan = prepared.plan
    with display(console) as shown, _stop_requests() as requests:
        for line in plan.why:
            shown.say(f"plan: {line}")
        for news, packs in prepared.stages(sweep):
            if news:
                shown.say(news)
            todo = sum(not all_finished(runs) for runs in packs.values())
            slots = plan.slots if plan.fixed else max(min(plan.slots, todo), 1)
            schedule = Schedule(sweep, backend(slots), slots, shown.say, packs)
            _train(schedule, Watch(sweep.path), shown, requests)
            if schedule.stopping or schedule.failed:
                break
    if not schedule.stopping:
        publish([sweep.path], console)
        words = f"TensorBoard: tensorboard --logdir {shlex.quote(str(sweep.path))}"
        console.print(words, markup=False, highlight=False, soft_wrap=True)
    for pack, why in schedule.failed.items():
        words = f"pack {pack} failed: {why} (log: {sweep.log(pack)})"
        console.print(words, style="red", markup=False, highlight=False, soft_wrap=True)
    if schedule.stopping and not schedule.failed:
        console.print(f"Stopped by {requests[0].name}; all that was trained is saved. Run the same command to go on.")
        return STOPPED
    return FAILED if schedule.failed else DONE


def _train(schedule: Schedule, watch: Watch, shown: Display, requests: list[Signals]) -> None:
    """Until all packs are over, or a signal asked for the end and the workers have saved."""
    next_show = 0.0
    while not schedule.over:
        if requests and not schedule.stopping:
            shown.say(f"{requests[0].name}: waiting for {len(schedule.running)} workers to save and end")
            schedule.stop()
        schedule.tick()
        if time.monotonic() >= next_show:
            shown.show(mark_starting(watch.look(), schedule.started()))
            next_show = time.monotonic() + SHOW_SECONDS
        time.sleep(POLL_SECONDS)
    shown.show(watch.look())


@contextmanager
def _stop_requests() -> Iterator[list[Signals]]:
    """SIGTERM and SIGINT end up in this list instead of ending the launcher."""
    requests: list[Signals] = []
    before = {number: signal(number, lambda got, _: requests.append(Signals(got))) for number in (SIGTERM, SIGINT)}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal(number, handler)


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:])))
