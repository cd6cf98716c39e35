"""A worker that keeps the trainer's contract with the launcher and trains nothing, for the tests of the launcher.

    stand_in_worker.py --run DIR [DIR ...] --stop-with-parent

Environment: STAND_IN_STARTS, a file that gets one line a start (the names of its members); STAND_IN_STEP_SECONDS;
STAND_IN_FAILING, a member's name: a worker with that member ends with an exception, STAND_IN_FAILURES times.
A member with alpha 9 diverges at step 3. Accuracy: 0.5 + alpha / 10; softmax 0.77.
"""

import os
import signal
import sys
import time
from pathlib import Path

from vit_attn.store.run_dir import FINISHED, RunDir

STEP_SECONDS = float(os.environ.get("STAND_IN_STEP_SECONDS", "0.01"))
STARTS = Path(os.environ["STAND_IN_STARTS"])


def main(runs: list[RunDir]) -> int:
    parent, signals = os.getppid(), []
    signal.signal(signal.SIGTERM, lambda *_: signals.append(1))
    with open(STARTS, "a") as starts:
        starts.write(f"{' '.join(run.name for run in runs)}\n")
    _fail_if_asked([run.name for run in runs])
    steps = runs[0].spec().train.steps
    at = {run: run.status().step for run in runs if run.status().state not in FINISHED}
    for step in range(min(at.values(), default=steps), steps + 1):
        for run in [run for run, done in at.items() if done <= step]:
            if run.spec().model.attention.alpha == 9 and step == 3:
                run.write_status("diverged", step=step, steps=steps, message="diverged at step 3")
                del at[run]
                continue
            state = "done" if step == steps else "running"
            run.write_status(state, step=step, steps=steps, metrics=_metrics(run, step), seconds_left=STEP_SECONDS)
        if (signals or os.getppid() != parent) and step < steps:
            for run in at:
                run.write_status("stopped", step=step, steps=steps, metrics=_metrics(run, step))
            return 3
        time.sleep(STEP_SECONDS)
    return 0


def _metrics(run: RunDir, step: int) -> dict[str, float]:
    alpha = run.spec().model.attention.alpha
    accuracy = {"val/accuracy": 0.77 if alpha is None else 0.5 + alpha / 10, "val/loss": 0.625}
    return {"train/loss": 2.0 / (step + 1), "speed/images_per_second": 1234.0, "speed/core_hours": step / 3600, **accuracy}


def _fail_if_asked(names: list[str]) -> None:
    failing = os.environ.get("STAND_IN_FAILING")
    if failing in names:
        starts = sum(failing in line.split() for line in STARTS.read_text().splitlines())
        if starts <= int(os.environ["STAND_IN_FAILURES"]):
            raise RuntimeError(f"[no luck] at start {starts}")


if __name__ == "__main__":
    dirs = sys.argv[sys.argv.index("--run") + 1 : sys.argv.index("--stop-with-parent")]
    sys.exit(main([RunDir(Path(path)) for path in dirs]))
