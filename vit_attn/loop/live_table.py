"""The progress of a run or a pack on a terminal: a table that stays in its place. Other lines scroll by above it."""

from contextlib import suppress
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vit_attn.loop.member import Member
from vit_attn.loop.progress import Rows, eta, figures

REASONS = 3  # why members were lost, of the last ones
LINES_BESIDES = 4 + 2 * REASONS  # of the terminal, that are not members
# column: (metric, digits). Shown from the moment that some member has the metric.
COLUMNS = {
    "loss": ("train/loss", 3),
    "accuracy": ("train/accuracy", 3),
    "val acc": ("val/accuracy", 4),
    "|grads|": ("train/l2_grads", 3),
    "spikes": ("train/loss_spikes", 0),
    "skipped": ("train/skipped", 0),
}


class LiveTable:
    """Drawn when there are new numbers, never in between: a training loop has no time for animation."""

    def __init__(self, console: Console, names: list[str], steps: int) -> None:
        self._console, self._steps = console, steps
        self._metrics: dict[str, dict[str, float]] = {name: {} for name in names}  # of each member, each as last seen
        self._lost: dict[str, str] = {}
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> "LiveTable":
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):  # the terminal is gone
            self._live.stop()

    def show(self, rows: Rows) -> None:
        for member, row in rows.of:
            self._metrics[member.run_dir.name].update(row)
        with suppress(OSError):
            self._live.update(self.picture(rows), refresh=True)

    def lost(self, member: Member, why: str) -> None:
        self._lost[member.run_dir.name] = why

    def picture(self, rows: Rows) -> Group:
        """The step and how far it is, the speed, and a row a member; the lost ones come last, and go first for lack of room."""
        head = Table.grid(padding=(0, 2), expand=True)
        head.add_column(no_wrap=True)
        head.add_column(ratio=1)
        head.add_column(no_wrap=True)
        bar = ProgressBar(total=self._steps, completed=rows.step, complete_style="cyan")
        head.add_row(Text(f"step {rows.step:,}/{self._steps:,}", style="bold"), bar, eta(rows))
        names = sorted(self._metrics, key=lambda name: name in self._lost)
        room = max(self._console.height - LINES_BESIDES, 1)
        hidden = [Text(f"... and {len(names) - room} more", style="dim")] if len(names) > room else []
        reasons = [Text(f"{name}: {why}", style="yellow") for name, why in list(self._lost.items())[-REASONS:]]
        return Group(head, Text(" | ".join(figures(rows))), self._members(names[:room]), *hidden, *reasons)

    def _members(self, names: list[str]) -> Table:
        shown = {head: one for head, one in COLUMNS.items() if any(one[0] in row for row in self._metrics.values())}
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("member" if len(self._metrics) > 1 else "run", overflow="ellipsis")  # what gives way
        for head in shown:
            table.add_column(head, justify="right", no_wrap=True)
        for name in names:
            row = self._metrics[name]
            cells = [f"{row[metric]:,.{digits}f}" if metric in row else "-" for metric, digits in shown.values()]
            table.add_row(name, *cells, style="yellow" if name in self._lost else "")
        return table
