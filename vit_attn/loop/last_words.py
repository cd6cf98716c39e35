"""What is said, and written, of runs whose processes cannot go on because one of them is gone or has failed."""

from collections.abc import Iterable

from vit_attn.parallel.watch import Watch
from vit_attn.store.run_dir import RunDir


def last_words(run_dirs: Iterable[RunDir], watch: Watch, why: str) -> str:
    """ "process 1 of 2 (host a) is gone: stopped at about step 7; ...", which the status of each unfinished run then holds."""
    words = ""
    for run_dir in run_dirs:
        said = f"{why}; {_left(run_dir, watch.step)}"
        _write(run_dir, watch, said)
        words = words or said
    return words or why


def _left(run_dir: RunDir, step: int) -> str:
    spec = run_dir.spec()
    place = run_dir.place(spec) if spec else None
    saved = place.steps() if place and not place.remote else []  # a bucket may take longer than there is time
    stopped = f"stopped at about step {step}" if step >= 0 else "stopped before its first step"
    kept = f"the last checkpoint is step {max(saved)}" if saved else "there is no checkpoint yet"
    kept = f"checkpoints are in {place.root}" if place and place.remote else kept
    return f"{stopped}; {kept}; the same command goes on"


def _write(run_dir: RunDir, watch: Watch, words: str) -> None:
    """Also where process 0, which writes all else, is gone; but not over what a new start has written in the meantime."""
    try:
        status = run_dir.status()
        ours = (status.pid, status.host) == watch.writer() and status.state in ("running", "failed")
        if ours or status.state == "waiting":  # or nobody has come to write anything yet
            step = max(status.step, watch.step)
            run_dir.write_status("failed", step=step, steps=status.steps, metrics=status.metrics, message=words)
    except Exception as error:  # a full or vanished disk: the words are printed all the same
        print(f"note: {run_dir.path}/status.json could not be written: {error}", flush=True)
