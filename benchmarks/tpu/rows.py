"""A table that prints each row as soon as it is there: compiling the next one takes minutes."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table


class Rows:
    """`columns`: headings with their widths; the first one is a name."""

    def __init__(self, title: str, columns: Mapping[str, int]) -> None:
        self._widths = [max(width, len(heading)) for heading, width in columns.items()]
        self._console = Console(width=sum(self._widths) + 2 * len(self._widths), highlight=False)
        self._console.print(f"\n[bold]{title}[/bold]")
        self._print(list(columns), "bold")

    def add(self, *cells: str) -> None:
        self._print(cells)

    def say(self, name: str, text: str) -> None:
        """A sentence in place of cells."""
        self._console.print(f" {name:{self._widths[0]}}  {text}", markup=False, soft_wrap=True)

    def _print(self, cells: Sequence[str], style: str = "") -> None:
        table = Table(show_header=False, box=None, padding=(0, 1))
        for number, width in enumerate(self._widths):
            table.add_column(justify="right" if number else "left", width=width)
        table.add_row(*cells, style=style)
        self._console.print(table)
