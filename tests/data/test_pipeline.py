import dataclasses
import gc
import math
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from tfds_sets import CIFAR10_IMAGES

from vit_attn.data.batch import Batch
from vit_attn.data.order import example_at
from vit_attn.data.pipeline import eval_batches, train_batches
from vit_attn.data.preprocess import decode
from vit_attn.data.source import Source, open_source
from vit_attn.spec.errors import UserError
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.run import DataSpec, EvalSpec, RunSpec, TrainSpec


def run_spec(batch_images: int = 13, size: int = 32, **data: object) -> RunSpec:
    return RunSpec(
        model=ModelSpec(image_size=size, num_classes=10),
        data=DataSpec(**data),  # type: ignore[arg-type]
        train=TrainSpec(batch_images=batch_images),
        eval=EvalSpec(batch_images=batch_images),
    )


@pytest.fixture(scope="module")
def cifar10(sets: Path) -> Source:
    return open_source(DataSpec(name="cifar10", data_dir=str(sets)), "train", 10)


def take(batches, count: int) -> list[Batch]:
    with closing(batches):
        return list(islice(batches, count))


def assert_same(a: Batch, b: Batch) -> None:
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], strict=True)


def joined(parts: Sequence[Batch]) -> Batch:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def wait_until(holds) -> bool:
    end = time.monotonic() + 10
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


@pytest.mark.parametrize("batch_images", [13, 131])  # less and more than a thread decodes in one go
def test_a_batch_holds_the_examples_at_its_positions(cifar10: Source, batch_images: int) -> None:
    batches = take(train_batches(run_spec(batch_images, seed=3), cifar10, 0), 5)
    indices = [example_at(position, 3, len(cifar10)) for position in range(5 * batch_images)]
    expected = np.stack([decode(cifar10[i]["image"], 32) for i in indices])
    np.testing.assert_array_equal(np.concatenate([batch["image"] for batch in batches]), expected, strict=True)
    np.testing.assert_array_equal(np.concatenate([batch["label"] for batch in batches]), [cifar10[i]["label"] for i in indices])
    assert all(batch["image"].shape == (batch_images, 32, 32, 3) and batch["label"].dtype == np.int32 for batch in batches)


def test_an_epoch_of_batches_counts_every_example_once(cifar10: Source) -> None:
    length = len(cifar10)
    images = np.concatenate([batch["image"] for batch in take(train_batches(run_spec(length), cifar10, 0), 2)])
    for epoch in (images[:length], images[length:]):
        assert len({image.tobytes() for image in epoch}) == length


@pytest.mark.parametrize("start", [1, 4, 7])
def test_a_restart_continues_with_the_same_batches(cifar10: Source, start: int) -> None:
    whole = take(train_batches(run_spec(), cifar10, 0), 10)
    for expected, got in zip(whole[start:], take(train_batches(run_spec(), cifar10, start), 10 - start), strict=True):
        assert_same(got, expected)


@pytest.mark.parametrize("hosts", [2, 4])
@pytest.mark.parametrize("batch_images", [13, 263])
def test_the_hosts_share_the_batches_of_one(cifar10: Source, hosts: int, batch_images: int) -> None:
    spec = run_spec(batch_images)
    parts = [take(train_batches(spec, cifar10, 2, (p, hosts)), 3) for p in range(hosts)]
    for step, expected in enumerate(take(train_batches(spec, cifar10, 2), 3)):
        assert_same(joined([part[step] for part in parts]), expected)


