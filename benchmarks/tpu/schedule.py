"""The instructions that the compiler schedules for one operation, as its dumps ("final_bundles") spell them.

A bundle is what the chip issues in one cycle:

     0x2   : > { %v3 = vld [vmem:[%s1]]  ;;  %4 = vmatmul.bf16.gmra.mxu0 %v3 }

LB marks the first bundle of a loop, `>` bundles within loops (not strictly: some of what follows a loop is put into its last
pass). A loop ends with a branch back to the region that begins there, unless its counter has come to a bound, and four
bundles more that are issued before the branch takes effect. Many loops are software pipelines: one over n blocks is passed
through n + 1 or n + 2 times, and all but the transfers is skipped where the counter is outside the n.
"""

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

BUNDLE = re.compile(r"^\s*(?:0x)?[0-9a-f]+\s+([A-Z]{2})?\s*:\s*>*\s*\{")
REGION = re.compile(r"\bStart region (\d+)\b")
COMPARISON = re.compile(r"(%p\w+) = scmp\.(ge|lt)\.s32\.totalorder (%s\w+), (\d+)\b")
BRANCH = re.compile(r"sbr\.rel \(!(%p\w+)\) target = \$region(\d+)")
DELAY = 4  # bundles between a branch and where it goes
# A pop takes 8 rows of 128 results from one of the four matrix units. They make a row a cycle each, half a cycle for int8, so
# that 8 rows keep all four busy for 2 cycles, or for 1. (One vmatmul makes 16 rows of bf16, 8 of float32, 32 of int8.)
POPPED_CYCLES = {"f32": 2.0, "s32": 1.0}
POP = re.compile(r"= vpop\.([fs]32)\.mrf")
DRAIN = 2  # passes of a pipelined loop, at most, that do not run its body


class UnknownSpellingError(ValueError):
    """A dump that this reader does not understand."""


@dataclass(frozen=True)
class Schedule:
    """Of one operation run once. Branches within loops are counted as taken."""

    cycles: float  # bundles, each as often as its loops run
    matrix_cycles: float  # that the matrix units need at least; bundles do not wait for them
    unknown_loops: int = 0  # loops whose number of passes is computed as the program runs: counted once


@dataclass
class _Loop:
    regions: frozenset[str] = frozenset()  # that begin with its first bundle
    cycles: float = 0.0
    matrix_cycles: float = 0.0
    comparisons: dict[str, tuple[str, str, int]] = field(default_factory=dict)  # (relation, name, bound), by the result's name
    test: str = ""  # of the branch back
    left: int | None = None  # bundles to come once the branch back has been issued

    def add(self, bundle: str) -> None:
        self.cycles += 1
        self.matrix_cycles += sum(POPPED_CYCLES[kind] for kind in POP.findall(bundle))
        self.comparisons.update(
            (result, (relation, name, int(bound))) for result, relation, name, bound in COMPARISON.findall(bundle)
        )
        self.left = None if self.left is None else self.left - 1
        branch = BRANCH.search(bundle)
        if branch and branch[2] in self.regions:
            self.test, self.left = branch[1], DELAY

    def passes(self) -> int | None:
        """How often its body runs; None if that is not in the text."""
        if self.test not in self.comparisons:
            return None
        last = self.comparisons[self.test][2]
        for counter in {name for _, name, _ in self.comparisons.values()}:
            first = [bound for relation, name, bound in self.comparisons.values() if (relation, name) == ("ge", counter)]
            past = [bound for relation, name, bound in self.comparisons.values() if (relation, name) == ("lt", counter)]
            if first and past and last - DRAIN <= max(past) - min(first) <= last:
                return max(past) - min(first)
        return last


def schedule(dump: str) -> Schedule:
    """The cycles of one dump's text."""
    loops, unknown = [_Loop()], 0

    def close() -> None:
        nonlocal unknown
        done = loops.pop()
        if not done.test:
            raise UnknownSpellingError("a schedule has a loop without a branch back: this compiler spells it in another way")
        passes = done.passes()
        unknown += passes is None
        loops[-1].cycles += done.cycles * (passes or 1)
        loops[-1].matrix_cycles += done.matrix_cycles * (passes or 1)

    for mark, bundle in _bundles(dump):
        if loops[-1].left == 0:
            close()
        if mark == "LB":
            loops.append(_Loop(frozenset(REGION.findall(bundle))))
        loops[-1].add(bundle)
    while len(loops) > 1:
        close()
    return Schedule(loops[0].cycles, loops[0].matrix_cycles, unknown)


def _bundles(dump: str) -> list[tuple[str | None, str]]:
    """(mark, text) of each bundle."""
    bundles: list[tuple[str | None, list[str]]] = []
    for line in dump.splitlines():
        if found := BUNDLE.match(line):
            bundles.append((found[1], [line]))
        elif bundles:  # comments break lines
            bundles[-1][1].append(line)
    return [(mark, "\n".join(lines)) for mark, lines in bundles]


def read(directory: Path) -> dict[str, Schedule]:
    """The schedules of all dumps in a directory, by the name of the operation.

    One that is spelled in a way not known here is left out, so that the cost model doubts the operation.
    """
    named = ((re.match(r"\d+-(.*)-\d+-final_bundles\.txt$", path.name), path) for path in sorted(directory.iterdir()))
    read = {}
    for found, path in named:
        if found and found[1] != "TLP" and not found[1].startswith("<"):  # the program around the operations
            with suppress(UnknownSpellingError):
                read[found[1]] = schedule(path.read_text(errors="replace"))
    return read
