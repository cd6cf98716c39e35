"""Memory for the pixels of batches that are being decoded: this process's own, or shared with worker processes."""

import contextlib
import math
import pickle
import shutil
from functools import lru_cache
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np

from vit_attn.spec.errors import UserError

SHARED = Path("/dev/shm")  # where Linux has it


class OwnPixels:
    """A fresh array for each batch: threads write into it, and it is the batch's."""

    def __init__(self, reader: Any, shape: tuple[int, ...]) -> None:
        self._reader, self._shape = reader, shape

    def take(self) -> tuple[Any, np.ndarray]:
        """(what a piece of work is given in order to find reader and place, the array)."""
        array = np.empty(self._shape, np.uint8)
        return (self._reader, array), array

    def give_back(self, array: np.ndarray) -> np.ndarray:
        return array

    def close(self) -> None:
        pass


class SharedPixels:
    """`places` arrays in one block of shared memory, with the reader behind them, so that it travels once."""

    def __init__(self, reader: Any, shape: tuple[int, ...], places: int) -> None:
        code = pickle.dumps(reader)
        self._shape, self._size = shape, math.prod(shape)
        self._memory = _create(places * self._size + len(code))
        buffer(self._memory)[places * self._size : places * self._size + len(code)] = code
        self._code = (places * self._size, len(code))
        self._free = list(range(places))
        self._taken: dict[int, int] = {}

    def take(self) -> tuple[Any, np.ndarray]:
        place = self._free.pop()
        array = np.ndarray(self._shape, np.uint8, self._memory.buf, place * self._size)
        self._taken[id(array)] = place
        return (self._memory.name, self._code, self._shape, place * self._size), array

    def give_back(self, array: np.ndarray) -> np.ndarray:
        """A copy that may be kept. The place is free again."""
        kept = array.copy()
        self._free.append(self._taken.pop(id(array)))
        return kept

    def close(self) -> None:
        self._memory.unlink()
        with contextlib.suppress(BufferError):  # some array of it is still alive: it goes with that
            self._memory.close()


def _create(size: int) -> SharedMemory:
    """Raises UserError where there is no room: a worker would die as it writes."""
    try:
        if SHARED.is_dir() and (free := shutil.disk_usage(SHARED).free) < size:
            raise OSError(f"only {free / 2**20:.0f} MiB of {SHARED} are free")
        return SharedMemory(create=True, size=size)
    except OSError as error:
        raise UserError(
            f"no shared memory of {size / 2**20:.0f} MiB for worker processes: {error}; make it larger (docker: --shm-size), "
            "or take config.data.workers=0 (threads), or a smaller config.data.prefetch_bytes"
        ) from error


def reader_and_pixels(given: tuple[Any, ...]) -> tuple[Any, np.ndarray]:
    """What `take` gave, as the one who does the work sees it, in whichever process that is."""
    if len(given) == 2:
        return given
    name, (start, length), shape, offset = given
    memory, reader = _attached(name, start, length)
    return reader, np.ndarray(shape, np.uint8, memory.buf, offset)


@lru_cache(maxsize=2)  # that of training, and that of the evaluation under way: older ones are let go
def _attached(name: str, start: int, length: int) -> tuple[SharedMemory, Any]:
    memory = SharedMemory(name)
    return memory, pickle.loads(bytes(buffer(memory)[start : start + length]))


def buffer(memory: SharedMemory) -> memoryview:
    assert memory.buf is not None  # it is until `close`
    return memory.buf
