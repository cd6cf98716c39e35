"""What packing and launching a sweep costs and saves: whole processes, from start to end.

    python -m benchmarks.sweep [--rows grid,photographs,overhead,status,report] [--members 8] [--steps 250]
                               [--photographs FOLDER] [--many 1000]

grid         an alpha grid of the quickstart's relu, by launch.sweep as one pack, against a vit_attn.main for each member, one
             after the other: half of them before the sweep, half after it
photographs  the same with a tiny model on photographs of ImageNet's sizes (benchmarks.photographs fills FOLDER), where reading
             and decoding them is most of the work
overhead     launch.sweep over --many / 10 packs of one member whose workers end at once, against these workers alone: what the
             launcher adds to a member, its directory and the report included
status       python -m launch.status DIR --once of a sweep of --many members, with files as a half-finished one has them
report       python -m vit_attn.report DIR of the same, all finished

wall and CPU (user and system) are seconds. Programs are compiled before, in a run that does not count.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.photographs import photographs
from benchmarks.process import MAIN, Usage, measure
from vit_attn.report.table import wide_console
from vit_attn.spec.load import load_run
from vit_attn.spec.run import RunSpec
from vit_attn.store.run_dir import RunDir

LAUNCH = ("-m", "launch.sweep")
IMAGES, PHOTOGRAPH_STEPS, PHOTOGRAPH_BATCH = 256, 300, 64
ROWS_A_MEMBER = 25  # in metrics.jsonl
# A worker in a line: every member is done. Without imports, so that it is the launcher that is measured.
WORKER = """
import json, sys
runs = sys.argv[sys.argv.index("--run") + 1 : sys.argv.index("--stop-with-parent")]
for run in runs:
    with open(run + "/status.json", "w") as file:
        json.dump({"state": "done", "step": 250, "steps": 250, "metrics": {"val/accuracy": 0.5}}, file)
"""
DRIVER = """
import sys
from launch.backends.local import Local
from launch.sweep import main
sys.exit(main(sys.argv[2:], {"local": lambda site: Local(site.slots, (sys.executable, "-S", "-c", sys.argv[1]))}))
"""


def packed_against_alone(folder: Path, members: int, settings: dict[str, object], title: str) -> Table:
    """`settings` override the quickstart's, for all members."""
    cache, alphas = folder / "cache", [float(alpha) for alpha in np.linspace(0.0, 2.0, members)]
    config = sweep_file(folder, alphas)
    words = [f"--config.{key}={value}" for key, value in settings.items()]

    def alone(name: str, alpha: float) -> Usage:
        one = f"configs/quickstart.py:h=relu,alpha={alpha}"
        return measure([*MAIN, "--config", one, "--workdir", str(folder / "alone" / name), *words], cache)

    alone("first", 3.0)  # fills the cache of compiled programs
    half = members // 2
    solo = [alone(f"{alpha}", alpha) for alpha in alphas[:half]]
    pack = measure([*LAUNCH, "--config", str(config), "--workdir", str(folder / "sweep"), *words], cache)
    solo += [alone(f"{alpha}", alpha) for alpha in alphas[half:]]
    table = Table("", f"one pack of {members}", f"{members} runs", "runs / pack", title=title)
    for name, packed, each in (("wall", pack.wall, [s.wall for s in solo]), ("CPU", pack.cpu, [s.cpu for s in solo])):
        table.add_row(f"{name}, s", f"{packed:.1f}", f"{sum(each):.1f}", f"{sum(each) / packed:.2f}")
    same = sum(
        RunDir(folder / "alone" / f"{alpha}").metrics()[-1]["val/loss"] == run.metrics()[-1]["val/loss"]
        for alpha, run in ((alpha, RunDir(folder / "sweep" / f"relu_alpha{alpha}_{suffix(settings)}")) for alpha in alphas)
    )
    table.add_row("equal validation losses", f"{same} of {members}", "", "")
    return table


def suffix(settings: dict[str, object]) -> str:
    patch = load_run("configs/quickstart.py:h=relu", settings).model.patch
    return f"p{patch}_seed0"


