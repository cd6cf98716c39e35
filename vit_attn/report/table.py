"""Rows as a printed table, as results.csv and as results.md."""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from vit_attn.report.collect import Row
from vit_attn.report.varied import short_name, values_of, varied_settings
from vit_attn.store.run_dir import FINISHED

PLAIN_WIDTH = 160  # characters, where the output is not a terminal
WORDS = ("h", "state")  # columns aligned to the left


def wide_console() -> Console:
    """Standard output; where that is a file or a pipe, wide enough not to cut a table."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def results_table(rows: Sequence[Row]) -> Table:
    head, body = _cells(rows)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for name in head:
        table.add_column(name.replace(" ", "\n"), justify="left" if name in WORDS else "right", no_wrap=True)
    best = _best(rows)
    for row, cells in zip(rows, body, strict=True):
        style = "green" if row in best else "" if row.has_result else "yellow"
        table.add_row(*cells, style=style)
    return table


def write_markdown(rows: Sequence[Row], missing: Sequence[str], figure: str | None, file: Path) -> None:
    """The same table, the file name of the figure beside it if there is one, and what is missing."""
    head, body = _cells(rows)
    rules = [":---" if name in WORDS else "---:" for name in head]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, rules, *body)]
    picture = [f"![accuracy against alpha]({figure})", ""] if figure else []
    gaps = ["", "Missing:", "", *(f"- {line}" for line in missing)] if missing else []
    file.write_text("\n".join([*picture, *lines, *gaps, ""]))


def write_csv(rows: Sequence[Row], file: Path) -> None:
    """Every field of every row, unrounded, and the settings that vary; an empty cell is a value that is not known."""
    fields = [f.name for f in dataclasses.fields(Row) if f.repr]
    extra = [key for key in varied_settings(rows) if short_name(key, [key]) not in fields]
    with open(file, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow([*("L" if name == "length" else name for name in fields), *extra])
        for row in rows:
            writer.writerow([*(getattr(row, name) for name in fields), *values_of(row, extra)])


def missing_lines(rows: Sequence[Row]) -> list[str]:
    """One line a run that is not finished: its name, what it is doing, and the step it has reached."""
    return [f"{row.name}: {state_of(row)}" for row in rows if row.state not in FINISHED]


def state_of(row: Row) -> str:
    """ "done", "running 120/250", "diverged at step 30", "failed 0/250 (exit code 1: ...)"."""
    if row.state == "diverged" and row.message.startswith("diverged"):
        return row.message
    step = "" if row.state in ("done", "waiting") else f" {row.step}/{row.steps}"
    return f"{row.state}{step}" + (f" ({row.message})" if row.message else "")


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and body: h, alpha, L, whatever else varies, and the results; a run that diverged has none."""
    extra = varied_settings(rows)
    seeds = len({row.seed for row in rows}) > 1
    more = [*(short_name(key, extra) for key in extra), *(["seed"] if seeds else [])]
    head = ["h", "alpha", "L", *more, "validation accuracy", "loss", "core-seconds", "state"]
    body = []
    for row in rows:
        others = [*(str(value) for value in values_of(row, extra)), *([str(row.seed)] if seeds else [])]
        accuracy, loss = (None, None) if row.state == "diverged" else (row.accuracy, row.loss)
        results = [_number(accuracy, 4), _number(loss, 3), _number(row.core_seconds, 1)]
        alpha = "-" if row.alpha is None else f"{row.alpha:g}"
        body.append([row.h, alpha, str(row.length), *others, *results, state_of(row).partition(" (")[0]])
    return head, body


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _best(rows: Sequence[Row]) -> list[Row]:
    """The row with the highest accuracy of each L."""
    best: dict[int, Row] = {}
    for row in rows:
        if row.has_result and (row.length not in best or (row.accuracy or 0) > (best[row.length].accuracy or 0)):
            best[row.length] = row
    return list(best.values())
