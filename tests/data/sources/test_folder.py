import dataclasses
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from imagenet_sets import write_folder

from vit_attn.data.sources.open import open_source
from vit_attn.data.sources.source import Source
from vit_attn.spec.data import SetSpec
from vit_attn.spec.errors import UserError

TRAIN = {"n02": 41, "n01": 43, "n10": 17}  # 101 images
CLASSES = ["n01", "n02", "n10", "n99"]  # n99 is only in val


def fake(images: int, seed: int) -> list[bytes]:
    return [f"image {number} of {seed}".encode() for number in range(images)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder of images")
    write_folder(root, {"train": TRAIN, "val": {"n99": 2, "n01": 3}}, suffixes=[".jpg", ".JPEG", ".png", ".Jpg"], images=fake)
    (root / "train" / "n01" / "notes.txt").write_text("no image")
    (root / "train" / "n01" / ".hidden.jpg").write_text("no image")
    (root / "train" / ".cache").mkdir()
    (root / "train" / "README.jpg").write_text("in no class")
    (root / "empty").mkdir()
    (root / "labels.csv").write_text("")
    return root


def opened(root: Path | str, split: str = "train", num_classes: int | None = None) -> Source:
    return open_source(SetSpec(str(root), split=split), num_classes)


def error_of(root: Path | str, split: str = "train", num_classes: int | None = None) -> str:
    with pytest.raises(UserError) as caught:
        opened(root, split, num_classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files(source: Source) -> list[str]:
    return [re.search(r"\(the file '(.*)'\)$", source.where(i))[1] for i in range(len(source))]  # type: ignore[index]


def test_examples_are_sorted_by_class_and_name(root: Path) -> None:
    source = opened(root)
    expected = sorted(
        (
            path
            for path in root.glob("train/n*/*.*")
            if path.suffix.lower() in (".jpg", ".jpeg", ".png") and path.name[0] == "n"
        ),
        key=lambda path: (path.parent.name, path.name),
    )
    expected = [path for path in expected if path.name != "notes.txt"]
    assert files(source) == [str(path) for path in expected]
    assert len(source) == 101
    assert source.label_names == CLASSES
    for i, path in enumerate(expected):
        assert source[i] == {"image": path.read_bytes(), "labels": [CLASSES.index(path.parent.name)]}
    assert source.where(0) == f"example 0 of split 'train' of the folder {str(root)!r} (the file {str(expected[0])!r})"
    assert (source.name, source.split) == (str(root), "train")


def test_labels_number_the_classes_of_all_splits(root: Path) -> None:
    val = opened(root, "val")
    assert [val[i]["labels"] for i in range(5)] == [[0], [0], [0], [3], [3]]


@pytest.mark.parametrize("name", ["{root}/", "~/{home}", "./{relative}", "../{up}/{relative}"])
def test_how_a_folder_may_be_named(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root.parent))
    monkeypatch.chdir(root.parent)
    named = name.format(root=root, home=root.name, relative=root.name, up=root.parent.name)
    assert [opened(named)[i] for i in (0, 50, 100)] == [opened(root)[i] for i in (0, 50, 100)]


@pytest.mark.parametrize(
    ("first", "second"), [("train[:99%]", "train[99%:]"), ("train[:37]", "train[37:]"), ("train[:-20%]", "train[-20%:]")]
)
def test_slices_divide_the_files_and_mix_the_classes(root: Path, first: str, second: str) -> None:
    one, other = files(opened(root, first)), files(opened(root, second))
    assert sorted(one + other) == sorted(files(opened(root)))
    assert one == sorted(one)
    assert len({Path(name).parent for name in one}) == 3  # the first 37 files, sorted, would be of one class
    assert files(opened(root, first)) == one


def test_sizes_of_slices_are_those_of_tfds(root: Path) -> None:
    sizes = {
        "train[:99%]": 100,
        "train[10%:20%]": 10,
        "train[17:40]": 23,
        "train[-7:]": 7,
        "train+val": 106,
        "val[:2]+train[:5]": 7,
    }
    assert {split: len(opened(root, split)) for split in sizes} == sizes
    both = files(opened(root, "val[:2]+train[:5]"))
    assert ["/val/" in name for name in both] == [True] * 2 + [False] * 5
    again = files(opened(root, "train[:5]+train[:5]"))
    assert again[:5] == again[5:] == both[2:]


def test_a_slice_stays_what_it_was(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train": {"a": 13}}, images=fake)
    names = [Path(name).stem for name in files(opened(tmp_path, "train[:4]"))]
    assert names == ["a_1", "a_12", "a_5", "a_7"]


@pytest.mark.parametrize("split", ["train", "train[:37]", "val"])
def test_an_epoch_is_every_example_once(root: Path, split: str) -> None:
    source = opened(root, split)
    orders = [[source.order(epoch * len(source) + at, 3) for at in range(len(source))] for epoch in range(3)]
    for epoch, order in enumerate(orders):
        assert sorted(order) == [(epoch, index) for index in range(len(source))]
    assert len({tuple(index for _, index in order) for order in orders}) == 3


def test_pickled_copies_in_other_processes_agree(root: Path, tmp_path: Path) -> None:
    source = opened(root, "train[:60%]")
    (tmp_path / "source").write_bytes(pickle.dumps(source))
    code = f"""
import pickle, sys
source = pickle.load(open({str(tmp_path / "source")!r}, "rb"))
print([source[source.order(position, 3)[1]] for position in range(70)])
assert not {{"tensorflow", "jax"}} & set(sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str([source[source.order(position, 3)[1]] for position in range(70)])


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert error_of(tmp_path / "none") == f"config.data.name={str(tmp_path / 'none')!r}: there is no such folder"
    (tmp_path / "file").touch()
    assert error_of(tmp_path / "file") == f"config.data.name={str(tmp_path / 'file')!r} cannot be read: Not a directory"
    (tmp_path / "bare").mkdir()
    assert "has no sub-folders; expected SPLIT/CLASS/NAME.jpg in it" in error_of(tmp_path / "bare")


@pytest.mark.parametrize("split", ["trian", "train[", "train[:101%]", "train[:102]", "", "test+train"])
def test_an_unknown_split_lists_those_there(root: Path, split: str) -> None:
    message = error_of(root, split)
    assert f"split {split!r} of the folder {str(root)!r} is none of its sub-folders empty, train" in message
    assert "val, nor a slice of one, as in 'train[:99%]'" in message


def test_a_split_without_images(root: Path) -> None:
    assert f"split 'empty' of the folder {str(root)!r} has no images (.jpg, .jpeg, .png) in class folders" in error_of(
        root, "empty"
    )
    assert "split 'train[5:5]'" in (message := error_of(root, "train[5:5]"))
    assert "is empty" in message


def test_more_classes_than_the_model_has(root: Path) -> None:
    assert error_of(root, num_classes=3) == (f"config.model.num_classes=3 is too small: the folder {str(root)!r} has 4 classes")
    assert len(opened(root, num_classes=4)) == 101


def test_other_names_of_the_settings(root: Path) -> None:
    with pytest.raises(UserError, match=r"^config\.evals\.real\.name='/none'"):
        open_source(dataclasses.replace(SetSpec(str(root), split="train"), name="/none"), None, where="config.evals.real")


@pytest.mark.parametrize("index", [-1, 101])
def test_an_index_out_of_range(root: Path, index: int) -> None:
    with pytest.raises(IndexError):
        opened(root)[index]
