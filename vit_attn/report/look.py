"""How lines look, in every figure and format: told apart by colour, by mark and by dashes, so that any one of them will do."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from vit_attn.report.series import Series

# Okabe and Ito's palette without its yellow, which is too faint for a line, then two of Tol's; told apart by the colour-blind.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#999933")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LEVEL_COLOURS = ("#222222", "#777777", "#AAAAAA")  # of what lines are compared with: softmax
DASHES = ((), (5, 2), (2, 2), (8, 2, 2, 2))  # on, off, ... in points; none: solid
REFERENCE_DASHES = ((5, 2), (5, 4), (5, 6))


class Look(NamedTuple):
    colour: str
    marker: str  # matplotlib's name
    dashes: tuple[int, ...]
    hollow: bool  # a mark that is not filled


def looks_of(series: Sequence[Series]) -> dict[str, Look]:
    """One look for each label. Series of one `kin` share colour and mark, and differ in dashes and filling by `variant`."""
    references = list(dict.fromkeys(one.label for one in series if one.reference))
    others = [one for one in series if not one.reference]
    kins, variants = list(dict.fromkeys(one.kin for one in others)), sorted({one.variant for one in others})
    looks = {}
    for i, label in enumerate(references):
        dashes = REFERENCE_DASHES[(i + i // len(LEVEL_COLOURS)) % len(REFERENCE_DASHES)]
        looks[label] = Look(LEVEL_COLOURS[i % len(LEVEL_COLOURS)], "o", dashes, False)
    for one in others:
        i, j = kins.index(one.kin), variants.index(one.variant)
        looks[one.label] = Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], DASHES[j % len(DASHES)], j > 0)
    return looks


def marks_of(series: Sequence[Series]) -> dict[str, str]:
    """A marker for each thing that points name (`mark`: the sizes of models), by ascending x; empty where they name nothing."""
    places: dict[str, float] = {}
    for point in (point for one in series for point in one.points if point.mark):
        places[point.mark] = min(point.x or 0.0, places.get(point.mark, math.inf))
    return {mark: MARKERS[i % len(MARKERS)] for i, mark in enumerate(sorted(places, key=lambda mark: places[mark]))}
