"""Encoded photographs -> training batches on the host: ours, tf.data's, Pillow's, and bare decoding.

    python -m benchmarks.input_pipeline FOLDER [--images 256] [--rounds 7] [--workers 1,2] [--image-size 224]

FOLDER is filled by benchmarks.photographs where it is empty. Each contestant is a process of its own with `workers` threads
(and cores, where the system can bind it to some); in each round all take their turn with the same images, in batches of 64.

ours                     the trainer's own batches, by threads -> uint8; the flip and the scaling are left to the device
tf.data                  big_vision's: decode_and_crop_jpeg, bilinear resize, flip, scaled to -1 ... 1 -> float32
tf.data, RandAugment     the same with RandAugment(2, 10) (benchmarks/randaugment.py)
Pillow                   torchvision's: open, crop, resize, flip, to float32, normalised
cv2, whole image         libjpeg-turbo and nothing else: no crop, no resize, no batch
simplejpeg, whole image  the same with another build of it, where that is installed

images/s     images / seconds, median over the rounds
per core     images / seconds of processor time that the process took, median over the rounds
x tf.data    median over the rounds of this one's `per core` / tf.data's in the same round; x cv2 likewise
MiB          resident memory of the process after the rounds, the encoded photographs included

The second table is what decoding changes: the mean absolute difference, in levels, of a train view from the one in float32 with
the accurate transform and interpolated chroma.
"""

import argparse
import importlib.util
import io
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.photographs import photographs
from vit_attn.data.crop import crop_rng, inception_crop
from vit_attn.data.decode import image_shape
from vit_attn.data.pipeline import Batches
from vit_attn.data.readers import TrainReader
from vit_attn.data.sources.source import Example
from vit_attn.data.views import resize, train_view
from vit_attn.data.workers import Workers
from vit_attn.spec.data import DataSpec

BATCH = 64
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
MIB = 2**20

Round = Callable[[int], Iterator[Any]]  # number -> batches
Contestant = Callable[[list[bytes], int, int], Round]  # images, image_size, workers; prepares what does not count


def threaded(view: Callable[[int], np.ndarray], count: int, workers: int) -> Iterator[np.ndarray]:
    """Batches of view(0) ... view(count - 1), each a task of a thread, some ahead."""

    def batch(start: int) -> np.ndarray:
        return np.stack([view(i) for i in range(start, min(start + BATCH, count))])

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(batch, range(0, count, BATCH))


class Memory:
    """Encoded images in memory, as a source of data/sources."""

    name, split, label_names = "photographs", "train", None

    def __init__(self, images: list[bytes]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        return {"image": self._images[index], "labels": [0]}

    def where(self, index: int) -> str:
        return f"photograph {index}"

    def identity(self, index: int) -> str:
        return self.where(index)

    def order(self, position: int, seed: int) -> tuple[int, int]:
        return divmod(position, len(self._images))


def ours(images: list[bytes], size: int, workers: int) -> Round:
    data, steps = DataSpec(crop="inception", prefetch_batches=2), len(images) // BATCH
    reader, pool = TrainReader(Memory(images), data, BATCH, size, 1), Workers(0, workers)
    return lambda epoch: Batches(reader, range(BATCH), range(epoch * steps, (epoch + 1) * steps), size, data, pool)


def pillow(images: list[bytes], size: int, workers: int) -> Round:
    def view(epoch: int, i: int) -> np.ndarray:
        rng = crop_rng(0, epoch, i)
        with Image.open(io.BytesIO(images[i])) as opened:
            y, x, height, width = inception_crop(rng, opened.height, opened.width)
            cropped = opened.convert("RGB").crop((x, y, x + width, y + height))
        resized = cropped.resize((size, size), Image.Resampling.BILINEAR)
        if rng.random() < 0.5:
            resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return (np.asarray(resized, np.float32) / 255 - MEAN) / STD

    return lambda epoch: threaded(lambda i: view(epoch, i), len(images), workers)


def tf_data(augment: bool) -> Contestant:
    def prepare(images: list[bytes], size: int, workers: int) -> Round:
        import tensorflow as tf

        from benchmarks.randaugment import randaugment

        def view(encoded: Any) -> Any:
            box, extent, _ = tf.image.sample_distorted_bounding_box(
                tf.io.extract_jpeg_shape(encoded), [[[0.0, 0.0, 1.0, 1.0]]], area_range=(0.05, 1.0), min_object_covered=0.0
            )
            window = tf.concat([box[:2], extent[:2]], 0)
            image = tf.image.resize(tf.io.decode_and_crop_jpeg(encoded, window, channels=3), (size, size))
            image = tf.image.random_flip_left_right(tf.ensure_shape(image, (size, size, 3)))
            if augment:
                image = randaugment(tf.cast(image, tf.uint8))
            return tf.cast(image, tf.float32) / 127.5 - 1

        options = tf.data.Options()
        options.threading.private_threadpool_size = workers
        options.threading.max_intra_op_parallelism = 1
        data = tf.data.Dataset.from_tensor_slices(images).map(view, num_parallel_calls=workers)
        data = data.batch(BATCH).prefetch(2).with_options(options)
        return lambda epoch: data.as_numpy_iterator()

    return prepare


def bare(decode: Callable[[bytes], Any]) -> Contestant:
    def prepare(images: list[bytes], size: int, workers: int) -> Round:
        def batch(start: int) -> None:
            for encoded in images[start : start + BATCH]:
                decode(encoded)

        def batches(epoch: int) -> Iterator[None]:
            with ThreadPoolExecutor(workers) as pool:
                yield from pool.map(batch, range(0, len(images), BATCH))

        return batches

    return prepare


def by_cv2(encoded: bytes) -> np.ndarray:
    decoded: Any = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    return decoded


def by_simplejpeg(encoded: bytes) -> np.ndarray:
    import simplejpeg

    return simplejpeg.decode_jpeg(encoded)


CONTESTANTS: dict[str, Contestant] = {
    "ours": ours,
    "tf.data": tf_data(False),
    "tf.data, RandAugment": tf_data(True),
    "Pillow": pillow,
    "cv2, whole image": bare(by_cv2),
    "simplejpeg, whole image": bare(by_simplejpeg),
}


class Runner:
    """A contestant's process; `round` makes it go once over the images."""

    def __init__(self, name: str, workers: int, flags: argparse.Namespace) -> None:
        arguments = (str(flags.folder), "--images", str(flags.images), "--image-size", str(flags.image_size))
        command = [sys.executable, "-m", "benchmarks.input_pipeline", *arguments, "--run", name, "--workers", str(workers)]
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, text=True, env=environment, **pipes)

    def round(self, number: int) -> tuple[float, float, float]:
        """Images a second, images a second of processor time, MiB."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(number, file=self._process.stdin, flush=True)
        speed, per_core, memory = map(float, self._process.stdout.readline().split())
        return speed, per_core, memory

    def end(self) -> None:
        self._process.communicate()


def run(name: str, flags: argparse.Namespace) -> None:
    """The contestant's side of `Runner`."""
    workers = int(flags.workers)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:workers])
    images = photographs(flags.folder, flags.images)
    batches = CONTESTANTS[name](images, flags.image_size, workers)
    for line in sys.stdin:
        start, start_cpu = time.perf_counter(), time.process_time()
        for _ in batches(int(line)):
            pass
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        print(len(images) / seconds, len(images) / cpu, psutil.Process().memory_info().rss / MIB, flush=True)


