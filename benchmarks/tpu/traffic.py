"""The bytes that an instruction moves to and from HBM.

An array is counted once, however many blocks of it are read again: a lower bound. Only the part counts that is cut out of an
operand, or written into one in place. Arrays in VMEM cost nothing.
"""

from collections.abc import Mapping

from benchmarks.tpu.hlo import Array, Instruction, Module

SLICES = {"slice", "dynamic-slice", "gather"}  # read what they return
FREE = {
    *("parameter", "get-tuple-element", "tuple", "constant", "bitcast", "after-all", "partition-id", "replica-id"),
    *("add-dependency", "opt-barrier", "optimization-barrier"),
}
FREE_CALLS = ("ConcatBitcast", "AllocateBuffer", "AssumeGatherIndicesInBound")  # custom calls that only name a buffer
UPDATE = "dynamic-update-slice"


def is_free(one: Instruction) -> bool:
    """Whether it neither computes nor moves anything."""
    return one.opcode in FREE or one.opcode.endswith("-done") or any(f'"{name}"' in one.attributes for name in FREE_CALLS)


def moved(module: Module, one: Instruction, types: Mapping[str, tuple[Array, ...]]) -> int:
    """Bytes that `one` reads from and writes to HBM; `types`: the arrays of each instruction of its computation."""
    if one.opcode.endswith("-start"):
        return _copied(one)
    operands = [types.get(name, ()) for name in one.operands]
    if one.opcode in SLICES:
        return sum(array.hbm_bytes for array in one.arrays) + min(_hbm(operands[0]), _stored(one.arrays))
    if one.opcode == UPDATE:
        return 2 * min(_hbm(operands[0]), _stored(operands[1]))
    body = module.computations.get(one.calls or "", []) if one.opcode == "fusion" else []
    read = sum(_read(module, body, index, arrays) for index, arrays in enumerate(operands))
    return read + _written(module, body, one)


def _copied(one: Instruction) -> int:
    """A transfer beside the computation: the smaller of source and destination, once for each of the two that is in HBM."""
    ends = [array for array in one.arrays if array.dims][:2]
    if not ends:
        return 0
    return min(array.stored_bytes for array in ends) * sum(array.space == 0 for array in ends)


def _read(module: Module, body: list[Instruction], index: int, arrays: tuple[Array, ...]) -> int:
    """What a fusion reads of its operand number `index`."""
    whole = _hbm(arrays)
    parameter = next((one for one in body if one.opcode == "parameter" and one.attributes.startswith(f"{index})")), None)
    return whole if parameter is None or not whole else min(whole, _used(module, body, parameter, whole))


def _used(module: Module, body: list[Instruction], value: Instruction, whole: int) -> int:
    """Bytes of `value` that the instructions after it in `body` look at, `whole` if any takes all of it."""
    if value.root:
        return whole
    total = 0
    for one in body:
        if value.name not in one.operands:
            continue
        if one.opcode in SLICES and one.operands[0] == value.name:
            total += _stored(one.arrays)
        elif one.opcode == "bitcast":
            total += _used(module, body, one, whole)
        elif one.opcode == "fusion":
            inner = module.computations.get(one.calls or "", [])
            total += sum(
                _used(module, inner, parameter, whole)
                for index, name in enumerate(one.operands)
                if name == value.name
                for parameter in inner
                if parameter.opcode == "parameter" and parameter.attributes.startswith(f"{index})")
            )
        elif not (one.opcode == UPDATE and one.operands[0] == value.name):  # an update in place reads nothing
            return whole
    return total


def _written(module: Module, body: list[Instruction], one: Instruction) -> int:
    """What it writes: of an operand updated in place only the update."""
    if not any(inner.opcode == UPDATE for inner in body):
        return _hbm(one.arrays)
    named = {inner.name: inner for inner in body}
    root = next(inner for inner in body if inner.root)
    results = [named[name] for name in root.operands] if root.opcode == "tuple" else [root]
    return sum(
        min(array.hbm_bytes, _stored(_updated(named, result)) or array.hbm_bytes)
        for array, result in zip(one.arrays, results, strict=True)
    )


def _updated(named: Mapping[str, Instruction], result: Instruction) -> tuple[Array, ...]:
    """The part that `result` puts into an operand, () if it makes all of itself."""
    while result.opcode == "bitcast":
        result = named[result.operands[0]]
    return named[result.operands[1]].arrays if result.opcode == UPDATE else ()


def _hbm(arrays: tuple[Array, ...]) -> int:
    return sum(array.hbm_bytes for array in arrays)


def _stored(arrays: tuple[Array, ...]) -> int:
    return sum(array.stored_bytes for array in arrays)
