"""Batches: the examples at their positions, whoever reads them and wherever reading begins again."""

import dataclasses
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from tfds_sets import CIFAR10_IMAGES

from vit_attn.data.batch import Batch
from vit_attn.data.passes import Pass, View
from vit_attn.data.pipeline import pass_batches, train_batches
from vit_attn.data.sources.open import open_source
from vit_attn.data.sources.source import Source
from vit_attn.data.views import whole_view
from vit_attn.data.workers import Workers
from vit_attn.spec.data import DataSpec
from vit_attn.spec.errors import UserError
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.run import RunSpec, TrainSpec


def run_spec(batch_images: int = 13, size: int = 32, **data: object) -> RunSpec:
    return RunSpec(
        model=ModelSpec(image_size=size, num_classes=10),
        data=DataSpec(**data),  # type: ignore[arg-type]
        train=TrainSpec(batch_images=batch_images),
    )


def whole(source: Source, batch_images: int, size: int = 32) -> Pass:
    return Pass(source, View(size), batch_images, range(len(source)), num_classes=10)


def opened(sets: Path, name: str, split: str = "train") -> Source:
    return open_source(DataSpec(name=name, data_dir=str(sets)).split(split), None)


@pytest.fixture(scope="module")
def cifar10(sets: Path) -> Source:
    return opened(sets, "cifar10")


@pytest.fixture(scope="module")
def threads():
    with closing(Workers(0, 2)) as workers:
        yield workers


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


@pytest.mark.parametrize("batch_images", [13, 131])  # less and more than a worker decodes in one go
def test_a_batch_holds_the_examples_at_its_positions(cifar10: Source, threads: Workers, batch_images: int) -> None:
    batches = take(train_batches(run_spec(batch_images, seed=3), cifar10, 0, threads), 5)
    places = [cifar10.order(position, 3) for position in range(5 * batch_images)]
    expected = np.stack([whole_view(cifar10[i]["image"], 32) for _, i in places])
    got = joined(batches)
    np.testing.assert_array_equal(got["image"], expected, strict=True)
    np.testing.assert_array_equal(got["labels"], [cifar10[i]["labels"] for _, i in places])
    np.testing.assert_array_equal(np.stack([got["epoch"], got["index"]], axis=1), places)
    assert all(batch["image"].shape == (batch_images, 32, 32, 3) and batch["labels"].dtype == np.int32 for batch in batches)


def test_an_epoch_of_batches_counts_every_example_once(cifar10: Source, threads: Workers) -> None:
    length = len(cifar10)
    images = joined(take(train_batches(run_spec(length), cifar10, 0, threads), 2))["image"]
    for epoch in (images[:length], images[length:]):
        assert len({image.tobytes() for image in epoch}) == length


@pytest.mark.parametrize("start", [1, 4, 7])
def test_a_restart_continues_with_the_same_batches(cifar10: Source, threads: Workers, start: int) -> None:
    spec = run_spec(crop="inception")
    all_of_them = take(train_batches(spec, cifar10, 0, threads), 10)
    for expected, got in zip(all_of_them[start:], take(train_batches(spec, cifar10, start, threads), 10 - start), strict=True):
        assert_same(got, expected)


