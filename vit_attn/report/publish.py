"""Prints the results of a sweep and writes them: figures, their numbers, results.csv, results.md and report.html."""

from collections.abc import Sequence
from pathlib import Path

from etils import epy
from rich.console import Console

from vit_attn.report.collect import Row, collect
from vit_attn.report.metric import Metric, check_metric
from vit_attn.report.table import missing_lines, results_table, write_csv, write_markdown
from vit_attn.spec.errors import UserError
from vit_attn.store.writable import check_writable

with epy.lazy_imports():  # matplotlib takes its time, the first time on a machine many seconds: not for a --help
    from vit_attn.report import chart_csv, figure, page

from vit_attn.report.figures import ALL, Drawings, drawings

MOST_ROWS, MOST_LINES = 100, 20  # of results, and of what is missing, on the screen; the files have all


def publish(paths: Sequence[Path], console: Console, names: Sequence[str] = (), metric: Metric | None = None) -> list[Path]:
    """Writes into `report/` of the first of `paths` and returns the files.

    `names` are figures of report.figures; none: those that the runs are for. What is not finished is left out of the figures
    and told. Raises UserError where there is no run, or none that a named figure is for, before anything is written.
    """
    rows, lost = collect(paths)
    metric = metric or Metric()
    check_metric(metric, rows)
    folder = paths[0] / "report"
    check_writable(folder)
    found = drawings(names, rows, metric, paths)
    _refuse_absent(names, found)
    folder.mkdir(exist_ok=True)
    missing = [*missing_lines(rows), *lost]
    pictures = _draw(found, folder)
    tables = [folder / "results.csv", folder / "results.md"]
    write_csv(rows, tables[0])
    write_markdown(rows, missing, "figure.png" if pictures else None, tables[1])
    tables += [file for drawing in found.drawn if drawing.has_points for file in chart_csv.write_chart_csv(drawing, folder)]
    tables.append(folder / "report.html")
    page.write_page(tables[-1], rows, found.drawn, found.absent, missing)
    console.print(results_table(rows[:MOST_ROWS]))
    if len(rows) > MOST_ROWS:
        console.print(f"and {len(rows) - MOST_ROWS} more, in results.md", highlight=False)
    _tell_missing(console, rows, missing, lost)
    _tell_figures(console, found, names, rows, metric)
    for name, files in (("Figure", pictures), ("Results", tables)):
        for file in files:
            console.print(f"{name}: {file}", markup=False, highlight=False, soft_wrap=True)
    return [*pictures, *tables]


def _refuse_absent(names: Sequence[str], found: Drawings) -> None:
    """A figure that was asked for by its name, and for which there is no run."""
    for name, why in found.absent.items():
        if name in names:
            raise UserError(f"--figure {name}: these runs are not for it: {why}")


def _draw(found: Drawings, folder: Path) -> list[Path]:
    pictures = []
    for drawing in found.drawn:
        if drawing.has_points:
            files = [folder / f"{drawing.name}.{kind}" for kind in ("png", "svg")]
            figure.write_figure(drawing, files)
            pictures += files
    return pictures


def _tell_missing(console: Console, rows: Sequence[Row], missing: Sequence[str], lost: Sequence[str]) -> None:
    if not missing:
        return
    console.print(f"Missing: {len(missing)} of {len(rows) + len(lost)}", style="yellow", highlight=False)
    for line in missing[:MOST_LINES]:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    if len(missing) > MOST_LINES:
        console.print(f"  and {len(missing) - MOST_LINES} more, in results.md", highlight=False)


def _tell_figures(console: Console, found: Drawings, names: Sequence[str], rows: Sequence[Row], metric: Metric) -> None:
    """Which are not drawn, and why; a figure's own gaps that the list of missing runs does not tell are in the page."""
    if not any(drawing.has_points for drawing in found.drawn):
        console.print("No figure yet: no member is finished.", style="yellow")
        if metric.name not in (known := {name for row in rows for name in row.metrics}) and known:
            words = f"No member has the metric {metric.name!r} so far; they have {', '.join(sorted(known))}"
            console.print(words, markup=False, highlight=False, soft_wrap=True)
    if ALL in names:
        for name, why in found.absent.items():
            console.print(f"Not drawn: {name}: {why}", markup=False, highlight=False, soft_wrap=True)
