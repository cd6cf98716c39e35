"""Time from the command to the first training step, and what it is made of: cold against warm cache of compiled programs.

    python -m benchmarks.startup [--rounds 3] [--config configs/quickstart.py]

Two processes a round and cache. The true command, `python -m vit_attn.main --config ... --workdir ...`, from its start until
its line of step 1. And the same `main` in a process that notes the time at each stage's end (`--child`): consecutive stages,
which add up to the time until that line. Cold: an empty cache directory. Warm: the one that the cold process filled. The
files of python and its packages have been read before, in a round that does not count. The table shows medians.
"""

import argparse
import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.process import MAIN, measure, seconds_until

STAGES = ("python, settings", "import jax", "other imports", "open the data", "trace, compile", "initialise", "first step")
TRUE = "the true command"


class Marks:
    """Seconds of each stage, from the end of the one before it; the first one from `start`, a time of the monotonic clock."""

    def __init__(self, start: float, file: Path) -> None:
        self._last, self._file = start, file
        self.seconds: dict[str, float] = {}

    def end(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def after(self, owner: Any, name: str, stage: str) -> None:
        """From now on, each return of `owner.name` ends `stage`."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            self.end(stage)
            return result

        setattr(owner, name, timed)

    def finish(self, *_: object) -> None:
        """In place of the first line of progress: ends the last stage, writes the file, and the process is over."""
        self.end(STAGES[-1])
        self._file.write_text(json.dumps(self.seconds))
        os._exit(0)


def child(file: Path, start: float, argv: list[str]) -> None:
    """`vit_attn.main` with a mark at the end of each stage; ends after the first step."""
    from vit_attn import main as program

    marks = Marks(start, file)
    prepare: Callable[[], None] = program._use_compilation_cache  # the last thing that it does without jax

    def load() -> None:
        prepare()
        marks.end(STAGES[0])
        import jax  # noqa: F401

        marks.end(STAGES[1])
        from vit_attn.loop import progress, run

        marks.end(STAGES[2])
        marks.after(run, "open_source", STAGES[3])
        marks.after(run, "Program", STAGES[4])
        marks.after(run, "_print_start", STAGES[5])
        progress.progress_line = marks.finish  # type: ignore[assignment]

    program._use_compilation_cache = load
    program.main(argv)


def split_of(config: str, folder: Path, cache: Path) -> dict[str, float]:
    """Stage -> seconds, of one process."""
    file = folder / "marks.json"
    where = ["--child", str(file), repr(time.monotonic()), "--config", config, "--workdir", str(folder / "run")]
    measure(["-m", "benchmarks.startup", *where], cache)
    return json.loads(file.read_text())


def one_round(config: str, folder: Path) -> dict[str, dict[str, float]]:
    """{"cold": ..., "warm": ...}, each stage -> seconds, the true command's time among them."""
    caches = {"true": folder / "cache_true", "split": folder / "cache_split"}
    result = {}
    for name in ("cold", "warm"):
        here = folder / name
        here.mkdir()
        seconds = split_of(config, here, caches["split"])
        command = [*MAIN, "--config", config, "--workdir", str(here / "true")]
        seconds[TRUE] = seconds_until(command, caches["true"], "step ")
        result[name] = seconds
    return result


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {stage: statistics.median(one.get(stage, 0.0) for one in rounds) for stage in (*STAGES, TRUE)}


def report(config: str, count: int) -> Table:
    with tempfile.TemporaryDirectory() as folder:
        (first := Path(folder) / "first").mkdir()
        split_of(config, first, first / "cache")
        rounds = []
        for number in range(count):
            (here := Path(folder) / str(number)).mkdir()
            rounds.append(one_round(config, here))
    cold, warm = (medians([one[name] for one in rounds]) for name in ("cold", "warm"))
    table = Table("stage", "cold cache, s", "warm cache, s", title=f"start of {config}, medians of {count}")
    for stage in STAGES:
        table.add_row(stage, f"{cold[stage]:.2f}", f"{warm[stage]:.2f}", end_section=stage == STAGES[-1])
    table.add_row("sum", *(f"{sum(one[stage] for stage in STAGES):.2f}" for one in (cold, warm)))
    table.add_row(TRUE, f"{cold[TRUE]:.2f}", f"{warm[TRUE]:.2f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--config", default="configs/quickstart.py", help="as vit_attn.main takes it")
    parser.add_argument("--child", nargs=2, metavar=("FILE", "START"), help=argparse.SUPPRESS)
    flags, rest = parser.parse_known_args()
    if flags.child:
        return child(Path(flags.child[0]), float(flags.child[1]), ["--config", flags.config, *rest])
    if rest:
        parser.error(f"unknown: {' '.join(rest)}")
    Console().print(report(flags.config, flags.rounds))


if __name__ == "__main__":
    main()
