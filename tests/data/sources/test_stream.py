"""A set in TFRecord form, read as a stream."""

import dataclasses
import pickle
import random
import re
import shlex
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tfds_sets import write_numbered, write_set

from vit_attn.data.sources import run_cache
from vit_attn.data.sources.open import open_source
from vit_attn.data.sources.source import Source
from vit_attn.spec.data import SetSpec

TRAIN, TEST = 1009, 53
WINDOW = 100


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SetSpec:
    data_dir = tmp_path_factory.mktemp("tfrecords")
    write_numbered(data_dir, "numbers", {"train": TRAIN, "test": TEST}, file_format="tfrecord", shards=7)
    return SetSpec("numbers", None, str(data_dir), "train", "image", "label", 1)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is read from files from now on: (path, offset, skip, take)."""
    found = []

    def counting(*args: Any) -> Any:
        found.append(args)
        return read_records(*args)

    read_records = run_cache.read_records
    monkeypatch.setattr(run_cache, "read_records", counting)
    return found


def numbers(source: Source, indices: Any = None) -> list[int]:
    """The labels, which are the examples' numbers, at the given or at all indices."""
    return [source[i]["labels"][0] for i in (range(len(source)) if indices is None else indices)]


def stream(source: Source, positions: range, seed: int = 3) -> list[int]:
    return numbers(source, [source.order(position, seed)[1] for position in positions])


@pytest.mark.parametrize("window", [1, 13, WINDOW, 10**6])
def test_every_example_by_its_index(data: SetSpec, window: int) -> None:
    source = open_source(data, None, stream_window=window)
    assert len(source) == TRAIN
    assert numbers(source) == list(range(TRAIN))
    assert numbers(source, range(0, TRAIN, 101)) == list(range(0, TRAIN, 101))


@pytest.mark.parametrize("window", [50, WINDOW, 10**6])
def test_an_epoch_is_every_example_once(data: SetSpec, window: int) -> None:
    source = open_source(data, None, stream_window=window)
    first, second = stream(source, range(TRAIN)), stream(source, range(TRAIN, 2 * TRAIN))
    assert sorted(first) == sorted(second) == list(range(TRAIN))
    assert first != second


def test_any_order_of_access_gives_the_same_examples(data: SetSpec) -> None:
    source = open_source(data, None, stream_window=WINDOW)
    indices = list(range(TRAIN))
    random.Random(0).shuffle(indices)
    assert numbers(source, indices[:200]) == indices[:200]


def test_threads_share_what_is_read(data: SetSpec, reads: list[Any]) -> None:
    source = open_source(data, None, stream_window=WINDOW)
    pieces = [range(start, min(start + 8, TRAIN)) for start in range(0, TRAIN, 8)]
    with ThreadPoolExecutor(4) as pool:
        waves = [list(pool.map(lambda piece: stream(source, piece), pieces[at : at + 4])) for at in range(0, len(pieces), 4)]
    found = [number for wave in waves for piece in wave for number in piece]
    assert found == [source.order(position, 3)[1] for position in range(TRAIN)]
    assert sum(take for *_, take in reads) <= TRAIN + WINDOW  # the first block of the next epoch is read ahead
    assert sum(skip for *_, skip, _ in reads) <= 2 * WINDOW  # each file goes on where it stopped


def test_resuming_in_the_middle_gives_the_rest_of_the_stream_and_reads_no_more_than_that(
    data: SetSpec, reads: list[Any]
) -> None:
    whole = stream(open_source(data, None, stream_window=WINDOW), range(TRAIN + 30))
    del reads[:]
    middle = 7 * TRAIN // 8
    assert stream(open_source(data, None, stream_window=WINDOW), range(middle, middle + 10)) == whole[middle : middle + 10]
    assert sum(take for *_, take in reads) <= 2 * WINDOW  # this block and the next
    assert stream(open_source(data, None, stream_window=WINDOW), range(middle, TRAIN + 30)) == whole[middle:]


