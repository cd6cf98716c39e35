"""Makes the data set inside the package: `fashion_mnist_12k`, prepared by TFDS in array_record format (about 5 MB).

    apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb fm
    python -m vit_attn.data.embedded.make --idx-dir fm/usr/share/datasets/fashion-mnist

The first 10,000 training and the first 2,000 test images of Fashion-MNIST (arXiv:1708.07747), in their order. The Debian
package dataset-fashion-mnist holds the four IDX files as they were published. A set that is there already is made anew.

The same files give the same examples in the same order, but not the same bytes: protobuf writes the two features of a record
in either order.
"""

import argparse
import gzip
import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Shaped
from PIL import Image

NAME = "fashion_mnist_12k"
VERSION = "1.0.0"
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
SPLITS = {"train": ("train", 10_000), "validation": ("t10k", 2_000)}  # ours: (theirs, how many of the first)
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idx-dir", type=Path, required=True, help="where the four IDX .gz files are")
    parser.add_argument("--data-dir", type=Path, default=HERE, help="where the set goes (default: into the package)")
    flags = parser.parse_args()
    print(make(flags.idx_dir, flags.data_dir))


def make(idx_dir: Path, data_dir: Path) -> Path:
    """Writes the set below `data_dir`, in the place of an older one, and returns its directory."""
    with tempfile.TemporaryDirectory() as scratch:
        tfds.dataset_builders.store_as_tfds_dataset(
            name=NAME,
            version=VERSION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                }
            ),
            split_datasets={ours: list(examples(idx_dir, *theirs)) for ours, theirs in SPLITS.items()},
            data_dir=scratch,
            description="The first 10,000 + 2,000 images of Fashion-MNIST. MIT licence, Copyright 2017 Zalando SE.",
            homepage="https://github.com/zalandoresearch/fashion-mnist",
            file_format="array_record",
            disable_shuffling=True,
        )
        shutil.rmtree(data_dir / NAME, ignore_errors=True)
        return Path(shutil.move(Path(scratch) / NAME, data_dir / NAME))


def examples(idx_dir: Path, part: str, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The first `count` examples of `part` ("train", "t10k"), as (key, features); the image is an optimised PNG."""
    images = read_idx(idx_dir / f"{part}-images-idx3-ubyte.gz")[:count]
    labels = read_idx(idx_dir / f"{part}-labels-idx1-ubyte.gz")[:count]
    for key, (image, label) in enumerate(zip(images, labels, strict=True)):
        png = io.BytesIO()
        Image.fromarray(image).save(png, format="png", optimize=True)
        yield key, {"image": png.getvalue(), "label": int(label)}


def read_idx(path: Path) -> Shaped[np.ndarray, "N ..."]:
    """Reads a gzipped IDX file of unsigned bytes: two zero bytes, 8 (the type), the rank, the sizes as big-endian int32."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    start = 4 + 4 * data[3]
    return np.frombuffer(data, np.uint8, offset=start).reshape(np.frombuffer(data[4:start], ">i4"))


if __name__ == "__main__":
    main()
