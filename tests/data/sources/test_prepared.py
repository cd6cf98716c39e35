import dataclasses
import pickle
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from tfds_sets import CIFAR10_IMAGES

from vit_attn.data.sources.open import open_source
from vit_attn.spec.data import DataSpec
from vit_attn.spec.errors import UserError


@pytest.fixture
def cifar10(sets: Path) -> DataSpec:
    return DataSpec(name="cifar10", data_dir=str(sets))


def error_of(data: DataSpec, split: str = "train", num_classes: int = 10) -> str:
    with pytest.raises(UserError) as caught:
        open_source(data.split(split), num_classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_source_holds_the_encoded_examples(cifar10: DataSpec, split: str) -> None:
    source = open_source(cifar10.split(split), 10)
    assert len(source) == CIFAR10_IMAGES[split]
    assert source[0]["image"].startswith(b"\x89PNG")
    assert all(0 <= source[i]["labels"][0] < 10 and len(source[i]["labels"]) == 1 for i in range(len(source)))
    assert len({source[i]["image"] for i in range(len(source))}) == len(source)


@pytest.mark.parametrize(
    ("split", "rows"),
    [
        ("train[:50%]", range(18)),
        ("train[5:11]", range(5, 11)),
        ("train[-3:]", range(34, 37)),
        ("train[3:5]+train[:2]", [3, 4, 0, 1]),
    ],
)
def test_slices_of_a_split(cifar10: DataSpec, split: str, rows: range) -> None:
    whole, part = open_source(cifar10.split("train"), 10), open_source(cifar10.split(split), 10)
    assert [part[i] for i in range(len(part))] == [whole[i] for i in rows]


def test_a_source_can_be_pickled_after_use(cifar10: DataSpec) -> None:
    source = open_source(cifar10.split("train"), 10)
    first = source[0]
    assert pickle.loads(pickle.dumps(source))[0] == first


def test_the_newest_version_is_the_default(sets: Path) -> None:
    data = DataSpec(name="several_versions", data_dir=str(sets))
    assert open_source(data.split("train"), 10).name == "several_versions/1.10.0"
    assert open_source(dataclasses.replace(data, version="1.9.0").split("train"), 10).name == "several_versions/1.9.0"
    message = error_of(dataclasses.replace(data, version="1.8.0"))
    assert "config.data.version" in message
    assert "'1.8.0' is unknown" in message
    assert "(choices: 1.9.0, 1.10.0)" in message


def test_a_config_of_a_set(sets: Path) -> None:
    data = DataSpec(name="with_configs/small", data_dir=str(sets))
    assert len(open_source(data.split("train"), 10)) == 3
    message = error_of(dataclasses.replace(data, name="with_configs"))
    assert "config.data.name='with_configs' needs the name of a config" in message
    assert "with_configs/small" in message


def test_the_default_directory(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = DataSpec(name="cifar10", data_dir=None)
    monkeypatch.setenv("TFDS_DATA_DIR", str(sets))
    assert len(open_source(data.split("train"), 10)) == CIFAR10_IMAGES["train"]
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(sets))
    assert f"{str(sets / 'tensorflow_datasets')!r}" in error_of(data)


@pytest.mark.parametrize("exists", [True, False])
def test_a_set_that_is_not_prepared_tells_how_to(tmp_path: Path, exists: bool) -> None:
    data_dir = tmp_path / "my data"
    if exists:
        data_dir.mkdir()
    message = error_of(DataSpec(name="mnist", data_dir=str(data_dir)))
    assert f"data set 'mnist' is not prepared in config.data.data_dir={str(data_dir)!r}" in message
    code = shlex.split(message.rpartition("`python -c ")[2].removesuffix("`"))[0]
    assert code == (
        "import tensorflow_datasets as tfds; "
        f"tfds.builder('mnist', data_dir={str(data_dir)!r}, file_format='array_record').download_and_prepare()"
    )
    compile(code, "the suggested command", "exec")
    assert data_dir.exists() == exists  # nothing is created


def test_a_directory_with_awkward_characters_is_quoted(tmp_path: Path) -> None:
    message = error_of(DataSpec(name="mnist", data_dir=str(tmp_path / "it's $HOME")))
    command = message.rpartition("`python ")[2].removesuffix("`")
    said = subprocess.run(["sh", "-c", f"printf %s {command}"], capture_output=True, text=True, check=True).stdout
    assert f"data_dir={str(tmp_path / 'it')[:-2]}" not in said
    assert repr(str(tmp_path / "it's $HOME")) in said


def test_an_unknown_embedded_set_lists_those_there() -> None:
    message = error_of(DataSpec(name="fashion_mnist"))
    assert "'fashion_mnist' is unknown; did you mean 'fashion_mnist_12k'? (choices: fashion_mnist_12k)" in message


@pytest.mark.parametrize("split", ["trian", "validation", "train[", "train[a:b]", "train[:101%]", "train[:38]", ""])
def test_an_unknown_split_lists_those_there(cifar10: DataSpec, split: str) -> None:
    message = error_of(cifar10, split)
    assert f"split {split!r} of data set cifar10/3.0.2 (see config.data) is none of" in message
    assert "train (37 examples)" in message
    assert "test (23 examples)" in message


@pytest.mark.parametrize("split", ["train[:0]", "train[7:5]"])
def test_an_empty_split(cifar10: DataSpec, split: str) -> None:
    assert f"split {split!r} of data set cifar10/3.0.2 is empty" in error_of(cifar10, split)


@pytest.mark.parametrize("key", ["image_key", "label_key"])
def test_an_unknown_feature_lists_those_there(cifar10: DataSpec, key: str) -> None:
    message = error_of(dataclasses.replace(cifar10, **{key: "labels"}))
    assert message.startswith(f"config.data.{key}: the feature of data set cifar10/3.0.2 'labels' is unknown")
    assert "(choices: id, image, label)" in message


def test_features_of_the_wrong_kind(cifar10: DataSpec) -> None:
    assert "config.data.image_key='id'" in error_of(dataclasses.replace(cifar10, image_key="id"))
    assert "is not an integer" in error_of(dataclasses.replace(cifar10, label_key="image"))
    assert "is not an integer" in error_of(dataclasses.replace(cifar10, label_key="id"))


def test_more_classes_than_the_model_has(cifar10: DataSpec) -> None:
    message = error_of(cifar10, num_classes=9)
    assert message == "config.model.num_classes=9 is too small: 'label' of data set cifar10/3.0.2 has 10 classes"


def test_an_unreadable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = error_of(DataSpec(name="cifar10", data_dir=str(tmp_path / "file")))
    assert message == f"config.data.data_dir={str(tmp_path / 'file')!r} cannot be read: Not a directory"


def test_a_damaged_set(sets: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sets / "cifar10", tmp_path / "cifar10")
    data = DataSpec(name="cifar10", data_dir=str(tmp_path))
    shard = next(copy.glob("*/*test.array_record*"))
    shard.unlink()
    assert "is incomplete: its file" in error_of(data, "test")
    assert len(open_source(data.split("train"), 10)) == CIFAR10_IMAGES["train"]
    (copy / "3.0.2" / "dataset_info.json").write_text("{")
    assert f"{str(copy / '3.0.2')!r} cannot be read as a data set of TFDS" in error_of(data)
    (copy / "3.0.2" / "dataset_info.json").unlink()
    assert f"{str(copy / '3.0.2')!r} cannot be read as a data set of TFDS" in error_of(data)
