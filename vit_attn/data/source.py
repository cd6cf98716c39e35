"""Data sets prepared by TFDS in array_record format: any example by its index, still encoded. Never imports tensorflow."""

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from vit_attn.spec.errors import UserError, unknown
from vit_attn.spec.run import EMBEDDED, DataSpec

EMBEDDED_DIR = Path(__file__).parent / "embedded"
VERSION = re.compile(r"\d+\.\d+\.\d+")


class Example(TypedDict):
    image: bytes  # PNG or JPEG
    label: int


@dataclass(frozen=True)
class Source:
    """One split of a data set. Reads from the disk at each access; may be used from several threads, and pickled."""

    name: str  # with the version: "cifar10/3.0.2"
    split: str
    image_key: str
    label_key: str
    records: Sequence[bytes]  # tf.train.Example messages

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        # TFDS's own parser takes several times as long, which counts for small images.
        feature = tf_example_pb2.Example.FromString(self.records[index]).features.feature
        return {
            "image": feature[self.image_key].bytes_list.value[0],
            "label": feature[self.label_key].int64_list.value[0],
        }

    def where(self, index: int) -> str:
        """How an error message names an example."""
        return f"example {index} of split {self.split!r} of data set {self.name}"


def open_source(data: DataSpec, split: str, num_classes: int) -> Source:
    """Opens a split (TFDS's expressions work: "train[:99%]") of the data set that `data` names, in a local directory.

    Raises UserError for a set, version, split or feature that is not there, one in another file format, one with files
    missing, and one with more than `num_classes` classes.
    """
    builder = _builder(data)
    name = builder.info.full_name
    features = builder.info.features
    for key in ("image_key", "label_key"):
        if getattr(data, key) not in features:
            raise unknown(f"config.data.{key}: the feature of data set {name}", getattr(data, key), sorted(features))
    _check_features(data, features, name, num_classes)
    _check_split(builder, split)
    records = builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES, file_format="array_record"
    )
    return Source(name, split, data.image_key, data.label_key, records)


def _builder(data: DataSpec) -> Any:
    directory = _version_dir(data)
    try:
        builder = tfds.builder_from_directory(directory)
        formats = {file_format.value for file_format in builder.info.available_file_formats()}
    except Exception as error:  # TFDS raises many kinds for a directory that is not, or only half, a data set
        raise UserError(f"{str(directory)!r} cannot be read as a data set of TFDS: {type(error).__name__}: {error}") from error
    if "array_record" not in formats:
        raise _other_format(data, directory, builder.info.full_name, formats)
    return builder


def _other_format(data: DataSpec, directory: Path, name: str, formats: Iterable[str]) -> UserError:
    """The error for a set in files without access by index. What it suggests copies the encoded images as they are."""
    target = f"{_data_dir(data)}-array_record"
    code = (
        f"import tensorflow_datasets as tfds; b = tfds.builder_from_directory({str(directory)!r}); "
        f"raw = {{{data.image_key!r}: tfds.decode.SkipDecoding()}}; "
        "tfds.dataset_builders.store_as_tfds_dataset(b.name, b.version, b.info.features, "
        "{split: b.as_dataset(split, decoders=raw) for split in b.info.splits}, "
        f"config={data.name.partition('/')[2] or None!r}, data_dir={target!r}, file_format='array_record')"
    )
    return UserError(
        f"data set {name} in {str(directory)!r} is prepared as {', '.join(sorted(formats))}, but array_record is needed; "
        f"copy it with `{_python(code)}` and set config.data.data_dir={target!r}"
    )


def _version_dir(data: DataSpec) -> Path:
    """The directory with the files of the wanted, or else the newest, version."""
    root = _data_dir(data)
    try:
        next(root.iterdir(), None)  # its error says what is wrong, unlike is_dir()
    except FileNotFoundError:
        raise _not_prepared(data, root) from None
    except OSError as error:
        raise UserError(f"config.data.data_dir={str(root)!r} cannot be read: {error.strerror}") from error
    versions = _versions(root / data.name)
    if not versions:
        raise _not_prepared(data, root)
    if data.version is not None and data.version not in versions:
        raise unknown(f"config.data.version: of data set {data.name} in {str(root)!r}, the version", data.version, versions)
    return root / data.name / (data.version or versions[-1])


def _data_dir(data: DataSpec) -> Path:
    if data.data_dir == EMBEDDED:
        return EMBEDDED_DIR
    return Path(data.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _versions(directory: Path) -> list[str]:
    """The prepared versions in the directory of a data set (or of one of its configs), the oldest first."""
    if not directory.is_dir():
        return []
    found = [entry.name for entry in directory.iterdir() if VERSION.fullmatch(entry.name)]
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")])


def _not_prepared(data: DataSpec, root: Path) -> UserError:
    """The error that tells how to get the data set, or what it may be called."""
    if data.data_dir == EMBEDDED:
        names = sorted(entry.name for entry in root.iterdir() if _versions(entry))
        return unknown("config.data.name: with config.data.data_dir='embedded', the data set", data.name, names)
    directory = root / data.name
    configs = sorted(entry.name for entry in directory.iterdir() if _versions(entry)) if directory.is_dir() else []
    if configs:
        choices = ", ".join(f"{data.name}/{config}" for config in configs)
        return UserError(
            f"config.data.name={data.name!r} needs the name of a config behind it (prepared in {str(root)!r}: {choices})"
        )
    code = (
        "import tensorflow_datasets as tfds; "
        f"tfds.builder({data.name!r}, data_dir={str(root)!r}, file_format='array_record').download_and_prepare()"
    )
    return UserError(
        f"data set {data.name!r} is not prepared in config.data.data_dir={str(root)!r}; prepare it with "
        f"`tfds build {data.name} --data_dir={shlex.quote(str(root))} --file_format=array_record`, "
        f"or, as that command needs packages besides those of this project, with `{_python(code)}`"
    )


def _python(code: str) -> str:
    """The shell command that runs `code`, in the quotes that read best."""
    return f"python -c {shlex.quote(code)}" if set(code) & set('"$`\\!') else f'python -c "{code}"'


def _check_features(data: DataSpec, features: Any, name: str, num_classes: int) -> None:
    image, label = features[data.image_key], features[data.label_key]
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise UserError(
            f"config.data.image_key={data.image_key!r}: this feature of data set {name} is not an image of bytes: {image}"
        )
    if label.shape != () or not np.issubdtype(label.np_dtype, np.integer):
        raise UserError(f"config.data.label_key={data.label_key!r}: this feature of data set {name} is not an integer: {label}")
    classes = getattr(label, "num_classes", None)
    if classes is not None and classes > num_classes:
        raise UserError(
            f"config.model.num_classes={num_classes} is too small: {data.label_key!r} of data set {name} has {classes} classes"
        )


def _check_split(builder: Any, split: str) -> None:
    name, splits = builder.info.full_name, builder.info.splits
    sizes = ", ".join(f"{known} ({info.num_examples} examples)" for known, info in splits.items())
    try:
        chosen = splits[split]
    except ValueError as error:
        raise UserError(
            f"split {split!r} of data set {name} is none of {sizes}, nor a slice of one, as in 'train[:99%]'"
        ) from error
    if chosen.num_examples <= 0:
        raise UserError(f"split {split!r} of data set {name} is empty; there are {sizes}")
    for instruction in chosen.file_instructions:
        if not Path(instruction.filename).is_file():
            raise UserError(f"data set {name} is incomplete: its file {str(instruction.filename)!r} is missing")
