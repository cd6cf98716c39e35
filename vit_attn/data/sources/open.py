"""A data set as the settings name it -> where its examples are read from."""

import re
import sys
from typing import Any

from vit_attn.data.sources.array_record import ArrayRecords
from vit_attn.data.sources.features import features_of
from vit_attn.data.sources.folder import open_folder
from vit_attn.data.sources.prepared import check_split, conversion, formats_of, open_builder, other_format
from vit_attn.data.sources.shards import shards_of
from vit_attn.data.sources.source import Source
from vit_attn.data.sources.tfrecord import TFRecords
from vit_attn.spec.data import SetSpec

FOLDER = re.compile(r"/|\./|\.\./|~|[a-z0-9]+://")
FORMATS = ("array_record", "tfrecord")  # the first that is there is read

_told: set[str] = set()


def open_source(
    data: SetSpec,
    num_classes: int | None,
    *,
    stream_window: int = 8192,
    timeout_seconds: float = 300.0,
    where: str = "config.data",
) -> Source:
    """Opens the split that `data` names (slices work: "train[:99%]") of a prepared set of TFDS, or of a folder of images.

    A set that is there as TFRecord only is read as a stream, shuffled among `stream_window` examples, and a line on stderr says
    how to convert it. `where` is what the settings of `data` are called in errors.

    Raises UserError for a set, version, split or feature that is not there, one in another file format, one with files missing,
    and one with more than `num_classes` classes (None: any number).
    """
    if FOLDER.match(str(data.name)):
        return open_folder(data, num_classes, timeout_seconds, where)
    builder = open_builder(data, where)
    file_format = next((known for known in FORMATS if known in formats_of(builder)), None)
    if file_format is None:
        raise other_format(data, builder, where)
    features = features_of(data, builder, num_classes, where)
    builder.info.set_file_format(file_format, override=True, override_if_initialized=True)
    split = str(data.split)
    check_split(builder, split, where)
    shards = shards_of(builder.info.splits[split].file_instructions)
    if file_format == "array_record":
        return ArrayRecords(builder.info.full_name, split, features, shards, timeout_seconds)
    _tell_to_convert(data, builder, stream_window, where)
    return TFRecords(builder.info.full_name, split, features, shards, timeout_seconds, stream_window)


def _tell_to_convert(data: SetSpec, builder: Any, stream_window: int, where: str) -> None:
    """Prints, once for each set, how to make the better form of it."""
    if str(builder.data_dir) in _told:
        return
    _told.add(str(builder.data_dir))
    command, target = conversion(data, builder)
    print(
        f"note: data set {builder.info.full_name} is prepared as tfrecord: it is read as a stream and shuffled among "
        f"config.data.stream_window={stream_window} examples; array_record is better (any example at once, in any order): "
        f"copy the set with `{command}` and set {where}.data_dir={target!r}",
        file=sys.stderr,
    )
