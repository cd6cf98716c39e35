"""The order of training examples, as arithmetic: no state, no buffer, any position at once."""

from functools import lru_cache

import numpy as np
from grain.experimental import index_shuffle

ROUNDS = 4  # of the block cipher that permutes the indices


def example_at(position: int, seed: int, length: int) -> int:
    """The index of the example at `position` of an endless stream over `length` examples.

    Positions e*length ... (e+1)*length - 1 are epoch e: a permutation of all examples, drawn by (seed, e). Takes O(1).
    """
    epoch, place = divmod(position, length)
    return index_shuffle(place, length - 1, _epoch_seed(seed, epoch), ROUNDS)


@lru_cache
def _epoch_seed(seed: int, epoch: int) -> int:
    """32 bits hashed from both, so that the next epoch of one seed is not this epoch of the next seed."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
