"""A split of a data set prepared by TFDS as TFRecord: read as a stream, in windows that are shuffled in memory."""

from typing import Any

from vit_attn.data.decode import BadImageError
from vit_attn.data.sources.features import Features
from vit_attn.data.sources.run_cache import RunCache
from vit_attn.data.sources.shards import Shards
from vit_attn.data.sources.source import Example
from vit_attn.data.sources.stream_order import Run, StreamOrder


class TFRecords:
    """See `Source`. Examples may be read in any order, but fast only in that of `order`, and in that of the indices.

    Each process that reads holds up to three windows of `stream_window` encoded images in memory, and reads all files.
    """

    def __init__(
        self, name: str, split: str, features: Features, shards: Shards, timeout_seconds: float, stream_window: int
    ) -> None:
        self.name, self.split, self.label_names = name, split, features.label_names
        self._features, self._shards = features, shards
        self._order = StreamOrder([shard.take for shard in shards.shards], stream_window)
        self._cache = RunCache(shards, self._order, timeout_seconds)
        # What will be read soon, as `order` was asked last. It decides about speed, never about what is read.
        self._blocks: list[tuple[int, int, int]] = []  # (seed, epoch, block): the last two that were asked for
        self._soon: list[Run] = []
        self._run: Run | None = None

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: int) -> Example:
        shard, into = self._shards.place(index)
        run = self._order.run_of(shard, into)
        self._read_ahead(run)
        record = self._cache.records(run)[into - self._order.bounds(run)[0]]
        if isinstance(record, BadImageError):
            raise record
        return self._features.example(record, lambda: self.where(index))

    def where(self, index: int) -> str:
        return f"example {index} of split {self.split!r} of data set {self.name} ({self.identity(index)})"

    def identity(self, index: int) -> str:
        return self._shards.file(index)

    def order(self, position: int, seed: int) -> tuple[int, int]:
        place = self._order.place(position, seed)
        block = (seed, place.epoch, place.block)
        if block not in self._blocks:  # at a border, threads are in either block
            self._blocks, self._soon = [*self._blocks, block][-2:], self._order.runs_from(place, seed)
        return place.epoch, self._shards.start(place.shard) + place.into

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_blocks": [], "_soon": [], "_run": None}

    def _read_ahead(self, run: Run) -> None:
        """Begins to read what the stream, or else the order of the indices, needs next."""
        soon = self._soon
        if run in soon:
            self._soon = []
            self._cache.read_ahead(soon)
        elif not self._blocks and run != self._run:
            self._run = run
            shard, number = run
            following = (shard, number + 1) if number + 1 < self._order.runs[shard] else (shard + 1, 0)
            if following[0] < len(self._order.runs):
                self._cache.read_ahead([run, following])
