"""Small data sets, written by TFDS itself, for tests. Importing this is cheap; writing imports tensorflow."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CIFAR10_IMAGES = {"train": 37, "test": 23}


def write_set(
    data_dir: Path,
    name: str,
    features: Mapping[str, Any],
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    *,
    version: str = "1.0.0",
    config: str | None = None,
    file_format: str = "array_record",
    shards: int | None = None,
) -> Path:
    """Prepares a data set below `data_dir`, its examples in the given order, and returns the directory of the version.

    `shards`: into how many files each split is written; None: as TFDS likes.
    """
    import tensorflow_datasets as tfds

    builder = tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=version,
        config=config,
        features=tfds.features.FeaturesDict(dict(features)),
        split_datasets={split: list(enumerate(examples)) for split, examples in splits.items()},
        data_dir=data_dir,
        file_format=file_format,
        disable_shuffling=True,
        download_config=tfds.download.DownloadConfig(num_shards=shards),
    )
    return Path(builder.data_dir)


def write_cifar10(data_dir: Path, *, version: str = "3.0.2", file_format: str = "array_record") -> Path:
    """A `cifar10` of random images, with the features of the one that TFDS knows by this name."""
    import tensorflow_datasets as tfds

    features = {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=(32, 32, 3)),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    splits = {split: list(_cifar10_examples(split, count)) for split, count in CIFAR10_IMAGES.items()}
    return write_set(data_dir, "cifar10", features, splits, version=version, file_format=file_format)


def _cifar10_examples(split: str, count: int) -> Iterable[dict[str, Any]]:
    rng = np.random.default_rng(len(split))
    for i in range(count):
        image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        yield {"id": f"{split}_{i:05d}", "image": encode(image), "label": int(rng.integers(10))}


def write_gray(data_dir: Path, name: str, labels: Iterable[int], *, truncated: Iterable[int] = (), **how: Any) -> Path:
    """A set whose only split `train` has 8x8 gray images; the label is a plain integer, so any value can be written.

    The images at the indices `truncated` lack their second half.
    """
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(shape=(8, 8, 1)), "label": tfds.features.Scalar(np.int64)}
    examples = []
    for i, label in enumerate(labels):
        encoded = encode(np.full((8, 8), 3 * i, np.uint8))
        examples.append({"image": encoded[: len(encoded) // 2] if i in truncated else encoded, "label": label})
    return write_set(data_dir, name, features, {"train": examples}, **how)


def write_numbered(data_dir: Path, name: str, sizes: Mapping[str, int], *, several: bool = False, **how: Any) -> Path:
    """A set of splits of the given sizes, of 8x8 gray PNGs; the label of an example is its number in the split.

    With `several`, example i has the labels 0 ... i % 4 - 1 instead: so some have none, and some have three.
    """
    import tensorflow_datasets as tfds

    label = tfds.features.Scalar(np.int64)
    features = {"image": tfds.features.Image(shape=(8, 8, 1)), "label": tfds.features.Sequence(label) if several else label}
    images = [encode(np.full((8, 8), value, np.uint8)) for value in range(256)]
    splits = {
        split: [{"image": images[i % 256], "label": list(range(i % 4)) if several else i} for i in range(count)]
        for split, count in sizes.items()
    }
    return write_set(data_dir, name, features, splits, **how)


def encode(pixels: np.ndarray, image_format: str = "png", **options: Any) -> bytes:
    """uint8 pixels [Y, X] or [Y, X, 3 or 4] as the bytes of an image file."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format=image_format, **options)
    return encoded.getvalue()