def test_pickled_copies_in_other_processes_agree(data: SetSpec, tmp_path: Path) -> None:
    source = open_source(data, None, stream_window=WINDOW)
    here = stream(source, range(40, 140))
    code = f"""
import pickle, sys
source = pickle.load(open({str(tmp_path / "source")!r}, "rb"))
print([source[source.order(position, 3)[1]]["labels"][0] for position in range(40, 140)])
assert not {{"tensorflow", "jax"}} & set(sys.modules)
"""
    (tmp_path / "source").write_bytes(pickle.dumps(source))
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == [str(here)] * 2
    assert [process.returncode for process in processes] == [0, 0]


def test_memory_is_bounded_by_the_window(tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    size, count = 20_000, 499
    features = {"image": tfds.features.Image(shape=(None, None, 1)), "label": tfds.features.Scalar(np.int64)}
    noise = np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()
    examples = [{"image": noise, "label": i} for i in range(count)]
    write_set(tmp_path, "large", features, {"train": examples}, file_format="tfrecord", shards=5)
    source = open_source(SetSpec("large", None, str(tmp_path), "train", "image", "label", 1), None, stream_window=50)
    tracemalloc.start()
    try:
        assert sorted(stream(source, range(count))) == list(range(count))
        assert numbers(source) == list(range(count))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 50 * size < peak < 4 * 50 * size


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
@pytest.mark.parametrize(
    "split",
    ["train", "train[:99%]", "train[13%:37%]", "train[5:11]", "train[-7:]", "train[3:5]+train[:300]", "test+train[990:]"],
)
def test_slices_are_those_of_tfds(tmp_path_factory: Any, data: SetSpec, file_format: str, split: str) -> None:
    import tensorflow_datasets as tfds

    data_dir = Path(str(data.data_dir)) if file_format == "tfrecord" else tmp_path_factory.getbasetemp() / "array_records"
    if not data_dir.exists():
        write_numbered(data_dir, "numbers", {"train": TRAIN, "test": TEST}, shards=7)
    source = open_source(dataclasses.replace(data, data_dir=str(data_dir), split=split), None, stream_window=WINDOW)
    builder = tfds.builder_from_directory(data_dir / "numbers" / "1.0.0")
    decoders = {"image": tfds.decode.SkipDecoding()}
    judge = (
        builder.as_dataset(split, decoders=decoders).as_numpy_iterator()
        if file_format == "tfrecord"
        else builder.as_data_source(split, decoders=decoders)
    )
    expected = [{"image": example["image"], "labels": [int(example["label"])]} for example in judge]
    assert [source[i] for i in range(len(source))] == expected
    assert sorted(source.order(position, 1)[1] for position in range(len(source))) == list(range(len(source)))


def test_the_file_of_an_example_is_named(data: SetSpec) -> None:
    source = open_source(dataclasses.replace(data, split="train[300:]"), None)
    said = re.fullmatch(
        r"example 0 of split 'train\[300:\]' of data set numbers/1\.0\.0 \(record (\d+) of the file '(.*)'\)", source.where(0)
    )
    assert said is not None
    import tensorflow as tf

    record = list(tf.data.TFRecordDataset(said[2]))[int(said[1])].numpy()
    assert tf.train.Example.FromString(record).features.feature["label"].int64_list.value == [300]


def test_it_tells_once_how_to_convert_the_set_and_that_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_dir = tmp_path / "old sets"
    write_numbered(data_dir, "numbers", {"train": 23, "test": 5}, file_format="tfrecord")
    data = SetSpec("numbers", None, str(data_dir), "train", "image", "label", 1)
    capsys.readouterr()
    old = open_source(data, None)
    said = capsys.readouterr().err
    command = re.search("copy the set with `python (.*)` and set config.data.data_dir=('.*')\n$", said)
    assert said.count("\n") == 1
    assert command is not None
    open_source(dataclasses.replace(data, split="test"), None)
    assert capsys.readouterr().err == ""
    subprocess.run([sys.executable, *shlex.split(command[1])], check=True, capture_output=True)
    for split in ("train", "test"):
        old = open_source(dataclasses.replace(data, split=split), None)
        new = open_source(dataclasses.replace(data, split=split, data_dir=command[2].strip("'")), None)
        assert type(new) is not type(old)
        by_label = {example["labels"][0]: example for example in (new[i] for i in range(len(new)))}
        assert [old[i] for i in range(len(old))] == [by_label[i] for i in range(len(new))]
