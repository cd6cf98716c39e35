"""The progress of a sweep as it comes: a live table on a terminal, lines elsewhere."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.live import Live

from launch.progress import Progress, seconds_left
from launch.table import clock, overview, step_line, summary

SUMMARY_SECONDS = 10.0  # between two summary lines where there is no terminal


class Display(Protocol):
    def __enter__(self) -> "Display": ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def show(self, members: Sequence[Progress]) -> None:
        """Takes the newest progress of all members."""

    def say(self, news: str) -> None:
        """Takes one line of news."""


def display(console: Console) -> Display:
    return LiveTable(console) if console.is_terminal else PlainLines(console)


class Stopwatch:
    """Seconds since the start, and an estimate of those to come, from the steps made since the first look."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.before: Sequence[Progress] | None = None

    def elapsed(self) -> float:
        return time.monotonic() - self.start

    def left(self, members: Sequence[Progress]) -> float | None:
        self.before = self.before or members
        return seconds_left(self.before, members, self.elapsed())


class LiveTable:
    """A table that stays in its place, with the news scrolling by above it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = Live(console=console, auto_refresh=False)
        self.watch = Stopwatch()

    def __enter__(self) -> "LiveTable":
        self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.live.stop()

    def show(self, members: Sequence[Progress]) -> None:
        table = overview(members, self.watch.elapsed(), self.watch.left(members), self.console.height)
        self.live.update(table, refresh=True)

    def say(self, news: str) -> None:
        self.console.print(f"{clock(self.watch.elapsed())}  {news}", markup=False, highlight=False)


class PlainLines:
    """One line for each change of a member's state, and a summary every ten seconds."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.watch = Stopwatch()
        self.states: dict[str, str] = {}
        self.next_summary = 0.0

    def __enter__(self) -> "PlainLines":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def show(self, members: Sequence[Progress]) -> None:
        left = self.watch.left(members)
        for member in members:
            old = self.states.get(member.name)
            self.states[member.name] = member.state
            if old not in (None, member.state):
                reason = f" ({member.message})" if member.message else ""
                self.say(f"{member.name}: {member.state}{reason}")
        if self.watch.elapsed() >= self.next_summary:
            self.next_summary = self.watch.elapsed() + SUMMARY_SECONDS
            running = [step_line(member) for member in members if member.state == "running"][:1]
            self.say("; ".join([summary(members, left=left), *running]))

    def say(self, news: str) -> None:
        line = f"{clock(self.watch.elapsed())}  {news}"
        print(line, file=self.console.file, flush=True)
