"""The text of a compiled XLA program: computations, their instructions, and the arrays these make."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128, "token": 0, "opaque": 0}  # the others carry their width in their name

ARRAY = re.compile(r"\b(pred|token|bf16|[suf]\d+\w*|c\d+)\[([\d,<=]*)\](?:\{([^}]*)\})?")
DEVICES = re.compile(r"^HloModule .*\bnum_partitions=(\d+)")
HEADER = re.compile(r"^(ENTRY )?%([\w.\-]+) .*\{$")
INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
TILE = re.compile(r"T\(([\d,]+)\)")
SPACE = re.compile(r"S\((\d+)\)")


@dataclass(frozen=True)
class Array:
    """`order`: dimensions from the fastest to the slowest. `space`: 0 is HBM, 1 VMEM on the chip, others are smaller still."""

    dtype: str
    dims: tuple[int, ...]
    order: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    space: int = 0

    @property
    def bits(self) -> int:
        return BITS[self.dtype] if self.dtype in BITS else int(re.findall(r"\d+", self.dtype)[0])

    @property
    def bytes(self) -> int:
        """Of its elements."""
        return math.prod(self.dims) * self.bits // 8

    @property
    def stored_bytes(self) -> int:
        """Bytes it takes in memory: the last dimensions of the layout are filled up to whole tiles, T(8,128) mostly."""
        shape = [self.dims[axis] for axis in reversed(self.order)] or list(self.dims)
        shape = [1] * (len(self.tile) - len(shape)) + shape
        for place, unit in zip(range(-len(self.tile), 0), self.tile, strict=True):
            shape[place] = -(-shape[place] // unit) * unit
        return math.prod(shape) * self.bits // 8

    @property
    def hbm_bytes(self) -> int:
        """stored_bytes of an array in HBM, 0 of one elsewhere."""
        return self.stored_bytes if self.space == 0 else 0


def arrays_of(text: str) -> tuple[Array, ...]:
    """The arrays that a type names, those of a tuple in their order."""
    return tuple(_array(*found) for found in ARRAY.findall(text))


def _array(dtype: str, dims: str, layout: str) -> Array:
    order, _, rest = layout.partition(":")
    tile, space = TILE.search(rest), SPACE.search(rest)
    return Array(
        dtype,
        tuple(int(size) for size in re.findall(r"\d+", dims)),
        tuple(int(axis) for axis in re.findall(r"\d+", order)),
        tuple(int(unit) for unit in tile[1].split(",")) if tile else (),
        int(space[1]) if space else 0,
    )


@dataclass(frozen=True)
class Instruction:
    """One line: `name` = `type` `opcode`(`operands`), then `attributes`."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str  # all after the opening bracket, the operands too
    root: bool = False

    @property
    def arrays(self) -> tuple[Array, ...]:
        return arrays_of(self.type)

    @property
    def origin(self) -> str:
        """Where in the traced program it comes from (jax's op_name); its opcode if the compiler made it up."""
        return self._find(r'op_name="([^"]*)"') or self.opcode

    @property
    def calls(self) -> str | None:
        """The computation that it runs as one operation."""
        return self._find(r"\b(?:calls|to_apply)=%?([\w.\-]+)")

    @property
    def window(self) -> str:
        """How its operands are cut into blocks."""
        return self._find(r'"window_config":(\{[^}]*\})') or ""

    @property
    def estimated_cycles(self) -> int | None:
        """The compiler's own estimate: fair for matrix products, several times too high for element-wise work."""
        found = self._find(r'"estimated_cycles":"(\d+)"')
        return int(found) if found else None

    def attribute(self, name: str) -> str | None:
        """The word after `name`=, as in body=%region_0."""
        return self._find(rf"\b{name}=%?([\w.\-]+)")

    def _find(self, pattern: str) -> str | None:
        found = re.search(pattern, self.attributes)
        return found[1] if found else None


@dataclass
class Module:
    """A program's computations by name, each a list of instructions in the order in which they run."""

    entry: str = ""
    devices: int = 1  # that run it together
    computations: dict[str, list[Instruction]] = field(default_factory=dict)

    def trips(self, loop: Instruction) -> int | None:
        """How often a while loop's body runs; None if the text does not say."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
        if known:
            return int(known[1])
        test = list(self.flat(loop.attribute("condition") or ""))
        bounds = [one.attributes for one in test if one.opcode == "constant" and one.type.startswith(("s32[]", "u32[]"))]
        if len(bounds) == 1 and any("direction=LT" in one.attributes for one in test):
            return int(bounds[0].partition(")")[0])  # jax's loops count from 0 up to this
        return None

    def flat(self, computation: str) -> Iterator[Instruction]:
        """The instructions of a computation and of all that they call."""
        for one in self.computations.get(computation, ()):
            yield one
            if one.calls:
                yield from self.flat(one.calls)


def parse(text: str) -> Module:
    """The program that `compiled.as_text()` spells."""
    module, lines = Module(), None
    for line in text.splitlines():
        if header := HEADER.match(line):
            lines = module.computations.setdefault(header[2], [])
            module.entry = header[2] if header[1] else module.entry
        elif named := DEVICES.match(line):
            module.devices = int(named[1])
        elif lines is not None and (found := INSTRUCTION.match(line)):
            operands = re.split(r"\)(?:, |$)", found[5], maxsplit=1)[0]
            names = tuple(re.findall(r"%([\w.\-]+)", operands))
            lines.append(Instruction(found[2], found[3], found[4], names, found[5], bool(found[1])))
    return module
