"""Which two features of a TFDS data set are read, and how they stand in a record."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from vit_attn.data.decode import BadImageError
from vit_attn.data.sources.source import Example
from vit_attn.spec.data import SetSpec
from vit_attn.spec.errors import UserError, unknown


@dataclass(frozen=True)
class Features:
    image_key: str
    label_key: str
    max_labels: int
    label_names: list[str] | None
    where: str  # of the settings, "config.data"

    def example(self, record: bytes, place: Callable[[], str]) -> Example:
        """The example in a tf.train.Example message.

        Raises BadImageError for a damaged message, and UserError, naming the `place`, for more than max_labels labels.
        """
        # TFDS's own parser takes several times as long, which counts for small images.
        try:
            feature = tf_example_pb2.Example.FromString(record).features.feature
        except Exception as error:  # protobuf's DecodeError
            raise BadImageError(f"the record is damaged: {error}") from error
        image = feature[self.image_key].bytes_list.value
        if not image:  # so does array_record give the records of a file that was cut off
            raise BadImageError(f"the record has no {self.image_key!r}, perhaps as its file is cut off")
        labels = list(feature[self.label_key].int64_list.value)
        if len(labels) > self.max_labels:
            raise UserError(f"{place()} has {len(labels)} labels, but {self.where}.max_labels={self.max_labels}")
        return {"image": image[0], "labels": labels}


def features_of(data: SetSpec, builder: Any, num_classes: int | None, where: str) -> Features:
    """Raises UserError for features that are not there or of another kind, and for more than `num_classes` classes."""
    name, features = builder.info.full_name, builder.info.features
    image_key, label_key = str(data.image_key), str(data.label_key)
    for setting, key in (("image_key", image_key), ("label_key", label_key)):
        if key not in features:
            raise unknown(f"{where}.{setting}: the feature of data set {name}", key, sorted(features))
    image, label = features[image_key], features[label_key]
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise UserError(f"{where}.image_key={image_key!r}: this feature of data set {name} is not an image of bytes: {image}")
    several = isinstance(label, tfds.features.Sequence)
    one = label.feature if several else label
    if isinstance(one, dict) or one.shape != () or not np.issubdtype(one.np_dtype, np.integer):
        raise UserError(
            f"{where}.label_key={label_key!r}: this feature of data set {name} is not an integer, nor a list of them: {label}"
        )
    check_classes(getattr(one, "num_classes", None), num_classes, f"{label_key!r} of data set {name}")
    return Features(image_key, label_key, data.max_labels or 1, getattr(one, "names", None), where)


def check_classes(classes: int | None, num_classes: int | None, what: str) -> None:
    if classes is not None and num_classes is not None and classes > num_classes:
        raise UserError(f"config.model.num_classes={num_classes} is too small: {what} has {classes} classes")
