"""What a program exchanges between devices."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.tpu.hlo import Instruction, Module

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all", "ragged-all-to-all")
WITH_OPERANDS = ("all-gather-start", "collective-permute-start")  # their type names the operands too


@dataclass(frozen=True)
class Collective:
    """All of one kind in one run of the program. `bytes`: of their results, on one device, without padding.

    sent: bytes out of one device at least: what `share` says of them.
    """

    count: int = 0
    bytes: int = 0
    sent: float = 0.0


def share(kind: str, devices: int) -> float:
    """What a device of a group sends, in bytes of the result that it holds afterwards, in the algorithms that send least."""
    return {
        "reduce-scatter": devices - 1.0,
        "all-reduce": 2 * (devices - 1) / devices,
        "collective-permute": 1.0,
    }.get(kind, (devices - 1) / devices)


def group_size(module: Module, one: Instruction) -> int:
    """How many devices exchange with each other: the second axis of [groups,devices]<=..., or the length of {{0,1,...},...}."""
    found = re.search(r"replica_groups=(?:\[\d+,(\d+)\]<=|\{\{([\d,]+)\})", one.attributes)
    if not found:
        return module.devices
    return int(found[1]) if found[1] else len(found[2].split(","))


def kind_of(one: Instruction) -> str | None:
    """The kind of collective that `one` is or starts; None if it is no collective."""
    kind = one.opcode.removesuffix("-start")
    return kind if kind in KINDS else None


def collectives(module: Module, run: Iterable[tuple[str, int]]) -> dict[str, Collective]:
    """By kind, of the computations that run, each with the number of times.

    A collective that proceeds beside the computation is spelled again in every fusion that advances it, with the same channel
    and a chain_id: it is counted once.
    """
    total: dict[str, Collective] = {}
    seen: set[tuple[str, str]] = set()
    for computation, times in run:
        types = {one.name: one.arrays for one in module.flat(computation)}
        for one in module.flat(computation):
            kind = kind_of(one)
            if kind is None:
                continue
            channel = re.search(r"channel_id=(\d+)", one.attributes)
            if "chain_id" in one.attributes and channel:
                if (kind, channel[1]) in seen:
                    continue
                seen.add((kind, channel[1]))
            size = sum(array.bytes for array in one.arrays if array.dims)
            if one.opcode in WITH_OPERANDS:
                size -= sum(array.bytes for name in one.operands for array in types.get(name, ()))
            old = total.get(kind, Collective())
            sent = share(kind, group_size(module, one)) * size
            total[kind] = Collective(old.count + times, old.bytes + times * size, old.sent + times * sent)
    return total
