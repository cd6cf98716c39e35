"""Worker processes: they are replaced when they die, they do not outlive their parent, and their memory goes with them."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from vit_attn.data.pipeline import train_batches
from vit_attn.data.sources.open import open_source
from vit_attn.data.workers import MOST_DEATHS, Workers, WorkersDieError
from vit_attn.spec.data import DataSpec
from vit_attn.spec.errors import UserError
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.run import RunSpec, TrainSpec

ROOT = Path(__file__).resolve().parents[2]
SPEC = RunSpec(model=ModelSpec(image_size=32, num_classes=10), train=TrainSpec(batch_images=150))


def children() -> list[psutil.Process]:
    """Worker processes of this one, without the resource tracker."""
    alive = (child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE)
    return [child for child in alive if "spawn_main" in " ".join(child.cmdline())]


def test_dead_workers_are_replaced_and_nobody_notices() -> None:
    source = open_source(SPEC.data.split("train"), 10)
    with closing(Workers(0, 2)) as threads, closing(train_batches(SPEC, source, 0, threads)) as batches:
        wanted = [next(batches) for _ in range(12)]
    with closing(Workers(2)) as workers, closing(train_batches(SPEC, source, 0, workers)) as batches:
        for number, want in enumerate(wanted):
            got = next(batches)
            np.testing.assert_array_equal(got["image"], want["image"])
            np.testing.assert_array_equal(got["labels"], want["labels"])
            if number in (2, 3, 7):
                children()[-1].send_signal(signal.SIGKILL)  # the one before may not be replaced yet
    assert batches.reading.images == 12 * 150


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_die_again_and_again_are_an_error() -> None:
    with (
        closing(Workers(1)) as workers,
        pytest.raises(WorkersDieError, match=f"died {MOST_DEATHS + 1} times with nothing done"),
    ):
        workers.submit(die, 0).result(60)


class Deadly:
    """A source that kills whoever reads it."""

    name, split, label_names = "deadly", "train", None

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int):
        die(index)

    def order(self, position: int, seed: int) -> tuple[int, int]:
        return 0, position % 3


def test_the_user_is_told_that_workers_die() -> None:
    said = r"died .* times with nothing done.*memory for config\.data\.workers=1"
    with (
        closing(Workers(1)) as workers,
        closing(train_batches(SPEC, Deadly(), 0, workers)) as batches,
        pytest.raises(UserError, match=said),
    ):
        next(batches)


PARENT = """
import time
from vit_attn.data.pipeline import train_batches
from vit_attn.data.sources.open import open_source
from vit_attn.data.workers import Workers
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.run import RunSpec, TrainSpec

if __name__ == "__main__":
    spec = RunSpec(model=ModelSpec(image_size=32, num_classes=10), train=TrainSpec(batch_images=150))
    batches = train_batches(spec, open_source(spec.data.split("train"), 10), 0, Workers(2))
    next(batches)
    print("reading", flush=True)
    time.sleep(600)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    shared = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").is_dir() else set()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = [sys.executable, tmp_path / "parent.py"]
    with subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout.readline().strip() == "reading"
            family = psutil.Process(parent.pid).children(recursive=True)
            assert len(family) >= 2
            parent.kill()
            _, alive = psutil.wait_procs(family, timeout=20)
            assert not alive
        finally:
            parent.kill()
    for _ in range(100):
        left = set(Path("/dev/shm").iterdir()) - shared if shared else set()
        if not left:
            break
        time.sleep(0.1)
    assert not left


def test_all_cores_are_what_this_process_may_use() -> None:
    with closing(Workers(-1)) as workers:
        assert workers.processes == len(os.sched_getaffinity(0))
    assert DataSpec(workers=-1).workers == -1
