"""Data sets in the format of ImageNet and of the sets around it, as TFDS makes them, small. Making them imports tensorflow.

Features, names, versions and the order of the files are those of TFDS's own builders; the images are photographs, or, where
TFDS's set has small or artificial images, coloured noise.
"""

import io
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from photographs import photographs
from tfds_sets import encode, write_set

FORMATS = ("array_record", "tfrecord")
I21K_CLASSES = 21_843
ABSENT_FROM_I21K = "n04399382"  # the one class of ImageNet-1k that ImageNet-21k lacks
FEWSHOT = {  # splits, as TFDS has them
    "caltech_birds2011": ("train", "test"),
    "caltech101": ("train", "test"),
    "cars196": ("train", "test"),
    "cifar100": ("train", "test"),
    "dtd": ("train", "test", "validation"),
    "colorectal_histology": ("train",),
    "oxford_iiit_pet": ("train", "test"),
    "uc_merced": ("train",),
}


def imagenet_classes() -> list[str]:
    """The WordNet ids of ImageNet-1k, in the order of their labels."""
    return list(_builder("imagenet2012").info.features["label"].names)


def i21k_classes() -> list[str]:
    """21,843 names, sorted: the ids of ImageNet-1k that ImageNet-21k has, and made-up ones."""
    known = imagenet_classes()
    made_up = (f"n{number:08d}" for number in count(1, 4001))
    fresh = islice((name for name in made_up if name not in known), I21K_CLASSES + 1 - len(known))
    return sorted({*known, *fresh} - {ABSENT_FROM_I21K})


def write_archives(
    folder: Path,
    *,
    train: int = 150,
    validation: int = 50,
    labels: Sequence[int] = (0, 1, 2, 281, 999),
    images: Callable[[int, int], list[bytes]] = photographs,
) -> Path:
    """ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, as ImageNet is distributed; returns `folder`.

    Image i has the label labels[i % len(labels)] in the first; in the second, TFDS's list of ImageNet's labels decides.
    """
    folder.mkdir(parents=True, exist_ok=True)
    classes = imagenet_classes()
    encoded = images(train, 0)
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as archive:
        for at, label in enumerate(labels):
            mine = {f"{classes[label]}_{i}.JPEG": data for i, data in enumerate(encoded[at :: len(labels)])}
            _add(archive, f"{classes[label]}.tar", _tar(mine))
    names = {f"ILSVRC2012_val_{i + 1:08d}.JPEG": data for i, data in enumerate(images(validation, 1))}
    (folder / "ILSVRC2012_img_val.tar").write_bytes(_tar(names))
    return folder


def write_imagenet2012(data_dir: Path, *, file_format: str = "array_record", **archives: Any) -> Path:
    """`imagenet2012`, made by TFDS's own builder from home-made archives (see `write_archives`).

    Returns the directory of the version, as all functions here do that prepare a set.
    """
    import tensorflow_datasets as tfds

    manual = write_archives(data_dir.parent / f"{data_dir.name}-archives", **archives)
    builder = tfds.builder("imagenet2012", data_dir=data_dir, file_format=file_format)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual))
    return Path(builder.data_dir)


def write_imagenet21k(
    data_dir: Path,
    *,
    size: int = 60,
    most_labels: int = 1,
    file_format: str = "array_record",
    images: Callable[[int, int], list[bytes]] = photographs,
) -> Path:
    """`imagenet21k`, split `full`, 21,843 classes; with `most_labels` above 1, image i has 1 + i % most_labels labels."""
    import tensorflow_datasets as tfds

    label = tfds.features.ClassLabel(names=i21k_classes())
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "file_name": tfds.features.Text(),
        "label": tfds.features.Sequence(label) if most_labels > 1 else label,
    }
    examples = []
    for i, data in enumerate(images(size, 2)):
        own = [(1009 * i + 7 * extra) % I21K_CLASSES for extra in range(1 + i % most_labels)]
        name = f"{label.int2str(own[0])}_{i}.JPEG"
        examples.append({"image": data, "file_name": name, "label": own if most_labels > 1 else own[0]})
    return _store(data_dir, "imagenet21k", "1.0.0", None, features, {"full": examples}, file_format)