def sweep_file(folder: Path, alphas: list[float]) -> Path:
    """A sweep of the quickstart's relu over alpha."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sweep.py"
    path.write_text(
        "def get_sweep(arg=''):\n"
        f"    points = [{{'h': 'relu', 'alpha': alpha}} for alpha in {alphas}]\n"
        "    return {'base': 'configs/quickstart.py', 'points': points}\n"
    )
    return path


def photograph_settings(folder: Path, encoded: list[bytes]) -> dict[str, object]:
    """A folder of two classes, and a model that is small beside the decoding of its images."""
    for number, image in enumerate(encoded):
        split = "val" if number % 8 == 0 else "train"
        place = folder / "data" / split / f"class{number // 8 % 2}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:04d}.jpg").write_bytes(image)
    return {
        **{"model.variant": "mu/16", "model.image_size": 64, "data.name": f"{folder}/data", "data.data_dir": "none"},
        **{"data.crop": "inception", "eval.split": "val", "eval.batch_images": 32, "train.batch_images": PHOTOGRAPH_BATCH},
        **{"train.steps": PHOTOGRAPH_STEPS, "train.warmup_steps": 3, "eval.steps": 0, "loop.ckpt_steps": 1000},
    }


def overhead(folder: Path, members: int) -> Table:
    config = sweep_file(folder, [number / members for number in range(members)])
    words = ["--config", str(config), "--workdir", str(folder / "sweep"), "--pack", "1"]
    whole = measure(["-c", DRIVER, WORKER, *words], folder / "cache")
    start = time.perf_counter()
    for _ in range(10):
        measure(["-S", "-c", WORKER, "--run", str(folder / "sweep" / "relu_alpha0.0_p7_seed0"), "--stop-with-parent"], folder)
    worker = (time.perf_counter() - start) / 10
    table = Table("", "s", title=f"launch.sweep over {members} packs of one member, workers that end at once")
    table.add_row("all, wall", f"{whole.wall:.1f}")
    table.add_row("all, CPU", f"{whole.cpu:.1f}")
    table.add_row("such a worker alone", f"{worker:.3f}")
    table.add_row("launcher a member, wall", f"{whole.wall / members - worker:.3f}")
    return table


def make_many(folder: Path, members: int, finished: bool) -> Path:
    """The directory of a sweep with that many members, without having launched one."""
    from launch.grid import load_grid
    from launch.sweep_dir import SweepDir

    sweep = SweepDir(folder / "sweep")
    grid = load_grid(str(sweep_file(folder, [2 * number / members for number in range(members)])), {})
    sweep.create(grid)
    rng = np.random.default_rng(0)
    for number, member in enumerate(grid.members):
        _write_member(RunDir(sweep.path / member.name), member.spec, rng, finished or number < members // 2)
    return sweep.path


def _write_member(run: RunDir, spec: RunSpec, rng: np.random.Generator, done: bool) -> None:
    import json

    steps = spec.train.steps
    last = {"val/accuracy": float(rng.uniform(0.5, 0.8)), "val/loss": 0.6, "speed/core_hours": 0.004, "train/loss": 0.7}
    every = steps // ROWS_A_MEMBER
    at = [step for step in range(every, steps + 1, every) if done or step <= steps // 2]
    rows = [{"step": step, **last, "speed/images_per_second": 1000.0} for step in at]
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run.write_status("done" if done else "stopped", step=at[-1], steps=steps, metrics=last)


def timed(name: str, limit: float, arguments: list[str], folder: Path) -> Table:
    used = [measure(arguments, folder) for _ in range(3)]
    table = Table("", "wall, s", "CPU, s", "aim, s", title=name)
    for number, one in enumerate(used, 1):
        table.add_row(f"start {number}", f"{one.wall:.2f}", f"{one.cpu:.2f}", f"{limit:g}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="grid,photographs,overhead,status,report")
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--photographs", type=Path, default=Path(tempfile.gettempdir()) / "vit_attn_photographs")
    parser.add_argument("--many", type=int, default=1000)
    flags = parser.parse_args()
    console: Console = wide_console()
    with tempfile.TemporaryDirectory() as name:
        folder, many = Path(name), flags.many
        rows: dict[str, Callable[[Path], Table]] = {
            "grid": lambda at: packed_against_alone(
                at,
                flags.members,
                {"train.steps": flags.steps, "train.warmup_steps": flags.steps // 10},
                f"alpha grid of the quickstart, {flags.steps} steps",
            ),
            "photographs": lambda at: packed_against_alone(
                at,
                flags.members,
                photograph_settings(at, photographs(flags.photographs, IMAGES)),
                f"mu/16 on {IMAGES} photographs, cropped to 64 pixels, {PHOTOGRAPH_STEPS} steps of {PHOTOGRAPH_BATCH}",
            ),
            "overhead": lambda at: overhead(at, max(many // 10, 1)),
            "status": lambda at: timed(
                f"launch.status of {many} members",
                2,
                ["-m", "launch.status", str(make_many(at, many, False)), "--once"],
                at,
            ),
            "report": lambda at: timed(
                f"vit_attn.report of {many} members", 20, ["-m", "vit_attn.report", str(make_many(at, many, True))], at
            ),
        }
        for row in flags.rows.split(","):
            if row not in rows:
                sys.exit(f"error: --rows={row} is unknown (choices: {', '.join(rows)})")
            console.print(rows[row](folder / row))


if __name__ == "__main__":
    main()
