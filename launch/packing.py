"""How many members a pack has at most, and a grid cut into such packs."""

import dataclasses
import math
from collections.abc import Collection, Mapping

from launch.grid import Grid, Pack


def cut(grid: Grid, sizes: Mapping[str, int], keep: Collection[str] | None = None) -> Grid:
    """The members of each pack of `grid` (those whose names are in `keep`; None: all) in even packs of at most sizes[its name].

    A pack that is not named in `sizes` stays whole. Parts of "relu_p7" are "relu_p7_1of3", ...
    """
    packs = []
    for whole in grid.packs:
        members = [member for member in whole.members if keep is None or member.name in keep]
        if not members:
            continue
        parts = math.ceil(len(members) / sizes.get(whole.name, len(members)))
        ends = [len(members) * part // parts for part in range(parts + 1)]
        for part in range(parts):
            name = whole.name if parts == 1 else f"{whole.name}_{part + 1}of{parts}"
            packs.append(Pack(name, tuple(members[ends[part] : ends[part + 1]])))
    return dataclasses.replace(grid, packs=tuple(packs))
