"""Prints the results of a sweep and writes them: a figure, results.csv and results.md."""

from collections.abc import Sequence
from pathlib import Path

from etils import epy
from rich.console import Console

from vit_attn.report.collect import collect
from vit_attn.report.curve import curves
from vit_attn.report.table import missing_lines, results_table, write_csv, write_markdown
from vit_attn.store.run_dir import check_writable

with epy.lazy_imports():  # matplotlib takes its time, the first time on a machine many seconds: not for a --help
    from vit_attn.report import figure


def publish(paths: Sequence[Path], console: Console) -> list[Path]:
    """Writes into `report/` of the first of `paths` and returns the files.

    The figure holds what is finished and is left out while nothing is. Raises UserError where there is no run.
    """
    rows = collect(paths)
    folder = paths[0] / "report"
    check_writable(folder)
    folder.mkdir(exist_ok=True)
    missing = missing_lines(rows)
    drawn = [folder / "figure.png", folder / "figure.svg"] if any(row.has_result for row in rows) else []
    if drawn:
        figure.write_figure(curves(rows), drawn)
    tables = [folder / "results.csv", folder / "results.md"]
    write_csv(rows, tables[0])
    write_markdown(rows, missing, drawn[0].name if drawn else None, tables[1])
    console.print(results_table(rows))
    if missing:
        console.print(f"Missing: {len(missing)} of {len(rows)}", style="yellow", highlight=False)
        for line in missing:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    if not drawn:
        console.print("No figure yet: no member is finished.", style="yellow")
    for name, files in (("Figure", drawn), ("Results", tables)):
        for file in files:
            console.print(f"{name}: {file}", markup=False, highlight=False, soft_wrap=True)
    return [*drawn, *tables]
