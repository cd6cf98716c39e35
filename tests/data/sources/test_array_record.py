import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tfds_sets import write_numbered

from vit_attn.data.sources.open import open_source
from vit_attn.data.sources.source import Source
from vit_attn.spec.data import SetSpec

TRAIN, SHARDS = 211, 101


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    data_dir = tmp_path_factory.mktemp("array_records")
    write_numbered(data_dir, "numbers", {"train": TRAIN}, shards=SHARDS)
    return open_source(SetSpec("numbers", None, str(data_dir), "train", "image", "label", 1), None)


def test_any_order_of_access_gives_the_same_examples(source: Source) -> None:
    indices = list(range(TRAIN))
    random.Random(0).shuffle(indices)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda index: source[index]["labels"], indices)) == [[index] for index in indices]


def test_an_epoch_is_every_example_once(source: Source) -> None:
    orders = [[source.order(epoch * TRAIN + at, 3) for at in range(TRAIN)] for epoch in range(2)]
    assert sorted(orders[0]) == [(0, index) for index in range(TRAIN)]
    assert sorted(orders[1]) == [(1, index) for index in range(TRAIN)]
    assert [index for _, index in orders[0]] != [index for _, index in orders[1]]


def test_none_one_and_several_labels(tmp_path: Path) -> None:
    write_numbered(tmp_path, "several", {"train": 11}, several=True)
    several = open_source(SetSpec("several", None, str(tmp_path), "train", "image", "label", 3), None)
    assert [several[i]["labels"] for i in range(5)] == [[], [0], [0, 1], [0, 1, 2], []]


def test_pickled_copies_in_other_processes_agree_and_open_more_files_than_the_limit(source: Source, tmp_path: Path) -> None:
    expected = [source[source.order(position, 3)[1]]["labels"][0] for position in range(TRAIN)]
    (tmp_path / "source").write_bytes(pickle.dumps(source))
    code = f"""
import pickle, resource, sys, time
time.sleep = None  # nothing is to be tried again
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
source = pickle.load(open({str(tmp_path / "source")!r}, "rb"))
print([source[source.order(position, 3)[1]]["labels"][0] for position in range({TRAIN})])
assert not {{"tensorflow", "jax"}} & set(sys.modules)
"""
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == [str(expected)] * 2
    assert [process.returncode for process in processes] == [0, 0]


@pytest.mark.parametrize("index", [-1, TRAIN])
def test_an_index_out_of_range(source: Source, index: int) -> None:
    with pytest.raises(IndexError):
        source[index]
    with pytest.raises(IndexError):
        source.where(index)
