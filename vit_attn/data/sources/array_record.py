"""A split of a data set prepared by TFDS in array_record format: any example by its index, at once."""

import resource
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource

from vit_attn.data.sources.faults import may_pass, persistent
from vit_attn.data.sources.features import Features
from vit_attn.data.sources.order import example_at
from vit_attn.data.sources.shards import Shards
from vit_attn.data.sources.source import Example

OTHER_FILES = 1024  # that a process has open


class ArrayRecords:
    """See `Source`. Training examples come in a permutation of the whole split.

    Files in buckets (gs://) are read by array_record itself, which tries for up to 15 minutes before it reports an error of the
    network.
    """

    def __init__(self, name: str, split: str, features: Features, shards: Shards, timeout_seconds: float) -> None:
        self.name, self.split, self.label_names = name, split, features.label_names
        self._features, self._shards, self._timeout_seconds = features, shards, timeout_seconds
        self._open()

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: int) -> Example:
        number, _ = self._shards.place(index)
        record = persistent(lambda: self._read(index), self._shards.shards[number].filename, self._timeout_seconds)
        return self._features.example(record, lambda: self.where(index))

    def where(self, index: int) -> str:
        return f"example {index} of split {self.split!r} of data set {self.name} ({self.identity(index)})"

    def identity(self, index: int) -> str:
        return self._shards.file(index)

    def order(self, position: int, seed: int) -> tuple[int, int]:
        return example_at(position, seed, len(self))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_files"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def _open(self) -> None:
        _allow_open_files(len(self._shards.shards))
        self._files = ArrayRecordDataSource(self._shards.shards)  # each is opened when it is needed, and stays open

    def _read(self, index: int) -> bytes:
        try:
            return self._files[index]
        except Exception as error:
            if may_pass(error):
                self._open()  # a reader that has failed once fails for ever; other threads keep theirs until they are done
            raise


def _allow_open_files(count: int) -> None:
    """Raises this process's limit on open files, if it may, by what `count` more of them need: 1024 is usual, and too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
