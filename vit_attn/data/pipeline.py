"""Batches for the device, read and decoded ahead by threads. All follows from the position: no state to save."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import grain
import numpy as np

from vit_attn.data.batch import Batch
from vit_attn.data.order import example_at
from vit_attn.data.preprocess import decode
from vit_attn.data.source import Source
from vit_attn.spec.errors import UserError
from vit_attn.spec.run import RunSpec

PIECE_IMAGES = 64  # what a thread decodes in one go: several threads share a batch, so that the first one comes soon
ENDLESS = 2**40  # batches


class Batches(Iterator[Batch]):
    """An iterator over batches that reads ahead, from the moment it is made; `close` ends that (so does garbage collection)."""

    def __init__(self, pieces: grain.MapDataset[Batch], pieces_per_batch: int, threads: int, prefetch_batches: int) -> None:
        ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch_batches * pieces_per_batch)
        self._pieces = iter(pieces.to_iter_dataset(ahead))
        self._pieces_per_batch = pieces_per_batch
        self._pieces.start_prefetch()

    def __next__(self) -> Batch:
        """The next batch. Raises UserError for an image that cannot be decoded and for a label that is out of range."""
        pieces = list(islice(self._pieces, self._pieces_per_batch))
        if not pieces:
            raise StopIteration
        return {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}  # type: ignore[return-value]

    def close(self) -> None:
        """Drops what was read ahead and lets the threads end, after the images that they have in hand."""
        self._pieces.close()

    def __del__(self) -> None:
        self.close()


def train_batches(spec: RunSpec, source: Source, start_step: int, shard: tuple[int, int] = (0, 1)) -> Batches:
    """Endless batches {"image", "label"}, from that of step `start_step` on.

    Step s takes the positions s*B ... (s+1)*B - 1 of the order, B = config.train.batch_images. Host p of P, `shard` = (p, P),
    gets its contiguous part of each batch. Raises UserError for a bad image or label, naming the example.
    """
    batch_images = spec.train.batch_images

    def piece(step: int, rows: range) -> Batch:
        positions = range(step * batch_images + rows.start, step * batch_images + rows.stop)
        return _load(spec, source, [example_at(position, spec.data.seed, len(source)) for position in positions])

    return _read_ahead(spec, piece, _host_rows(batch_images, shard), range(start_step, ENDLESS))


def eval_batches(spec: RunSpec, source: Source, shard: tuple[int, int] = (0, 1)) -> Batches:
    """Every example once, in order: batches {"image", "label", "mask"} of config.eval.batch_images over all hosts.

    The last batch is filled up with zeros, mask 0; so all hosts get the same number of batches, of the same size.
    Raises UserError for a bad image or label, naming the example.
    """
    batch_images, length = spec.eval.batch_images, len(source)

    def piece(number: int, rows: range) -> Batch:
        start, stop = (min(number * batch_images + row, length) for row in (rows.start, rows.stop))
        loaded = _load(spec, source, range(start, stop))
        padding = len(rows) - (stop - start)
        mask = np.ones(stop - start, np.float32)
        return {
            "image": np.pad(loaded["image"], ((0, padding), (0, 0), (0, 0), (0, 0))),
            "label": np.pad(loaded["label"], (0, padding)),
            "mask": np.pad(mask, (0, padding)),
        }

    return _read_ahead(spec, piece, _host_rows(batch_images, shard), range(math.ceil(length / batch_images)))


def _host_rows(batch_images: int, shard: tuple[int, int]) -> range:
    """The rows of each batch that host p of P holds."""
    p, P = shard
    return range(p * batch_images // P, (p + 1) * batch_images // P)


def _read_ahead(spec: RunSpec, load: Callable[[int, range], Batch], rows: range, batches: range) -> Batches:
    """`load(batch, rows)` for all of `batches`, by threads, in pieces."""
    pieces = [rows[at : at + PIECE_IMAGES] for at in range(0, len(rows), PIECE_IMAGES)] or [rows]
    per_batch = len(pieces)
    numbers = grain.MapDataset.range(batches.start * per_batch, batches.stop * per_batch)
    loaded = numbers.map(lambda number: load(number // per_batch, pieces[number % per_batch]))
    return Batches(loaded, per_batch, spec.data.threads, spec.data.prefetch_batches)


def _load(spec: RunSpec, source: Source, indices: Sequence[int]) -> Batch:
    """The decoded examples at `indices` of the split."""
    size, num_classes = spec.model.image_size, spec.model.num_classes
    images = np.empty((len(indices), size, size, 3), np.uint8)
    labels = np.empty(len(indices), np.int32)
    for row, index in enumerate(indices):
        try:
            example = source[index]
            images[row] = decode(example["image"], size)
        except Exception as error:  # array_record and Pillow raise many kinds
            raise UserError(f"{source.where(index)} cannot be decoded: {error}") from error
        if not 0 <= example["label"] < num_classes:
            label = example["label"]
            raise UserError(f"{source.where(index)} has the label {label}, but config.model.num_classes={num_classes}")
        labels[row] = example["label"]
    return {"image": images, "label": labels}
