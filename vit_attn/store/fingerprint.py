"""One number an array, which any flipped bit changes, and which is the same however the array is spread over devices.

fingerprint(x) = sum_i w_i (1 + C i) mod 2^32, with w_i the i-th word of x (row by row) and C even, so that all factors are odd.

Each process sums what it has, on the host, to which the arrays have to come for saving anyway. The place of a word is
i = sum_a stride_a i_a, so that the sum needs no more than sums along the axes: 0.4 ns a float32 word on one core. A program on
the devices would have to be compiled for each shape, dtype and sharding first, which takes seconds.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from vit_attn.parallel.processes import from_all
from vit_attn.store.paths import paths_of

_C = 2 * 2654435761 % 2**32
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def fingerprints(tree: Any) -> tuple[dict[str, int], list[str]]:
    """({path: number}, paths of arrays whose copies in different processes differ). All processes have to ask together."""
    leaves = paths_of(tree)
    slots = [_slots(x.sharding, x.shape) for x in leaves.values()]
    sums = np.zeros((2, sum(map(len, slots))), np.uint32)  # of each part of each array; whether this process has it
    first = 0
    for x, slot in zip(leaves.values(), slots, strict=True):
        for starts, shard in {_starts(shard.index): shard for shard in x.addressable_shards}.items():
            sums[:, first + slot[starts]] = part_sum(jax.device_get(shard.data), starts, x.shape), 1
        first += len(slot)
    values, there = np.moveaxis(from_all(sums), 1, 0)  # [processes, parts]
    one = values[np.argmax(there, axis=0), np.arange(values.shape[1])]
    differ = ((values != one) & (there > 0)).any(axis=0)
    bounds = np.cumsum([0, *map(len, slots)])
    numbers, bad = {}, []
    for path, begin, end in zip(leaves, bounds, bounds[1:], strict=False):
        numbers[path] = int(np.sum(one[begin:end], dtype=np.uint32))
        if differ[begin:end].any():
            bad.append(path)
    return numbers, bad


def part_sum(part: np.ndarray, starts: Sequence[int], shape: Sequence[int]) -> int:
    """What the block `part` of an array of `shape`, which begins at `starts`, adds to the array's fingerprint."""
    rest: Any = np.ascontiguousarray(part).reshape(part.shape).view(_WORDS[part.dtype.itemsize])
    places, stride = 0, int(np.prod(shape, dtype=np.int64))
    for start, size in zip(starts, shape, strict=True):
        stride //= max(size, 1)
        along: Any = np.sum(rest, axis=tuple(range(1, rest.ndim)), dtype=np.uint32)
        index = np.arange(start, start + len(along), dtype=np.uint64) * np.uint64(stride) % np.uint64(2**32)
        places += int(np.dot(along, index.astype(np.uint32)))
        rest = np.sum(rest, axis=0, dtype=np.uint32)
    return (int(rest) + places * _C) % 2**32


@lru_cache(maxsize=4096)
def _slots(sharding: jax.sharding.Sharding, shape: tuple[int, ...]) -> dict[tuple[int, ...], int]:
    """The distinct parts of an array, by where they start, numbered as all processes number them."""
    starts = {_starts(index) for index in sharding.devices_indices_map(shape).values()}
    return {start: number for number, start in enumerate(sorted(starts))}


def _starts(index: tuple[slice, ...]) -> tuple[int, ...]:
    return tuple(part.start or 0 for part in index)
