"""How the arrays of a checkpoint differ from those that a program has, in words."""

from collections.abc import Mapping
from typing import Any

MOST_LINES = 12


def described(leaves: Mapping[str, Any]) -> dict[str, str]:
    """{"params/head/kernel": "float32[48, 10]", ...} of arrays, or of their shapes, by path."""
    return {path: f"{x.dtype}{list(x.shape)}" for path, x in leaves.items()}


def tree_diff(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """A line for each path that is missing there, extra there, or of another shape or type. Empty if they are the same."""
    missing = [f"missing: {path} {here[path]}" for path in here if path not in there]
    extra = [f"extra: {path} {there[path]}" for path in there if path not in here]
    both = [path for path in here if path in there and there[path] != here[path]]
    other = [f"{_kind(there[path], here[path])}: {path} is {there[path]} there, {here[path]} here" for path in both]
    return missing + extra + other


def shortened(lines: list[str]) -> list[str]:
    """The first ones, and how many there are besides."""
    if len(lines) <= MOST_LINES:
        return lines
    left = [line.partition(":")[0] for line in lines[MOST_LINES:]]
    counts = ", ".join(f"{left.count(kind)} {kind}" for kind in dict.fromkeys(left))
    return [*lines[:MOST_LINES], f"and {len(left)} more: {counts}"]


def _kind(there: str, here: str) -> str:
    return "other type" if there.partition("[")[2] == here.partition("[")[2] else "other shape"
