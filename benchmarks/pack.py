"""An alpha grid as one pack against the same members in processes of their own, one after another.

    python -m benchmarks.pack [--members 8] [--steps 250] [--config configs/quickstart.py:h=relu] [--cold]

A pack is `python -m vit_attn.main --run DIR1 ... DIRM`; a solo run the same with one directory. Half of the solo runs come
before the pack, half after it. All find the compiled programs in a warm cache; with --cold, each process has an empty one.
Measured are whole processes, from their start to their end:

wall     seconds                    peak       largest sum of resident memory over the process and its children
CPU      user and system seconds    training   seconds in steps, as the members' own clocks have them: no start, evaluation,
                                               saving, end
outside  wall - training

One more member costs a pack its training and (outside of the pack - mean outside of a solo run) / (M - 1) besides; as a
process of its own, all that is outside of a solo run. A member is identical if each array of its last checkpoint, and each
metric of each logged step but speed/*, is bit for bit its solo run's. "One process" is the median.
"""

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from rich.console import Console
from rich.table import Table

from benchmarks.process import MAIN, Usage, measure
from vit_attn.spec.load import load_run
from vit_attn.store.run_dir import RunDir


@dataclass(frozen=True)
class Grid:
    """The same members twice: the run directories of the pack, and of the solo runs."""

    pack: list[RunDir]
    solo: list[RunDir]


def make_grid(folder: Path, config: str, members: int, steps: int) -> Grid:
    """alpha from 0 to 2 in even steps."""
    grid = Grid([], [])
    for alpha in np.linspace(0.0, 2.0, members):
        spec = load_run(config, {"train.steps": steps, "model.attention.alpha": float(alpha)})
        for side, name in ((grid.pack, "pack"), (grid.solo, "solo")):
            side.append(run_dir := RunDir(folder / name / f"alpha{alpha:.4g}"))
            run_dir.create(spec)
    return grid


class Runner:
    """Trains run directories in a process, with a cache that is shared, or new each time."""

    def __init__(self, folder: Path, cold: bool) -> None:
        self._folder, self._cold, self._number = folder, cold, 0

    def __call__(self, *runs: RunDir) -> Usage:
        self._number += self._cold
        cache = self._folder / f"cache{self._number}"
        return measure([*MAIN, "--run", *(str(run_dir.path) for run_dir in runs)], cache)


def training_seconds(run_dir: RunDir, devices: int = 1) -> float:
    """Of one member: its clock, read from its last row."""
    return run_dir.metrics()[-1]["speed/core_hours"] * 3600 / devices


def arrays(run_dir: RunDir) -> list[Any]:
    """All that the newest checkpoint holds: parameters, moments, counters."""
    newest = max(int(folder.name) for folder in run_dir.checkpoints.iterdir() if folder.name.isdigit())
    state = ocp.StandardCheckpointer().restore((run_dir.checkpoints / str(newest) / "state").absolute())
    return [newest, *(np.asarray(leaf) for leaf in jax.tree.leaves(state))]


def rows(run_dir: RunDir) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if not key.startswith("speed/")} for row in run_dir.metrics()]


def identical(one: RunDir, other: RunDir) -> bool:
    pairs = zip(arrays(one), arrays(other), strict=True)
    return rows(one) == rows(other) and all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def report(grid: Grid, pack: Usage, solo: list[Usage], how: str) -> Table:
    members = len(solo)
    trained = [sum(training_seconds(one) for one in side) for side in (grid.pack, grid.solo)]
    outside = pack.wall - trained[0], (sum(one.wall for one in solo) - trained[1])
    further = (outside[0] - outside[1] / members) / max(members - 1, 1)
    same = sum(identical(*both) for both in zip(grid.pack, grid.solo, strict=True))
    table = Table("", f"one pack of {members}", f"{members} processes", "processes / pack", title=how)
    lines: tuple[tuple[str, float, float], ...] = (
        ("wall, s", pack.wall, sum(one.wall for one in solo)),
        ("CPU, s", pack.cpu, sum(one.cpu for one in solo)),
        ("training, s", trained[0], trained[1]),
        ("outside, s", outside[0], outside[1]),
        ("peak memory, MiB", pack.peak / 2**20, max(one.peak for one in solo) / 2**20),
    )
    for name, packed, alone in lines:
        table.add_row(name, f"{packed:.1f}", f"{alone:.1f}", f"{alone / packed:.2f}")
    table.add_section()
    table.add_row("one process, wall, s", "", f"{statistics.median(one.wall for one in solo):.1f}", "")
    table.add_row("one more member, outside, s", f"{further:.2f}", f"{outside[1] / members:.2f}", "")
    table.add_row("identical members", f"{same} of {members}", "", "")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--config", default="configs/quickstart.py:h=relu", help="as vit_attn.main takes it")
    parser.add_argument("--cold", action="store_true", help="an empty cache of compiled programs for each process")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grid = make_grid(folder, flags.config, flags.members, flags.steps)
        run = Runner(folder, flags.cold)
        run(*make_grid(folder / "first", flags.config, 1, flags.steps).pack)  # does not count: it fills the caches
        half = flags.members // 2
        solo = [run(one) for one in grid.solo[:half]]
        pack = run(*grid.pack)
        solo += [run(one) for one in grid.solo[half:]]
        cache = "cold" if flags.cold else "warm"
        how = f"{flags.members} values of alpha, {flags.config}, {flags.steps} steps, {cache} compilation cache"
        Console().print(report(grid, pack, solo, how))


if __name__ == "__main__":
    main()