def speed_table(workers: int, flags: argparse.Namespace) -> Table:
    names = [name for name in CONTESTANTS if "simplejpeg" not in name or importlib.util.find_spec("simplejpeg")]
    runners = {name: Runner(name, workers, flags) for name in names}
    for runner in runners.values():
        runner.round(0)  # does not count: libraries are loaded, functions compiled
    rounds = [{name: runner.round(number + 1) for name, runner in runners.items()} for number in range(flags.rounds)]
    for runner in runners.values():
        runner.end()
    table = Table("pipeline", title=f"{workers} worker{'s' * (workers > 1)}, {flags.image_size} pixels", title_justify="left")
    for head in ("images/s", "per core", "x tf.data", "x cv2", "MiB"):
        table.add_column(head, justify="right")
    for name in names:
        ratios = [
            f"{statistics.median(one[name][1] / one[peer][1] for one in rounds):.2f}"
            for peer in ("tf.data", "cv2, whole image")
        ]
        speed, per_core = (statistics.median(one[name][i] for one in rounds) for i in (0, 1))
        table.add_row(name, f"{speed:.0f}", f"{per_core:.0f}", *ratios, f"{rounds[-1][name][2]:.0f}")
    return table


def difference_table(images: list[bytes], size: int) -> Table:
    import tensorflow as tf

    def exact(pixels: np.ndarray) -> np.ndarray:
        return tf.image.resize(pixels, (size, size)).numpy()

    variants: dict[str, list[float]] = {}
    for i, encoded in enumerate(images):
        box = inception_crop(crop_rng(0, 0, i), *image_shape(encoded))

        def crop(transform: str, fancy: bool, encoded: bytes = encoded, box: tuple[int, ...] = box) -> np.ndarray:
            arguments: dict[str, Any] = {"channels": 3, "dct_method": transform, "fancy_upscaling": fancy}
            return tf.io.decode_and_crop_jpeg(encoded, box, **arguments).numpy()

        plain = crop("INTEGER_ACCURATE", True)
        views = {
            "ours": train_view(encoded, size, crop_rng(0, 0, i)),
            "bytes resized by cv2": resize(plain, size, size, "bilinear"),
            "fast transform (tf.data's default)": exact(crop("INTEGER_FAST", True)),
            "chroma not interpolated": exact(crop("INTEGER_ACCURATE", False)),
            "both": exact(crop("INTEGER_FAST", False)),
        }
        for name, view in views.items():
            variants.setdefault(name, []).append(float(np.abs(view - exact(plain)).mean()))
    table = Table("what differs from the plain path", title="difference in levels", title_justify="left")
    for head in ("mean", "worst image"):
        table.add_column(head, justify="right")
    for name, values in variants.items():
        table.add_row(name, f"{np.mean(values):.3f}", f"{max(values):.3f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.run:
        run(flags.run, flags)
        return
    console = Console(width=110)
    images = photographs(flags.folder, flags.images)
    pixels = np.mean([np.prod(image_shape(encoded)) for encoded in images])
    console.print(f"{len(images)} photographs of {pixels:.0f} pixels and {np.mean([len(e) for e in images]) / 1000:.0f} kB")
    for workers in flags.workers.split(","):
        console.print(speed_table(int(workers), flags))
    console.print(difference_table(images[:100], flags.image_size))


if __name__ == "__main__":
    main()