def write_imagenet_v2(
    data_dir: Path,
    *,
    size: int = 30,
    labels: Sequence[int] = (0, 1, 2, 281, 999),
    file_format: str = "array_record",
    images: Callable[[int, int], list[bytes]] = photographs,
) -> Path:
    """`imagenet_v2/matched-frequency`, whose only split is `test`."""
    examples = [
        {"image": data, "label": labels[i % len(labels)], "file_name": f"{labels[i % len(labels)]}/{i}.jpeg"}
        for i, data in enumerate(images(size, 3))
    ]
    return _store_like(data_dir, "imagenet_v2", {"test": examples}, file_format)


def write_imagenet2012_real(
    data_dir: Path,
    *,
    size: int = 30,
    labels: Sequence[int] = (0, 1, 2, 281, 999),
    file_format: str = "array_record",
    images: Callable[[int, int], list[bytes]] = photographs,
) -> Path:
    """`imagenet2012_real`, split `validation`; image i has i % 4 real labels, so some have none, as in the original."""
    examples = [
        {
            "image": data,
            "original_label": labels[i % len(labels)],
            "real_label": [labels[(i + extra) % len(labels)] for extra in range(i % 4)],
            "file_name": f"ILSVRC2012_val_{i + 1:08d}.JPEG",
        }
        for i, data in enumerate(images(size, 1))
    ]
    return _store_like(data_dir, "imagenet2012_real", {"validation": examples}, file_format)


def write_folder(
    root: Path,
    splits: Mapping[str, Mapping[str, int]],
    *,
    suffixes: Sequence[str] = (".jpg",),
    images: Callable[[int, int], list[bytes]] = photographs,
) -> Path:
    """Files SPLIT/CLASS/NAME.jpg; `splits`: how many of each class. Returns `root`."""
    for seed, (split, classes) in enumerate(splits.items()):
        encoded = iter(images(sum(classes.values()), seed))
        for name, files in classes.items():
            (root / split / name).mkdir(parents=True)
            for i in range(files):
                (root / split / name / f"{name}_{i}{suffixes[i % len(suffixes)]}").write_bytes(next(encoded))
    return root


def write_fewshot(
    data_dir: Path, name: str, *, classes: int = 3, per_class: int = 12, file_format: str = "array_record"
) -> Path:
    """One of the sets of `FEWSHOT`, with images of its first classes only, which differ in colour."""
    rng = np.random.default_rng(len(name))
    features = _builder(name).info.features
    splits = {
        split: [_fewshot_example(features, label, i, rng) for i in range(per_class) for label in range(classes)]
        for split in FEWSHOT[name]
    }
    return _store_like(data_dir, name, splits, file_format)


def _fewshot_example(features: Any, label: int, number: int, rng: np.random.Generator) -> dict[str, Any]:
    shape = tuple(side or 40 for side in features["image"].shape)
    colour = np.array([[220, 40, 40], [40, 220, 40], [40, 40, 220], [220, 220, 40], [40, 220, 220]])[label % 5]
    pixels = np.clip(colour + rng.normal(0, 25, shape), 0, 255).astype(np.uint8)
    example: dict[str, Any] = {"image": encode(pixels), "label": label}
    for key, feature in features.items():
        if key not in example:
            example[key] = _filler(feature, f"{label}_{number}")
    return example


def _filler(feature: Any, text: str) -> Any:
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.Text):
        return text
    if isinstance(feature, tfds.features.BBoxFeature):
        return tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
    if isinstance(feature, tfds.features.Image):
        return np.zeros((5, 4, 1), np.uint8)
    return 0


def _builder(name: str) -> Any:
    """TFDS's builder of a set that is not prepared, for its features."""
    import tensorflow_datasets as tfds

    return tfds.builder_cls(name)(data_dir="nowhere")


def _store_like(data_dir: Path, name: str, splits: Mapping[str, Iterable[Any]], file_format: str) -> Path:
    """Under the name, version, config and features that TFDS's own builder has."""
    like = _builder(name)
    config = like.builder_config.name if like.builder_config else None
    return _store(data_dir, name, str(like.version), config, dict(like.info.features), splits, file_format)


def _store(
    data_dir: Path,
    name: str,
    version: str,
    config: str | None,
    features: Mapping[str, Any],
    splits: Mapping[str, Iterable[Any]],
    file_format: str,
) -> Path:
    return write_set(data_dir, name, features, splits, version=version, config=config, file_format=file_format)


def _tar(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in files.items():
            _add(archive, name, data)
    return made.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
