"""The order of training examples of a set that is read as a stream, as arithmetic.

The files of an epoch are permuted by (seed, epoch) and read in groups of up to `LANES`, those of a group side by side. Each
shard is read in runs of consecutive records; a block is one run of each shard of the group, of about `window` examples in all,
and its examples are permuted by (seed, epoch, block). So whoever holds the runs of one block can serve all of it, and the next
block goes on in each file where this one stopped.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import ceil
from typing import NamedTuple

from vit_attn.data.sources.order import key, permutation, shuffled

LANES = 16  # files that are read side by side
EPOCHS_KEPT = 4

Run = tuple[int, int]  # (shard, number of the run in it)


class Epoch(NamedTuple):
    blocks: list[list[Run]]
    ends: list[int]  # the positions in the epoch behind each block


class Place(NamedTuple):
    epoch: int
    block: int
    shard: int
    into: int  # which example of the shard


class StreamOrder:
    def __init__(self, lengths: Sequence[int], window: int) -> None:
        """`lengths`: how many examples each shard has."""
        self.lengths = list(lengths)
        self.groups = ceil(len(lengths) / LANES)
        self.lanes = ceil(len(lengths) / self.groups)  # of the largest group; they differ by one at most
        longest = max(1, window // self.lanes)
        self.runs = [ceil(length / longest) for length in lengths]  # of each shard
        self._epochs: dict[tuple[int, int], Epoch] = {}

    def place(self, position: int, seed: int) -> Place:
        """The example at a position of the endless stream."""
        number, position = divmod(position, sum(self.lengths))
        epoch = self.epoch(seed, number)
        block = bisect_right(epoch.ends, position)
        start = epoch.ends[block - 1] if block else 0
        place = shuffled(position - start, epoch.ends[block] - start, key(seed, number, block + 1))
        for run in epoch.blocks[block]:
            if place < self.size(run):
                return Place(number, block, run[0], self.bounds(run)[0] + place)
            place -= self.size(run)
        raise AssertionError("a block is as long as its runs")

    def runs_from(self, place: Place, seed: int) -> list[Run]:
        """The runs of the block of `place`, and those of the next block, which may be in the next epoch."""
        blocks = self.epoch(seed, place.epoch).blocks
        last = place.block + 1 == len(blocks)
        after = self.epoch(seed, place.epoch + 1).blocks[0] if last else blocks[place.block + 1]
        return [*blocks[place.block], *after]

    def bounds(self, run: Run) -> tuple[int, int]:
        """From which to which example of its shard a run goes. The runs of a shard are about equally long."""
        shard, number = run
        length, runs = self.lengths[shard], self.runs[shard]
        return number * length // runs, (number + 1) * length // runs

    def run_of(self, shard: int, into: int) -> Run:
        """The run with the example `into` of a shard."""
        length, runs = self.lengths[shard], self.runs[shard]
        return shard, (runs * (into + 1) - 1) // length

    def size(self, run: Run) -> int:
        start, stop = self.bounds(run)
        return stop - start

    def epoch(self, seed: int, number: int) -> Epoch:
        """The blocks of an epoch."""
        known = self._epochs.get((seed, number))
        if known is None:
            known = self._make_epoch(seed, number)
            self._epochs = dict([*self._epochs.items(), ((seed, number), known)][-EPOCHS_KEPT:])
        return known

    def _make_epoch(self, seed: int, number: int) -> Epoch:
        count = len(self.lengths)
        files = permutation(count, seed, number)
        blocks = []
        for group in range(self.groups):
            lanes = files[group * count // self.groups : (group + 1) * count // self.groups]
            for step in range(max(self.runs[shard] for shard in lanes)):
                blocks.append([(shard, step) for shard in lanes if step < self.runs[shard]])
        return Epoch(blocks, list(accumulate(sum(self.size(run) for run in block) for block in blocks)))
