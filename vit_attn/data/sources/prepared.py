"""Where a data set prepared by TFDS lies: local or gs://, which version, in which file formats."""

import os
import re
import shlex
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from vit_attn.data.sources.faults import is_missing
from vit_attn.spec.data import EMBEDDED, SetSpec
from vit_attn.spec.errors import UserError, unknown

EMBEDDED_DIR = Path(__file__).parent.parent / "embedded"
VERSION = re.compile(r"\d+\.\d+\.\d+")


def open_builder(data: SetSpec, where: str) -> Any:
    """TFDS's read-only builder of the wanted, or else the newest, version. Raises UserError for one that is not there."""
    directory = _version_dir(data, where)
    try:
        builder = tfds.builder_from_directory(directory)
        formats_of(builder)
    except Exception as error:  # TFDS raises many kinds for a directory that is not, or only half, a data set
        raise UserError(f"{str(directory)!r} cannot be read as a data set of TFDS: {type(error).__name__}: {error}") from error
    return builder


def formats_of(builder: Any) -> list[str]:
    """The formats of the record files that are there, sorted."""
    return sorted(file_format.value for file_format in builder.info.available_file_formats())


def conversion(data: SetSpec, builder: Any) -> tuple[str, str]:
    """(shell command, directory) that copies a set to array_record there, the encoded images as they are.

    A set in a bucket is copied to this machine, into TFDS's default directory; others to a directory beside their own.
    """
    root = _data_dir(data)
    target = os.path.expanduser("~/tensorflow_datasets") if "://" in str(root) else f"{root}-array_record"  # noqa: PTH111
    code = (
        f"import tensorflow_datasets as tfds; b = tfds.builder_from_directory({str(builder.data_dir)!r}); "
        f"raw = {{{data.image_key!r}: tfds.decode.SkipDecoding()}}; "
        "tfds.dataset_builders.store_as_tfds_dataset(b.name, b.version, b.info.features, "
        "{split: b.as_dataset(split, decoders=raw) for split in b.info.splits}, "
        f"config={(data.name or '').partition('/')[2] or None!r}, data_dir={target!r}, file_format='array_record')"
    )
    return _python(code), target


def _version_dir(data: SetSpec, where: str) -> epath.Path:
    root, name = _data_dir(data), str(data.name)
    try:
        next(iter(root.iterdir()), None)  # its error says what is wrong, unlike is_dir()
    except Exception as error:
        if is_missing(error):
            raise _not_prepared(data, root, where) from None
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{where}.data_dir={str(root)!r} cannot be read: {reason}") from error
    versions = _versions(root / name)
    if not versions:
        raise _not_prepared(data, root, where)
    if data.version is not None and data.version not in versions:
        raise unknown(f"{where}.version: of data set {name} in {str(root)!r}, the version", data.version, versions)
    return root / name / (data.version or versions[-1])


def _data_dir(data: SetSpec) -> epath.Path:
    if data.data_dir == EMBEDDED:
        return epath.Path(EMBEDDED_DIR)
    return epath.Path(data.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _versions(directory: epath.Path) -> list[str]:
    """The prepared versions in the directory of a data set (or of one of its configs), the oldest first."""
    found = [entry.name for entry in _entries(directory) if VERSION.fullmatch(entry.name)]
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")])


def _entries(directory: epath.Path) -> list[epath.Path]:
    return list(directory.iterdir()) if directory.is_dir() else []


def _not_prepared(data: SetSpec, root: epath.Path, where: str) -> UserError:
    """The error that tells how to get the data set, or what it may be called."""
    name = str(data.name)
    if data.data_dir == EMBEDDED:
        names = sorted(entry.name for entry in _entries(root) if _versions(entry))
        return unknown(f"{where}.name: with {where}.data_dir='embedded', the data set", name, names)
    configs = sorted(entry.name for entry in _entries(root / name) if _versions(entry))
    if configs:
        choices = ", ".join(f"{name}/{config}" for config in configs)
        return UserError(f"{where}.name={name!r} needs the name of a config behind it (prepared in {str(root)!r}: {choices})")
    return UserError(f"data set {name!r} is not prepared in {where}.data_dir={str(root)!r}; {_how_to_prepare(name, root)}")


def _how_to_prepare(name: str, root: epath.Path) -> str:
    import tensorflow_datasets as tfds

    try:
        manual = bool(tfds.builder_cls(name.partition("/")[0]).MANUAL_DOWNLOAD_INSTRUCTIONS)
    except Exception:  # TFDS raises several kinds for a name that it does not know
        return (
            f"TFDS has no builder of that name: write it there with tfds.dataset_builders.store_as_tfds_dataset({name!r}, ..., "
            "file_format='array_record'), or take a folder SPLIT/CLASS/NAME.jpg, whose path is then the name"
        )
    archives = "download_config=tfds.download.DownloadConfig(manual_dir='ARCHIVES')" if manual else ""
    code = (
        "import tensorflow_datasets as tfds; "
        f"tfds.builder({name!r}, data_dir={str(root)!r}, file_format='array_record').download_and_prepare({archives})"
    )
    said = ", with ARCHIVES the folder of the files that one downloads by hand" if manual else ""
    return f"prepare it with `{_python(code)}`{said}"


def other_format(data: SetSpec, builder: Any, where: str) -> UserError:
    """The error for a set in files that cannot be read here, such as parquet."""
    command, target = conversion(data, builder)
    return UserError(
        f"data set {builder.info.full_name} in {str(builder.data_dir)!r} is prepared as {', '.join(formats_of(builder))}, but "
        f"array_record or tfrecord is needed; copy it with `{command}` and set {where}.data_dir={target!r}"
    )


def check_split(builder: Any, split: str, where: str) -> None:
    """Raises UserError for a split that is not there, is empty, or of which a file is missing."""
    name, splits = builder.info.full_name, builder.info.splits
    sizes = ", ".join(f"{known} ({info.num_examples} examples)" for known, info in splits.items())
    try:
        chosen = splits[split]
    except ValueError as error:
        raise UserError(
            f"split {split!r} of data set {name} (see {where}) is none of {sizes}, nor a slice of one, as in 'train[:99%]'"
        ) from error
    if chosen.num_examples <= 0:
        raise UserError(f"split {split!r} of data set {name} is empty; there are {sizes}")
    there = {entry.name for entry in epath.Path(builder.data_dir).iterdir()}  # in a bucket, one request instead of many
    for instruction in chosen.file_instructions:
        if instruction.basename() not in there:
            raise UserError(f"data set {name} is incomplete: its file {str(instruction.filename)!r} is missing")


def _python(code: str) -> str:
    """The shell command that runs `code`, in the quotes that read best."""
    return f"python -c {shlex.quote(code)}" if set(code) & set('"$`\\!') else f'python -c "{code}"'
