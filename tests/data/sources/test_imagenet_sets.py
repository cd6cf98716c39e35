"""Sets in the format of ImageNet, both forms, against TFDS's own reading of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagenet_sets
import pytest
import tensorflow_datasets as tfds
from imagenet_sets import FEWSHOT, I21K_CLASSES

from vit_attn.data.decode import decode
from vit_attn.data.sources.open import open_source
from vit_attn.spec.data import SetSpec
from vit_attn.spec.errors import UserError


@pytest.fixture(scope="module", params=imagenet_sets.FORMATS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a set, once: the function of `imagenet_sets` by its name -> data_dir."""
    data_dir = tmp_path_factory.mktemp(request.param)
    there: set[str] = set()

    def make(name: str, **how: int) -> Path:
        if name not in there:
            there.add(name)
            getattr(imagenet_sets, name)(data_dir, file_format=request.param, **how)
        return data_dir

    return make


def judged(builder: Any, split: str) -> list[dict[str, Any]]:
    """The examples as TFDS reads them, images encoded."""
    decoders = {"image": tfds.decode.SkipDecoding()}
    if builder.info.file_format.value == "array_record":
        return list(builder.as_data_source(split, decoders=decoders))
    in_order = tfds.ReadConfig(interleave_cycle_length=1)
    return list(builder.as_dataset(split, decoders=decoders, read_config=in_order).as_numpy_iterator())


@pytest.mark.parametrize(
    ("maker", "name", "split", "label_key", "classes", "version"),
    [
        ("write_imagenet2012", "imagenet2012", "train[:99%]", "label", 1000, "5.1.0"),
        ("write_imagenet2012", "imagenet2012", "train[99%:]", "label", 1000, "5.1.0"),
        ("write_imagenet2012", "imagenet2012", "validation", "label", 1000, "5.1.0"),
        ("write_imagenet21k", "imagenet21k", "full", "label", I21K_CLASSES, "1.0.0"),
        ("write_imagenet_v2", "imagenet_v2/matched-frequency", "test", "label", 1000, "3.0.0"),
        ("write_imagenet2012_real", "imagenet2012_real", "validation", "real_label", 1000, "1.0.0"),
        ("write_imagenet2012_real", "imagenet2012_real", "validation", "original_label", 1000, "1.0.0"),
    ],
)
def test_examples_are_those_that_tfds_reads(
    made: Callable[[str], Path], maker: str, name: str, split: str, label_key: str, classes: int, version: str
) -> None:
    data_dir = made(maker)
    source = open_source(SetSpec(name, None, str(data_dir), split, "image", label_key, 3), classes)
    assert source.name == f"{name}/{version}"
    builder = tfds.builder_from_directory(data_dir / name / version)
    judge = judged(builder, split)
    labels = [example[label_key].tolist() if hasattr(example[label_key], "tolist") else example[label_key] for example in judge]
    assert [source[i]["image"] for i in range(len(source))] == [example["image"] for example in judge]
    assert [source[i]["labels"] for i in range(len(source))] == [each if isinstance(each, list) else [each] for each in labels]
    feature = builder.info.features[label_key]
    assert source.label_names == getattr(feature, "feature", feature).names
    assert len(source.label_names) == classes
    assert decode(source[0]["image"]).shape[-1] == 3


def test_labels_of_imagenet_are_those_of_the_archives(made: Callable[[str], Path]) -> None:
    """TFDS stores the file's name, which says the class."""
    data_dir = made("write_imagenet2012")
    names = open_source(SetSpec("imagenet2012", None, str(data_dir), "train", "image", "label", 1), 1000).label_names
    builder = tfds.builder_from_directory(data_dir / "imagenet2012" / "5.1.0")
    stored = judged(builder, "train")
    assert len(stored) == 150
    assert all(example["file_name"].decode().startswith(names[example["label"]] + "_") for example in stored)
    assert len({example["label"] for example in stored}) == 5


def test_imagenet21k_lacks_one_class_of_imagenet() -> None:
    known = set(imagenet_sets.i21k_classes())
    assert len(known) == I21K_CLASSES
    assert {name for name in imagenet_sets.imagenet_classes() if name not in known} == {"n04399382"}


def test_several_labels(tmp_path: Path) -> None:
    imagenet_sets.write_imagenet21k(tmp_path, size=7, most_labels=3)
    data = SetSpec("imagenet21k", None, str(tmp_path), "full", "image", "label", 3)
    source = open_source(data, I21K_CLASSES)
    assert [len(source[i]["labels"]) for i in range(7)] == [1, 2, 3, 1, 2, 3, 1]
    assert source[4]["labels"] == [4 * 1009, 4 * 1009 + 7]
    few = open_source(SetSpec("imagenet21k", None, str(tmp_path), "full", "image", "label", 2), I21K_CLASSES)
    assert len(few[1]["labels"]) == 2
    with pytest.raises(UserError) as caught:
        few[2]
    assert str(caught.value) == f"{few.where(2)} has 3 labels, but config.data.max_labels=2"


@pytest.mark.parametrize("name", FEWSHOT)
def test_fewshot_sets_have_the_features_of_tfds(tmp_path: Path, name: str) -> None:
    written = imagenet_sets.write_fewshot(tmp_path, name)
    like = tfds.builder_cls(name)(data_dir=tmp_path / "elsewhere")
    builder = tfds.builder_from_directory(written)
    assert builder.info.full_name == like.info.full_name
    assert repr(builder.info.features) == repr(like.info.features)
    assert set(builder.info.splits) == set(FEWSHOT[name])
    for split in FEWSHOT[name]:
        source = open_source(SetSpec(name, None, str(tmp_path), split, "image", "label", 1), None)
        colours = {0: [], 1: [], 2: []}
        for i in range(len(source)):
            colours[source[i]["labels"][0]].append(int(decode(source[i]["image"]).mean((0, 1)).argmax()))
        assert colours == {label: [label] * 12 for label in range(3)}
