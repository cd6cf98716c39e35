"""report.html: every figure with zoom and hover, its tables, and all members with links to their files. One file, offline."""

import html
import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from plotly.offline import get_plotlyjs

from vit_attn.report.collect import Row
from vit_attn.report.page_legend import legend
from vit_attn.report.plot import plots_of
from vit_attn.report.series import Chart, Drawing, Table
from vit_attn.report.table import state_of
from vit_attn.report.varied import short_name, values_of, varied_settings

PARTS = files("vit_attn.report") / "page"
FEW_LINES, FEW_ROWS = 9, 60  # longer lists are folded up


def write_page(
    file: Path, rows: Sequence[Row], drawings: Sequence[Drawing], absent: dict[str, str], missing: Sequence[str]
) -> None:
    """Links are relative to the folder of `file`, so that a sweep's directory can be moved or copied whole."""
    title = ", ".join(dict.fromkeys(row.path.resolve().parent.name for row in rows))
    plots = [plots_of(drawing) for drawing in drawings if drawing.has_points]
    shown = [_section(drawing, i) for i, drawing in enumerate(d for d in drawings if d.has_points)]
    parts = {
        "title": html.escape(title),
        "style": (PARTS / "page.css").read_text(),
        "summary": html.escape(_summary(rows)),
        "sections": "\n".join(
            [*shown, _list("Missing", missing, True), _list("Figures that these runs are not for", _absent(absent))]
        ),
        "members": _members(rows, file.parent),
        "plots": _script_json(plots),
        "script": (PARTS / "page.js").read_text(),
        "plotly": get_plotlyjs() if plots else "",
    }
    text = (PARTS / "page.html").read_text()
    for name, part in parts.items():
        text = text.replace(f"<!--{name}-->", part)
    file.write_text(text, encoding="utf-8")


def _script_json(values: Any) -> str:
    """JSON that may stand inside a script element, whatever names hold."""
    return json.dumps(values).replace("<", "\\u003c")


def _summary(rows: Sequence[Row]) -> str:
    states = {state: sum(row.state == state for row in rows) for state in dict.fromkeys(row.state for row in rows)}
    hours = sum(row.core_hours or 0.0 for row in rows)
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    return f"{len(rows)} members: {counts}. {hours:.3g} core-hours of training."


def _section(drawing: Drawing, index: int) -> str:
    titles = [html.escape(plot["title"]) for plot in plots_of(drawing)]
    panels = "".join(f'<figure><figcaption>{title}</figcaption><div class="panel"></div></figure>' for title in titles)
    links = " ".join(f'<a href="{drawing.name}.{kind}">{kind.upper()}</a>' for kind in ("png", "svg", "csv"))
    names = legend(drawing) if isinstance(drawing, Chart) else ""
    tables = "".join(_table(table) for table in drawing.tables if table.rows)
    kind = "lines" if isinstance(drawing, Chart) else "dots"
    head = f"<h2>{html.escape(drawing.title)} <small>{drawing.name} {links}</small></h2>"
    figure = f'{names}<div class="panels {kind}" data-chart="{index}">{panels}</div>'
    return f'<section id="{drawing.name}">{head}{figure}{tables}{_list("Missing here", drawing.missing)}</section>'


def _table(table: Table) -> str:
    shown = [i for i, name in enumerate(table.head) if not name.endswith("std")]  # deviations stand in the cells of their means
    head = "".join(f"<th>{html.escape(table.head[i].replace('_', ' '))}</th>" for i in shown)
    body = "".join(f"<tr>{''.join(_cell(row[i], _deviation(table, row, i)) for i in shown)}</tr>" for row in table.rows)
    note = f"<p class=note>{html.escape(table.note)}</p>" if table.note else ""
    words = f'{html.escape(table.title)} <small><a href="{table.name}.csv">CSV</a></small>'
    return f"<h3>{words}</h3><div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"


def _deviation(table: Table, row: Sequence[Any], i: int) -> float | None:
    """The standard deviation of the mean in column `i`, which stands right of it."""
    return row[i + 1] if table.head[i + 1 : i + 2] and table.head[i + 1].endswith("std") else None


def _cell(value: Any, deviation: float | None = None) -> str:
    if isinstance(value, str):
        return f"<td>{html.escape(value)}</td>"
    number = "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return f'<td class="n">{html.escape(number)}{f" ± {deviation:.2g}" if deviation else ""}</td>'


def _absent(absent: dict[str, str]) -> list[str]:
    return [f"{name}: {why}" for name, why in absent.items()]


def _list(title: str, lines: Sequence[str], is_open: bool = False) -> str:
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return _folded(f"{title}: {len(lines)}", f"<ul>{items}</ul>", is_open and len(lines) < FEW_LINES) if lines else ""


def _folded(title: str, content: str, is_open: bool) -> str:
    return f"<details{' open' if is_open else ''}><summary>{title}</summary>{content}</details>"


def _members(rows: Sequence[Row], folder: Path) -> str:
    extra = [key for key in varied_settings(rows) if key != "model.variant"]
    names = ["member", "data", "size", "h", "alpha", "L", *(short_name(key, extra) for key in extra), "seed"]
    names += ["accuracy", "loss", "core-hours", "state", "log"]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(_member(row, extra, folder))}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return _folded(f"Members: {len(rows)}", f"<div class=scroll>{table}</div>", len(rows) <= FEW_ROWS)


def _member(row: Row, extra: Sequence[str], folder: Path) -> list[str]:
    log = _link(row.log, "log", folder) if row.log else "–"
    cells = [f"<td>{_link(row.path / 'config.json', row.name, folder)}</td>"]
    cells += [_cell(value) for value in (row.dataset, row.size, row.h, row.alpha, row.length)]
    cells += [_cell(value if isinstance(value, str | int | float | None) else str(value)) for value in values_of(row, extra)]
    results = (None, None) if row.state == "diverged" else (row.accuracy, row.loss)
    cells += [_cell(value) for value in (row.seed, *results, row.core_hours, state_of(row).partition(" (")[0])]
    return [*cells, f"<td>{log}</td>"]


def _link(file: Path, words: str, folder: Path) -> str:
    relative = Path(os.path.relpath(file.absolute(), folder.absolute())).as_posix()
    return f'<a href="{html.escape(quote(relative))}">{html.escape(words)}</a>'