def test_the_crops_of_an_example_differ_by_seed_and_epoch_alone(cifar10: Source, threads: Workers) -> None:
    def crops(seed: int, batch_images: int) -> dict[tuple[int, int], bytes]:
        spec = run_spec(batch_images, seed=seed, crop="inception")
        got = joined(take(train_batches(spec, cifar10, 0, threads), 3 * len(cifar10) // batch_images))
        return {(e, i): image.tobytes() for e, i, image in zip(got["epoch"], got["index"], got["image"], strict=True)}

    one, other_batches, other_seed = crops(0, 37), crops(0, 3), crops(1, 37)
    assert one == other_batches
    assert sum(one[place] == other_seed[place] for place in one) < 5
    assert sum(one[0, i] == one[1, i] for i in range(len(cifar10))) < 5


@pytest.mark.parametrize("hosts", [2, 4])
@pytest.mark.parametrize("batch_images", [13, 263])
def test_the_hosts_share_the_batches_of_one(cifar10: Source, threads: Workers, hosts: int, batch_images: int) -> None:
    spec = run_spec(batch_images)
    rows = [range(p * batch_images // hosts, (p + 1) * batch_images // hosts) for p in range(hosts)]
    parts = [take(train_batches(spec, cifar10, 2, threads, mine), 3) for mine in rows]
    for step, expected in enumerate(take(train_batches(spec, cifar10, 2, threads), 3)):
        assert_same(joined([part[step] for part in parts]), expected)


def test_threads_and_processes_make_the_same_batches(cifar10: Source) -> None:
    streams = []
    for processes, count, ahead in ((0, 1, 1), (0, 5, 3), (2, 1, 2)):
        spec = run_spec(131, crop="inception", prefetch_batches=ahead)
        with closing(Workers(processes, count)) as workers:
            streams.append(take(train_batches(spec, cifar10, 0, workers), 5))
    for one, five, two in zip(*streams, strict=True):
        assert_same(one, five)
        assert_same(one, two)


@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize("batch_images", [1, 7, 23, 101])
def test_evaluation_counts_every_image_once(sets: Path, threads: Workers, hosts: int, batch_images: int) -> None:
    source = opened(sets, "cifar10", "test")
    rows = [range(p * batch_images // hosts, (p + 1) * batch_images // hosts) for p in range(hosts)]
    parts = [take(pass_batches(DataSpec(), whole(source, batch_images), threads, mine), 10**9) for mine in rows]
    count = math.ceil(CIFAR10_IMAGES["test"] / batch_images)
    assert [len(part) for part in parts] == [count] * hosts
    got = joined([joined([part[number] for part in parts]) for number in range(count)])
    n = len(source)
    assert got["image"].shape == (count * batch_images, 32, 32, 3)
    assert got["mask"].dtype == np.float32
    np.testing.assert_array_equal(got["mask"], np.arange(count * batch_images) < n)
    np.testing.assert_array_equal(got["labels"][:n], [source[i]["labels"] for i in range(n)])
    np.testing.assert_array_equal(got["image"][:n], np.stack([whole_view(source[i]["image"], 32) for i in range(n)]))
    assert not got["image"][n:].any()
    assert (got["labels"][n:] == -1).all()


def train_or_pass(spec: RunSpec, source: Source, workers: Workers, which: str):
    if which == "train":
        return train_batches(spec, source, 0, workers)
    return pass_batches(spec.data, whole(source, spec.train.batch_images, spec.model.image_size), workers)


@pytest.mark.parametrize("processes", [0, 1])
@pytest.mark.parametrize(
    ("name", "index", "label"), [("bad_label", 4, 10), ("negative_label", 2, -1), ("huge_label", 1, 2**40)]
)
def test_a_label_out_of_range_names_the_example(sets: Path, name: str, index: int, label: int, processes: int) -> None:
    spec = run_spec(6, size=8)
    for which in ("train", "pass"):
        with closing(Workers(processes, 1)) as workers, pytest.raises(UserError) as caught:
            take(train_or_pass(spec, opened(sets, name), workers, which), 1)
        words = (f"example {index} of split 'train' of data set {name}/1.0.0", f"has the label {label}", "num_classes=10")
        assert all(word in str(caught.value) for word in words), str(caught.value)


def test_the_index_of_a_bad_example_is_that_within_the_slice(sets: Path, threads: Workers) -> None:
    with pytest.raises(UserError, match=r"example 1 of split 'train\[3:\]' of data set bad_label/1.0.0"):
        take(pass_batches(DataSpec(), whole(opened(sets, "bad_label", "train[3:]"), 3, 8), threads), 1)


@pytest.mark.parametrize("which", ["train", "pass"])
def test_a_truncated_image_is_an_error_that_names_it(sets: Path, threads: Workers, which: str) -> None:
    with pytest.raises(UserError, match=r"^example 5 of split 'train' of data set truncated/1\.0\.0.* cannot be decoded: "):
        take(train_or_pass(run_spec(7, size=8), opened(sets, "truncated"), threads, which), 1)


def test_a_bad_image_is_replaced_by_the_next_good_one_and_counted(sets: Path, threads: Workers) -> None:
    source = opened(sets, "truncated")  # index 5 of 7
    spec = run_spec(7, size=8, on_bad_image="skip", max_bad_share=0.2)
    batches = train_batches(spec, source, 0, threads)
    got = joined(take(batches, 3))
    for epoch, index, image, label in zip(got["epoch"], got["index"], got["image"], got["labels"], strict=True):
        read = source[6 if index == 5 else index]
        np.testing.assert_array_equal(image, whole_view(read["image"], 8), err_msg=f"epoch {epoch}")
        assert label == read["labels"]
    assert (batches.reading.bad, batches.reading.images) == (3, 21)


def test_a_bad_image_does_not_count_in_evaluation(sets: Path, threads: Workers) -> None:
    data = DataSpec(on_bad_image="skip", max_bad_share=0.2)
    got = joined(take(pass_batches(data, whole(opened(sets, "truncated"), 4, 8), threads), 9))
    np.testing.assert_array_equal(got["mask"], [1, 1, 1, 1, 1, 0, 1, 0])


def test_too_many_bad_images_are_an_error(sets: Path, threads: Workers) -> None:
    spec = run_spec(7, size=8, on_bad_image="skip", max_bad_share=0.14)  # 1 of 7 is 0.1429
    with pytest.raises(UserError, match=r"1 images of truncated/1.0.0 could not be decoded.*max_bad_share=0\.14"):
        take(train_batches(spec, opened(sets, "truncated"), 0, threads), 1)


class Counted:
    """A source that counts how often it is read."""

    def __init__(self, source: Source) -> None:
        self._source, self.reads = source, 0
        self.name, self.split, self.where, self.order = source.name, source.split, source.where, source.order

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index):
        self.reads += 1
        return self._source[index]


@pytest.mark.parametrize(("batches_ahead", "bytes_ahead", "most"), [(3, 2**30, 3), (30, 5 * 13 * 32 * 32 * 3, 5), (9, 1, 1)])
def test_reading_ahead_starts_at_once_and_is_bounded(
    cifar10: Source, threads: Workers, batches_ahead: int, bytes_ahead: int, most: int
) -> None:
    source = Counted(cifar10)
    spec = run_spec(13, prefetch_batches=batches_ahead, prefetch_bytes=bytes_ahead)
    with closing(train_batches(spec, source, 10**8, threads)) as batches:
        assert wait_until(lambda: source.reads == most * 13)
        next(batches)
        assert wait_until(lambda: source.reads == (most + 1) * 13)
        time.sleep(0.2)
        assert source.reads == (most + 1) * 13


def test_what_takes_too_long_is_an_error_and_no_hang(cifar10: Source, threads: Workers) -> None:
    class Slow(Counted):
        def __getitem__(self, index):
            time.sleep(1)
            return super().__getitem__(index)

    spec = dataclasses.replace(run_spec(2), data=DataSpec(timeout_seconds=0.1, prefetch_batches=1))
    with pytest.raises(UserError, match=r"no data came for 0 s.*config\.data\.timeout_seconds"):
        take(train_batches(spec, Slow(cifar10), 0, threads), 1)


RUN = """
import signal, sys
from contextlib import closing
from vit_attn.data.pipeline import train_batches
from vit_attn.data.sources.open import open_source
from vit_attn.data.workers import Workers
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.run import RunSpec, TrainSpec
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))  # as the trainer does: the loop looks between two steps
spec = RunSpec(model=ModelSpec(image_size=512, num_classes=10), train=TrainSpec(batch_images=64))
with closing(Workers(0, 2)) as workers:
    with closing(train_batches(spec, open_source(spec.data.split("train"), 10), 0, workers)) as batches:
        next(batches)
        print([name for name in ("tensorflow",) if name in sys.modules], flush=True)
        while {forever} and not asked:
            next(batches)
sys.exit(7 if asked else 0)
"""


@pytest.mark.parametrize("forever", [True, False])
def test_a_process_ends_promptly_and_never_imports_tensorflow(forever: bool) -> None:
    """Neither SIGTERM in the midst of reading, nor the end of the program, may hang."""
    program = [sys.executable, "-c", RUN.format(forever=forever)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline().strip() == "[]"
            if forever:
                process.terminate()
            assert process.wait(timeout=60) == (7 if forever else 0)
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