def test_threads_do_not_change_the_batches(cifar10: Source) -> None:
    one, five = (
        take(train_batches(run_spec(131, threads=threads, prefetch_batches=ahead), cifar10, 0), 4)
        for threads, ahead in ((1, 1), (5, 3))
    )
    for a, b in zip(one, five, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize("batch_images", [1, 7, 23, 101])
def test_evaluation_counts_every_image_once(sets: Path, hosts: int, batch_images: int) -> None:
    source = open_source(DataSpec(name="cifar10", data_dir=str(sets)), "test", 10)
    parts = [list(eval_batches(run_spec(batch_images), source, (p, hosts))) for p in range(hosts)]
    count = math.ceil(CIFAR10_IMAGES["test"] / batch_images)
    assert [len(part) for part in parts] == [count] * hosts
    whole = joined([joined([part[number] for part in parts]) for number in range(count)])
    n = len(source)
    assert whole["image"].shape == (count * batch_images, 32, 32, 3)
    assert whole["mask"].dtype == np.float32
    np.testing.assert_array_equal(whole["mask"], np.arange(count * batch_images) < n)
    np.testing.assert_array_equal(whole["label"][:n], [source[i]["label"] for i in range(n)])
    np.testing.assert_array_equal(whole["image"][:n], np.stack([decode(source[i]["image"], 32) for i in range(n)]))
    assert not whole["image"][n:].any()
    assert not whole["label"][n:].any()


@pytest.mark.parametrize(
    ("name", "index", "label"), [("bad_label", 4, 10), ("negative_label", 2, -1), ("huge_label", 1, 2**40)]
)
@pytest.mark.parametrize("batches_of", [lambda spec, source: train_batches(spec, source, 0), eval_batches])
def test_a_label_out_of_range_names_the_example(sets: Path, name: str, index: int, label: int, batches_of) -> None:
    spec = run_spec(6, size=8, name=name, data_dir=str(sets))
    batches = batches_of(spec, open_source(spec.data, "train", 10))
    with pytest.raises(UserError) as caught:
        take(batches, 1)
    expected = (
        f"example {index} of split 'train' of data set {name}/1.0.0 has the label {label}, but config.model.num_classes=10"
    )
    assert str(caught.value) == expected


def test_the_index_of_a_bad_example_is_that_within_the_slice(sets: Path) -> None:
    spec = run_spec(3, size=8, name="bad_label", data_dir=str(sets))
    with pytest.raises(UserError, match=r"example 1 of split 'train\[3:\]' of data set bad_label/1.0.0 has the label 10"):
        take(eval_batches(spec, open_source(spec.data, "train[3:]", 10)), 1)


def test_a_truncated_image_names_the_example(sets: Path) -> None:
    spec = run_spec(7, size=8, name="truncated", data_dir=str(sets))
    with pytest.raises(UserError, match=r"^example 5 of split 'train' of data set truncated/1\.0\.0 cannot be decoded: "):
        take(eval_batches(spec, open_source(spec.data, "train", 10)), 1)


class Counted(list):
    """Records that count how often they are read."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


def test_reading_ahead_starts_at_once_and_is_bounded(cifar10: Source) -> None:
    records = Counted(cifar10.records)
    batches = train_batches(run_spec(13, prefetch_batches=3), dataclasses.replace(cifar10, records=records), 10**8)
    assert wait_until(lambda: records.reads == 3 * 13)
    next(batches)
    assert wait_until(lambda: records.reads == 4 * 13)
    time.sleep(0.2)
    assert records.reads == 4 * 13
    batches.close()


@pytest.mark.parametrize("end", ["close", "garbage"])
def test_the_threads_end_with_the_iterator(cifar10: Source, end: str) -> None:
    before = set(threading.enumerate())
    batches = train_batches(run_spec(), cifar10, 0)
    next(batches)
    started = set(threading.enumerate()) - before
    assert started
    if end == "close":
        batches.close()
    else:
        del batches
        gc.collect()
    assert wait_until(lambda: not any(thread.is_alive() for thread in started))


SLOW_RUN = """
import signal, sys
from vit_attn.data.pipeline import train_batches
from vit_attn.data.source import Source, open_source
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.run import DataSpec, RunSpec, TrainSpec
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))  # as the trainer does: the loop looks between two steps
spec = RunSpec(model=ModelSpec(image_size=512, num_classes=10), train=TrainSpec(batch_images=64))
batches = train_batches(spec, open_source(spec.data, "train", 10), 0)
next(batches)
print("tensorflow" in sys.modules, flush=True)
while {forever} and not asked:
    next(batches)
sys.exit(7 if asked else 0)
"""


@pytest.mark.parametrize("forever", [True, False])
def test_a_process_ends_promptly_and_never_imports_tensorflow(forever: bool) -> None:
    """Neither SIGTERM in the midst of reading, nor the end of the program with the iterator open, may hang."""
    program = [sys.executable, "-c", SLOW_RUN.format(forever=forever)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline().split() == ["False"]
            if forever:
                process.terminate()
            assert process.wait(timeout=60) == (7 if forever else 0)
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
