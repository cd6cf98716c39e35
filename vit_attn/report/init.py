"""The scale of attention's weights at initialisation, why the paper divides by L: from init_scale.csv, if there is one.

`python -m vit_attn.analysis.init_scale --out SWEEP` measures it; nothing is computed here.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from vit_attn.report.collect import Row
from vit_attn.report.series import Chart, NotHere, Panel, Point, Series
from vit_attn.spec.errors import UserError

FILE = "init_scale.csv"
LEAST_MEAN = 0.05  # of a standard deviation: below, as identity's, a mean is as good as 0, which has no logarithm


def chart(rows: Sequence[Row], paths: Sequence[Path]) -> Chart:
    """mean weight times L against L, a panel for each alpha. Raises NotHere if no path holds the file, with the command."""
    file = next((path / FILE for path in paths if (path / FILE).is_file()), None)
    if file is None:
        hs = ",".join(dict.fromkeys(row.h for row in rows))
        lengths = ",".join(map(str, sorted({row.length for row in rows})))
        flags = f"--out {paths[0]} --h {hs} --L {lengths}"
        raise NotHere(f"no {FILE}: python -m vit_attn.analysis.init_scale {flags} measures it")
    try:
        with open(file, newline="") as handle:
            lines = [
                (row["h"], row["alpha"], float(row["L"]), float(row["mean_times_L"]))
                for row in csv.DictReader(handle)
                if float(row["mean"]) > LEAST_MEAN * float(row["std"])
            ]
    except (KeyError, ValueError) as error:
        raise UserError(f"{file} is not a file of analysis.init_scale: {error!r}") from error
    alphas = sorted({float(alpha) for _, alpha, _, _ in lines if alpha}) or [1.0]
    panels = tuple(Panel(f"α = {alpha:g}", _series(lines, alpha), "mean attention weight × L") for alpha in alphas)
    title = "Attention weights at initialisation"
    return Chart("init", title, "L", "number of keys L", "number of keys L", panels, log_x=True, log_y=True)


def _series(lines: Sequence[tuple[str, str, float, float]], alpha: float) -> tuple[Series, ...]:
    """A line for each h."""
    chosen = [line for line in lines if not line[1] or float(line[1]) == alpha]
    found = []
    for h in dict.fromkeys(line[0] for line in chosen):
        points = [Point(length, (mean,)) for name, _, length, mean in chosen if name == h]
        reference = not next(line[1] for line in chosen if line[0] == h)
        found.append(Series(h, tuple(points), reference=reference, kin=h))
    return tuple(found)
