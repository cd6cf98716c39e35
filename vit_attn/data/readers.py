"""Which examples make up a batch, and their pixels: pure functions of the batch's number, for threads and processes alike."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from vit_attn.data.crop import crop_rng
from vit_attn.data.decode import BadImageError
from vit_attn.data.passes import Pass
from vit_attn.data.sources.source import Example, Source
from vit_attn.data.views import train_view, whole_view
from vit_attn.spec.data import DataSpec
from vit_attn.spec.errors import UserError


class Rows(NamedTuple):
    """Some rows of a batch, but for their pixels, and what it took to get them."""

    columns: dict[str, Int32[np.ndarray, "R ..."] | Float32[np.ndarray, "R"]]
    bad: int  # images that could not be decoded
    seconds: float


class Reader(Protocol):
    @property
    def source(self) -> Source: ...

    def __call__(self, number: int, rows: Sequence[int], pixels: UInt8[np.ndarray, "R Y X 3"]) -> Rows:
        """Writes the pixels of the rows `rows` of batch `number`, and returns the rest of them. Raises UserError."""


@dataclass(frozen=True)
class TrainReader:
    """Batch s takes the positions s*B ... (s+1)*B - 1 of the source's order."""

    source: Source
    data: DataSpec
    batch_images: int
    image_size: int
    num_classes: int

    def __call__(self, number: int, rows: Sequence[int], pixels: UInt8[np.ndarray, "R Y X 3"]) -> Rows:
        start = time.perf_counter()
        labels = np.full((len(rows), self.data.max_labels), -1, np.int32)
        place, bad = np.empty((2, len(rows)), np.int32), 0
        for at, row in enumerate(rows):
            epoch, index = self.source.order(number * self.batch_images + row, self.data.seed)
            found, skipped = self._good(epoch, index, pixels[at])
            labels[at, : len(found)] = found
            place[:, at] = epoch, index
            bad += skipped
        return Rows({"labels": labels, "epoch": place[0], "index": place[1]}, bad, time.perf_counter() - start)

    def _good(self, epoch: int, index: int, pixels: UInt8[np.ndarray, "Y X 3"]) -> tuple[list[int], int]:
        """(labels, images skipped) of the first example from `index` on whose image is good; writes its pixels."""
        for skipped in range(len(self.source)):
            here = (index + skipped) % len(self.source)
            rng = crop_rng(self.data.seed, epoch, here)
            try:
                return _read(self.source, here, partial(self._view, rng, pixels), self.num_classes), skipped
            except BadImageError as error:
                _refuse_unless_skipping(self.data, self.source, here, error)
        raise UserError(f"no image of split {self.source.split!r} of data set {self.source.name} can be decoded")

    def _view(self, rng: np.random.Generator, pixels: UInt8[np.ndarray, "Y X 3"], encoded: bytes) -> None:
        if self.data.crop == "inception":
            train_view(encoded, self.image_size, rng, self.data.crop_min_area, pixels)
        else:
            pixels[:] = whole_view(encoded, self.image_size)


@dataclass(frozen=True)
class PassReader:
    """Batch n takes the examples n*B ... (n+1)*B - 1 of a pass; what is beyond its end has mask 0, and so have bad images."""

    one: Pass
    data: DataSpec

    @property
    def source(self) -> Source:
        return self.one.source

    def __call__(self, number: int, rows: Sequence[int], pixels: UInt8[np.ndarray, "R Y X 3"]) -> Rows:
        start, bad, one = time.perf_counter(), 0, self.one
        labels = np.full((len(rows), one.max_labels), -1, np.int32)
        mask = np.zeros(len(rows), np.float32)
        pixels[:] = 0
        for at, row in enumerate(rows):
            place = number * one.batch_images + row
            if place >= len(one.indices):
                break
            index = one.indices[place]
            try:
                found = _read(one.source, index, partial(self._view, pixels[at]), one.num_classes)
            except BadImageError as error:
                _refuse_unless_skipping(self.data, one.source, index, error)
                bad += 1
            else:
                labels[at, : len(found)], mask[at] = found, 1.0
        return Rows({"labels": labels, "mask": mask}, bad, time.perf_counter() - start)

    def _view(self, pixels: UInt8[np.ndarray, "Y X 3"], encoded: bytes) -> None:
        pixels[:] = self.one.view(encoded)


def _read(source: Source, index: int, view: Callable[[bytes], None], classes: int | None) -> list[int]:
    """The labels of an example, whose image goes to `view`."""
    example: Example = source[index]
    view(example["image"])
    for label in example["labels"]:
        if classes is not None and not 0 <= label < classes:
            raise UserError(f"{source.where(index)} has the label {label}, but config.model.num_classes={classes}")
    return example["labels"]


def _refuse_unless_skipping(data: DataSpec, source: Source, index: int, error: BadImageError) -> None:
    if data.on_bad_image != "skip":
        raise UserError(
            f"{source.where(index)} cannot be decoded: {error} (config.data.on_bad_image=skip goes on with the next good one)"
        ) from error
