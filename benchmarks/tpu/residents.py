"""Which arrays of a compiled attention live in HBM, apart from the program's arguments."""

import math
from collections.abc import Iterator

from benchmarks.tpu.hlo import Array, Instruction, Module
from benchmarks.tpu.traffic import is_free

MOVES = {"parameter", "bitcast", "copy", "transpose", "reshape", "pad", "slice", "convert", "constant", "fusion", "broadcast"}
ROUNDED = (1, 8, 16, 128)  # to a multiple of one of these the length of an axis may have been filled up
PADDED = 1.4  # an array that takes this many times its bytes is a padded one


def in_words(module: Module, batch: int, length: int, width: int) -> str:
    """Whether L x L arrays, and copies of arrays of the size of q [batch, length, width], are in HBM."""
    scores = [array for _, array in made(module) if is_square(array, batch, length)]
    alike = [(one, array) for one, array in made(module) if is_alike(array, batch, length, width)]
    copies = [array for one, array in alike if only_moves(module, one)]
    padded = [array for one, array in alike if array.stored_bytes > PADDED * batch * length * width * array.bits // 8]
    said = [
        _counted(scores, "L x L array"),
        _counted(copies, "copied or transposed q-sized array"),
        _counted(padded, "padded q-sized array"),
    ]
    return "; ".join(said)


def made(module: Module) -> Iterator[tuple[Instruction, Array]]:
    """Each array that an operation of the program writes to HBM; operations within fusions write none."""
    inside = {one.calls for lines in module.computations.values() for one in lines if one.opcode != "call"}
    for name, lines in module.computations.items():
        for one in lines:
            if name in inside or is_free(one) or one.opcode in ("while", "conditional", "call"):
                continue
            arrays = one.arrays[:1] if one.opcode == "copy-start" else one.arrays  # then its source
            yield from ((one, array) for array in arrays if array.space == 0)


def is_square(array: Array, batch: int, length: int) -> bool:
    """Whether two of its axes, apart from the one over images, go over tokens."""
    dims = list(array.dims)
    if batch in dims:
        dims.remove(batch)
    return sum(size in filled_up(length) for size in dims) >= 2


def is_alike(array: Array, batch: int, length: int, width: int) -> bool:
    """Whether it has as many elements as q, or a little more because an axis is filled up."""
    most = batch * max(filled_up(length)) * width
    return batch * length * width <= math.prod(array.dims) <= most and not is_square(array, batch, length)


def filled_up(length: int) -> set[int]:
    """The sizes that an axis over tokens may have."""
    return {-(-length // unit) * unit for unit in ROUNDED}


def only_moves(module: Module, one: Instruction) -> bool:
    """Whether it computes nothing: it writes what it reads in another order, type or size."""
    if one.opcode == "copy-start":
        return False  # between HBM and VMEM
    inside = module.flat(one.calls) if one.opcode == "fusion" and one.calls else [one]
    return all(inner.opcode in MOVES for inner in inside)


def _counted(arrays: list[Array], what: str) -> str:
    if not arrays:
        return f"no {what}"
    return f"{len(arrays)} {what}{'s' if len(arrays) > 1 else ''} ({sum(a.stored_bytes for a in arrays) / 1e6:.0f} MB)"
