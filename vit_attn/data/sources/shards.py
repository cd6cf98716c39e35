"""The record files of one split: which record of which file is the example at an index."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any


@dataclass(frozen=True)
class Shard:
    """Consecutive records of a file. Has the fields that array_record asks of a "file instruction"."""

    filename: str
    skip: int  # records in front
    take: int
    examples_in_shard: int  # in the whole file


@dataclass(frozen=True)
class Shards:
    """The examples of a split are those of its shards, one after the other."""

    shards: list[Shard]
    ends: list[int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ends", list(accumulate(shard.take for shard in self.shards)))

    def __len__(self) -> int:
        return self.ends[-1]

    def place(self, index: int) -> tuple[int, int]:
        """(number of the shard, how far into what is taken of it) of the example at `index`. Raises IndexError."""
        if not 0 <= index < len(self):
            raise IndexError(f"{index} of {len(self)} examples")
        number = bisect_right(self.ends, index)
        return number, index - self.start(number)

    def start(self, number: int) -> int:
        """The index of the first example of a shard."""
        return self.ends[number] - self.shards[number].take

    def file(self, index: int) -> str:
        """The file that holds an example, and the number of its record there."""
        number, into = self.place(index)
        return f"record {self.shards[number].skip + into} of the file {self.shards[number].filename!r}"


def shards_of(instructions: Iterable[Any]) -> Shards:
    """From TFDS's file instructions of a split."""
    return Shards([Shard(str(i.filename), i.skip, i.take, i.examples_in_shard) for i in instructions if i.take > 0])
