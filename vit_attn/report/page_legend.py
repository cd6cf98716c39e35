"""The legend of a chart in the page: of all its panels together, with buttons that hide lines."""

import html

from vit_attn.report.look import Look, looks_of, marks_of
from vit_attn.report.plot import SYMBOLS
from vit_attn.report.series import Chart

SHAPES = {  # of the marks, in a box of 10 x 10
    "circle": '<circle cx="5" cy="5" r="4"/>',
    "square": '<rect x="1.5" y="1.5" width="7" height="7"/>',
    "triangle-up": '<path d="M5 1L9 9H1Z"/>',
    "diamond": '<path d="M5 .5L9.5 5L5 9.5L.5 5Z"/>',
    "triangle-down": '<path d="M5 9L9 1H1Z"/>',
    "cross": '<path d="M3.5 1h3v2.500h2.500v3h-2.500v2.500h-3v-2.500h-2.500v-3h2.500Z"/>',
    "x": '<path d="M1 2.500L2.500 1L5 3.500L7.500 1L9 2.500L6.500 5L9 7.500L7.500 9L5 6.500L2.500 9L1 7.500L3.500 5Z"/>',
    "star": '<path d="M5 .5L6.300 3.700L9.700 4L7.100 6.200L7.900 9.500L5 7.700L2.100 9.500L2.900 6.200L.3 4L3.700 3.700Z"/>',
}
CROSS = '<path d="M1 1L9 9M9 1L1 9" stroke="#555" stroke-width="2"/>'


def legend(chart: Chart) -> str:
    """A press on a line's name hides it in all panels, and shows it again."""
    there = {series.label for series in chart.series if series.points or series.diverged}
    looks = {label: look for label, look in looks_of(chart.series).items() if label in there}
    marks = marks_of(chart.series)
    levels = {series.label for series in chart.series if all(point.x is None for point in series.points)}
    items = [
        f'<button type="button" aria-pressed="true" data-label="{html.escape(label)}">'
        f"{_swatch(look, not marks and label not in levels)}{html.escape(label)}</button>"
        for label, look in looks.items()
    ]
    items += [f"<span>{_mark(SHAPES[SYMBOLS[marker]])}{html.escape(mark)}</span>" for mark, marker in marks.items()]
    if any(series.diverged for series in chart.series):
        items.append(f"<span>{_mark(CROSS)}diverged</span>")
    return f'<div class="legend">{"".join(items)}</div>'


def _swatch(look: Look, marked: bool) -> str:
    dash = f' stroke-dasharray="{" ".join(map(str, look.dashes))}"' if look.dashes else ""
    line = f'<path d="M0 5H30" stroke="{look.colour}" stroke-width="2"{dash}/>'
    fill, shape = "#fff" if look.hollow else look.colour, SHAPES[SYMBOLS[look.marker]]
    mark = f'<g transform="translate(10)" fill="{fill}" stroke="{look.colour}">{shape}</g>' if marked else ""
    return f'<svg viewBox="0 0 30 10" class="swatch" aria-hidden="true">{line}{mark}</svg>'


def _mark(shape: str) -> str:
    return f'<svg viewBox="0 0 10 10" class="mark" aria-hidden="true" fill="#555">{shape}</svg>'
