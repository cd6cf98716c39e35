import gzip
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from vit_attn.data.embedded.make import CLASSES, NAME, VERSION, make
from vit_attn.data.sources.open import open_source
from vit_attn.data.sources.prepared import EMBEDDED_DIR
from vit_attn.data.views import whole_view
from vit_attn.spec.data import DataSpec


@pytest.mark.parametrize(("split", "count"), [("train", 10_000), ("validation", 2_000)])
def test_our_pixels_and_labels_are_those_that_tfds_and_tensorflow_read(split: str, count: int) -> None:
    source = open_source(DataSpec().split(split), 10)
    assert len(source) == count
    builder = tfds.builder_from_directory(EMBEDDED_DIR / NAME / VERSION)
    assert builder.info.features["label"].names == list(CLASSES)
    raw = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    for i in range(0, count, 20):
        pixels = tf.io.decode_png(raw[i]["image"], channels=3).numpy()
        np.testing.assert_array_equal(whole_view(source[i]["image"], 28), pixels, strict=True)
        assert source[i]["labels"] == [raw[i]["label"]]


def test_the_classes_are_about_equally_frequent() -> None:
    source = open_source(DataSpec().split("validation"), 10)
    frequencies = np.bincount([source[i]["labels"][0] for i in range(len(source))], minlength=10) / len(source)
    assert np.abs(frequencies - 0.1).max() < 0.02


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_making_keeps_images_labels_and_their_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = {"train": 17, "t10k": 5}
    images = {part: rng.integers(0, 256, (count, 28, 28), dtype=np.uint8) for part, count in given.items()}
    labels = {part: rng.integers(0, 10, count, dtype=np.uint8) for part, count in given.items()}
    for part in given:
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images[part])
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", labels[part])
    (tmp_path / "made" / NAME).mkdir(parents=True)  # an older one makes way
    make(tmp_path, tmp_path / "made")
    assert [path.name for path in (tmp_path / "made").iterdir()] == [NAME]
    for part, split in (("train", "train"), ("t10k", "validation")):
        source = open_source(DataSpec(data_dir=str(tmp_path / "made")).split(split), 10)
        decoded = np.stack([whole_view(source[i]["image"], 28)[..., 0] for i in range(len(source))])
        np.testing.assert_array_equal(decoded, images[part])
        assert [source[i]["labels"][0] for i in range(len(source))] == labels[part].tolist()


def test_the_licence_lies_beside() -> None:
    assert "Zalando SE" in (EMBEDDED_DIR / "LICENSE.fashion_mnist.txt").read_text()
