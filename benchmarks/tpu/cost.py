"""A model of how long a compiled TPU program takes, from its text and its schedules. Nothing here was timed on a TPU.

    time of an operation = max(scheduled cycles / clock, cycles its matrix products need / clock, HBM bytes / bandwidth)
    time of the program  = max(sum over operations, all HBM bytes / bandwidth)

The second maximum is for transfers that the compiler starts ahead and that proceed beside operations. Not in it: how long
collectives take (they are counted and their bytes added up), the start of each operation, and what one operation hides of the
next one. Of a conditional all branches count.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from benchmarks.tpu.chip import V5E, Chip
from benchmarks.tpu.collectives import Collective, collectives, kind_of
from benchmarks.tpu.hlo import Instruction, Module
from benchmarks.tpu.schedule import Schedule
from benchmarks.tpu.traffic import is_free, moved


@dataclass(frozen=True)
class Op:
    """An operation with all its runs in one run of the program."""

    instruction: Instruction
    runs: int
    cycles: float
    matrix_cycles: float
    hbm_bytes: int
    asynchronous: bool = False  # a transfer beside the others
    doubt: str = ""  # why `cycles` is not to be trusted

    def seconds(self, chip: Chip) -> float:
        if self.asynchronous:
            return 0.0
        return max(chip.seconds_of_cycles(max(self.cycles, self.matrix_cycles)), chip.seconds_of_bytes(self.hbm_bytes))


@dataclass(frozen=True)
class Cost:
    """One run of a program on one device."""

    ops: list[Op]
    collectives: dict[str, Collective]
    unknown_loops: int = 0  # while loops of the program whose number of passes is not in the text: counted as if run once
    temp_bytes: int = 0  # of HBM, beside arguments and results
    chip: Chip = field(default=V5E)

    @cached_property
    def seconds(self) -> float:
        return max(sum(op.seconds(self.chip) for op in self.ops), self.chip.seconds_of_bytes(self.hbm_bytes))

    @property
    def milliseconds(self) -> float:
        return self.seconds * 1e3

    @property
    def cycles(self) -> float:
        """That are scheduled, of all operations."""
        return sum(op.cycles for op in self.ops)

    @property
    def hbm_bytes(self) -> int:
        return sum(op.hbm_bytes for op in self.ops)

    @property
    def matrix_seconds(self) -> float:
        """What the matrix units alone need."""
        return self.chip.seconds_of_cycles(sum(op.matrix_cycles for op in self.ops))

    def doubtful_share(self) -> float:
        """Of the time, in operations whose cycles are not to be trusted; 1 if the program has loops of unknown length."""
        doubtful = sum(op.seconds(self.chip) for op in self.ops if op.doubt)
        return 1.0 if self.unknown_loops else doubtful / self.seconds if doubtful else 0.0

    def biggest(self, number: int = 5) -> list[Op]:
        return sorted(self.ops, key=lambda op: op.seconds(self.chip), reverse=True)[:number]


def cost(module: Module, schedules: Mapping[str, Schedule], temp_bytes: int = 0, chip: Chip = V5E) -> Cost:
    """The cost of a program whose operations have the `schedules`, by name.

    The compiler schedules equal operations once and dumps one of them: the others are known by their form.
    """
    runs, unknown = _runs(module)
    known = {
        _form(module, one, computation): schedules[one.name]
        for computation, _ in runs
        for one in module.computations[computation]
        if one.name in schedules
    }
    ops = [op for computation, times in runs for op in _ops(module, computation, times, schedules, known)]
    return Cost(ops, collectives(module, runs), unknown, temp_bytes, chip)


def _runs(module: Module) -> tuple[list[tuple[str, int]], int]:
    """(computation, how often it runs) for the entry, loops, branches and calls; the number of loops without a known bound."""
    runs, unknown, waiting = [], 0, [(module.entry, 1)]
    while waiting:
        computation, times = waiting.pop(0)
        runs.append((computation, times))
        for one in module.computations[computation]:
            if one.opcode == "while":
                trips = module.trips(one)
                unknown += trips is None
                waiting.append((one.attribute("body") or "", times * (trips or 1)))
            elif one.opcode == "conditional":
                waiting += [(name, times) for name in _branches(one) if name in module.computations]
            elif one.opcode == "call" and one.calls:
                waiting.append((one.calls, times))
    return runs, unknown


def _branches(one: Instruction) -> list[str]:
    listed = one.attributes.partition("branch_computations={")[2].partition("}")[0].split(", ")
    named = [one.attribute("true_computation"), one.attribute("false_computation")]
    return [name.strip("%") for name in (*listed, *named) if name]


def _ops(
    module: Module, computation: str, times: int, schedules: Mapping[str, Schedule], known: Mapping[object, Schedule]
) -> Iterator[Op]:
    types = {one.name: one.arrays for one in module.computations[computation]}
    for one in module.computations[computation]:
        if is_free(one) or one.opcode in ("while", "conditional", "call") or kind_of(one):
            continue
        hbm_bytes = times * moved(module, one, types)
        if one.opcode.endswith("-start"):
            yield Op(one, times, 0.0, 0.0, hbm_bytes, asynchronous=True)
        elif found := schedules.get(one.name) or known.get(_form(module, one, computation)):
            doubt = f"{found.unknown_loops} loops counted once" if found.unknown_loops else ""
            yield Op(one, times, times * found.cycles, times * found.matrix_cycles, hbm_bytes, doubt=doubt)
        else:
            rough = one.estimated_cycles
            yield Op(one, times, times * float(rough or 0), 0.0, hbm_bytes, doubt="the compiler's estimate" if rough else "")


def _form(module: Module, one: Instruction, computation: str) -> object:
    """Equal for operations that the compiler takes for the same: types, blocks and what is computed, without names."""
    types = {other.name: other.type for other in module.computations[computation]}
    inside = tuple((inner.opcode, inner.type) for inner in module.flat(one.calls)) if one.calls else ()
    return one.opcode, one.type, tuple(types.get(name) for name in one.operands), one.window, inside
