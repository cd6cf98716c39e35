"""The order of training examples, as arithmetic: no state, no buffer, any position at once."""

import sys
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np

ROUNDS = 4  # of the block cipher that permutes the indices
SHUFFLE = "grain._src.python.experimental.index_shuffle.python.index_shuffle_module"


def _index_shuffle() -> Callable[[int, int, int, int], int]:
    """grain's function (index, max_index, seed, rounds), without the rest of grain, which loads jax: workers need neither."""
    grain = find_spec("grain")
    if SHUFFLE not in sys.modules and grain is not None and grain.submodule_search_locations:
        file = Path(grain.submodule_search_locations[0]).parent / f"{SHUFFLE.replace('.', '/')}.so"
        spec = spec_from_file_location(SHUFFLE, file)
        if file.is_file() and spec is not None and spec.loader is not None:
            sys.modules[SHUFFLE] = module_from_spec(spec)  # grain would find it: it must not be loaded twice
            spec.loader.exec_module(sys.modules[SHUFFLE])
    return import_module(SHUFFLE).index_shuffle if SHUFFLE in sys.modules else import_module("grain.experimental").index_shuffle


index_shuffle = _index_shuffle()


def example_at(position: int, seed: int, length: int) -> tuple[int, int]:
    """(epoch, index) of the example at `position` of an endless stream over `length` examples.

    Positions e*length ... (e+1)*length - 1 are epoch e: a permutation of all examples, drawn by (seed, e). Takes O(1).
    """
    epoch, place = divmod(position, length)
    return epoch, shuffled(place, length, key(seed, epoch))


def shuffled(place: int, length: int, key: int) -> int:
    """The value at `place` of the permutation of 0 ... length - 1 that `key` draws. Takes O(1)."""
    return index_shuffle(place, length - 1, key, ROUNDS)


def permutation(length: int, *numbers: int) -> list[int]:
    """All of the permutation of 0 ... length - 1 that the numbers draw. For short ones, at which `shuffled` is slow."""
    drawn = np.random.SeedSequence(numbers).generate_state(length, np.uint64)
    return np.argsort(drawn, kind="stable").tolist()


@lru_cache(maxsize=1024)
def key(*numbers: int) -> int:
    """32 bits hashed from all the numbers, so that the next epoch of one seed is not this epoch of the next seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
