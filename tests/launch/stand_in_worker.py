"""A worker that keeps the trainer's contract with the launcher and trains nothing, for the tests of the launcher.

    stand_in_worker.py --run DIR [DIR ...] --stop-with-parent

Environment: STAND_IN_NOTES, a directory with a file `starts` (one line a start: its members) and a file `steps` (one line a
member and step); STAND_IN_STEP_SECONDS;
STAND_IN_FAILING, a member's name: a worker with that member ends with an exception, STAND_IN_FAILURES times.
A member with alpha 9 diverges at step 3. Accuracy: 0.5 + alpha / 10; softmax 0.77. Pauses at config.loop.until.
"""

import json
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from vit_attn.store.run_dir import FINISHED, RunDir

STEP_SECONDS = float(os.environ.get("STAND_IN_STEP_SECONDS", "0.01"))
NOTES = Path(os.environ["STAND_IN_NOTES"])


def main(runs: list[RunDir]) -> int:
    with ExitStack() as locks:
        for run in runs:
            locks.enter_context(run.locked(wait_seconds=5))
        return _work(runs)


def _work(runs: list[RunDir]) -> int:
    parent, signals = os.getppid(), []
    signal.signal(signal.SIGTERM, lambda *_: signals.append(1))
    _note("starts", " ".join(run.name for run in runs))
    if seen := os.environ.get("STAND_IN_ENVIRONMENT"):
        (Path(seen) / os.environ.get("CUDA_VISIBLE_DEVICES", "all")).touch()
    _fail_if_asked([run.name for run in runs])
    steps = runs[0].spec().train.steps
    last = min(steps, runs[0].spec().loop.until or steps)
    at = {run: run.status().step for run in runs if run.status().state not in FINISHED}
    for step in range(min(at.values(), default=last) + 1, last + 1):
        if signals or os.getppid() != parent:
            for run, done in at.items():
                run.write_status("stopped", step=done, steps=steps, metrics=_metrics(run, done))
            return 3
        time.sleep(STEP_SECONDS)
        for run in [run for run, done in at.items() if done < step]:
            _note("steps", f"{run.name} {step}")
            if run.spec().model.attention.alpha == 9 and step == 3:
                run.write_status("diverged", step=step, steps=steps, message="diverged at step 3")
                del at[run]
            else:
                state = "done" if step == steps else "paused" if step == last else "running"
                with open(run.metrics_file, "a") as rows:
                    rows.write(json.dumps({"step": step, **_metrics(run, step)}) + "\n")
                run.write_status(state, step=step, steps=steps, metrics=_metrics(run, step), seconds_left=STEP_SECONDS)
                at[run] = step
    return 0


def _note(file: str, line: str) -> None:
    with open(NOTES / file, "a") as handle:
        handle.write(f"{line}\n")


def _metrics(run: RunDir, step: int) -> dict[str, float]:
    alpha = run.spec().model.attention.alpha
    accuracy = {"val/accuracy": 0.77 if alpha is None else 0.5 + alpha / 10, "val/loss": 0.625}
    return {"train/loss": 2.0 / (step + 1), "speed/images_per_second": 1234.0, "speed/core_hours": step / 3600, **accuracy}


def _fail_if_asked(names: list[str]) -> None:
    failing = os.environ.get("STAND_IN_FAILING")
    if failing in names:
        starts = sum(failing in line.split() for line in (NOTES / "starts").read_text().splitlines())
        if starts <= int(os.environ["STAND_IN_FAILURES"]):
            raise RuntimeError(f"[no luck] at start {starts}")


if __name__ == "__main__":
    dirs = sys.argv[sys.argv.index("--run") + 1 : sys.argv.index("--stop-with-parent")]
    sys.exit(main([RunDir(Path(path)) for path in dirs]))
