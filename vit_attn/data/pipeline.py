"""Batches for the device, read and decoded ahead by workers. All follows from their numbers: no state to save."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_attn.data.batch import Batch
from vit_attn.data.passes import Pass
from vit_attn.data.pixels import OwnPixels, SharedPixels, reader_and_pixels
from vit_attn.data.readers import PassReader, Reader, Rows, TrainReader
from vit_attn.data.sources.source import Source
from vit_attn.data.workers import Job, Workers, WorkersDieError
from vit_attn.spec.data import DataSpec
from vit_attn.spec.errors import UserError
from vit_attn.spec.run import RunSpec

PIECE_IMAGES = 64  # what a worker decodes in one go: several share a batch, so that the first one comes soon
ENDLESS = 2**40  # batches


@dataclass
class Reading:
    """What reading has cost so far. `seconds` are the workers', all together."""

    images: int = 0
    bad: int = 0
    seconds: float = 0.0


class Batches(Iterator[Batch]):
    """An iterator over batches that reads ahead, from the moment it is made. `close` ends that."""

    def __init__(
        self, reader: Reader, rows: Sequence[int], numbers: range, image_size: int, data: DataSpec, workers: Workers
    ) -> None:
        shape = (len(rows), image_size, image_size, 3)
        self.reading = Reading()
        self._data, self._workers, self._numbers = data, workers, iter(numbers)
        self.examples, self.name = len(reader.source), reader.source.name
        self._pieces = [(at, rows[at : at + PIECE_IMAGES]) for at in range(0, max(len(rows), 1), PIECE_IMAGES)]
        ahead = max(1, min(data.prefetch_batches, data.prefetch_bytes // max(math.prod(shape), 1)))
        self._pixels = SharedPixels(reader, shape, ahead) if workers.processes else OwnPixels(reader, shape)
        self._ahead: deque[tuple[np.ndarray, list[Job]]] = deque()
        for _ in range(ahead):
            self._start_next()

    def __next__(self) -> Batch:
        """The next batch. Raises UserError for an image that cannot be decoded and for a label that is out of range."""
        if not self._ahead:
            raise StopIteration
        array, jobs = self._ahead.popleft()
        parts = [self._result(job) for job in jobs]
        image = self._pixels.give_back(array)
        self._start_next()
        for part in parts:
            self.reading.bad += part.bad
            self.reading.seconds += part.seconds
        self.reading.images += len(image)
        self._check_bad()
        columns = {key: np.concatenate([part.columns[key] for part in parts]) for key in parts[0].columns}
        return {"image": image, **columns}  # type: ignore[typeddict-item]

    def close(self) -> None:
        """Drops what was read ahead."""
        for _, jobs in self._ahead:
            for job in jobs:
                job.cancel()
        self._ahead.clear()
        self._pixels.close()

    def _check_bad(self) -> None:
        """Raises UserError when more than max_bad_share of the images read, or of the split if that is more, are bad."""
        if self.reading.bad > self._data.max_bad_share * max(self.reading.images, self.examples):
            raise too_many_bad(self.reading.bad, self.name, self._data)

    def _start_next(self) -> None:
        number = next(self._numbers, None)
        if number is None:
            return
        given, array = self._pixels.take()
        jobs = [self._workers.submit(_work, given, number, at, rows) for at, rows in self._pieces]
        self._ahead.append((array, jobs))

    def _result(self, job: Job) -> Rows:
        seconds = 2 * self._data.timeout_seconds  # a source gives up after half of that, with a better message
        try:
            return job.result(seconds)
        except TimeoutError:
            raise UserError(
                f"no data came for {seconds:.0f} s: is the file system of config.data.data_dir reachable? "
                "(config.data.timeout_seconds is half of how long is waited)"
            ) from None
        except WorkersDieError as error:
            raise UserError(f"{error}: is there memory for config.data.workers={self._workers.processes}?") from error


def train_batches(
    spec: RunSpec, source: Source, start_step: int, workers: Workers, rows: Sequence[int] | None = None
) -> Batches:
    """Endless batches {"image", "labels", "epoch", "index"}, from that of step `start_step` on.

    Step s takes the positions s*B ... (s+1)*B - 1 of the order, B = config.train.batch_images; this host gets the given rows of
    each batch (None: all).
    """
    batch_images, size = spec.train.batch_images, spec.model.image_size
    reader = TrainReader(source, spec.data, batch_images, size, spec.model.num_classes)
    mine = range(batch_images) if rows is None else rows
    return Batches(reader, mine, range(start_step, ENDLESS), size, spec.data, workers)


def pass_batches(data: DataSpec, one: Pass, workers: Workers, rows: Sequence[int] | None = None) -> Batches:
    """Every example of a pass once, in order: batches {"image", "labels", "mask"} of `one.batch_images` over all hosts.

    The last batch is filled up with zeros, mask 0; so all hosts get the same number of batches, of the same size.
    """
    numbers = range(math.ceil(len(one.indices) / one.batch_images))
    mine = range(one.batch_images) if rows is None else rows
    return Batches(PassReader(one, data), mine, numbers, one.view.image_size, data, workers)


def too_many_bad(bad: int, name: str, data: DataSpec) -> UserError:
    return UserError(
        f"{bad} images of {name} could not be decoded, which is more than config.data.max_bad_share={data.max_bad_share} "
        "of them: look at the data set, or raise it"
    )


def _work(given: Any, number: int, at: int, rows: Sequence[int]) -> Rows:
    """In a worker: the rows `rows` of batch `number`, whose pixels begin at place `at` of this host's part."""
    reader, pixels = reader_and_pixels(given)
    return reader(number, rows, pixels[at : at + len(rows)])
