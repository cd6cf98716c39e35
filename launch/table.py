"""The table of a sweep's members, and its one-line summary; shared by the launcher and `launch.status`."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from launch.progress import NOT_AT_WORK, Progress
from vit_attn.store.run_dir import FINISHED

STYLES = {
    **{"waiting": "dim", "submitting": "dim cyan", "queued": "dim cyan", "starting": "cyan", "running": "bold cyan"},
    **{"done": "green", "paused": "cyan", "halved": "dim green"},
    **{"diverged": "yellow", "stopped": "yellow", "interrupted": "yellow", "failed": "bold red", "unreadable": "bold red"},
}


def overview(members: Sequence[Progress], elapsed: float | None = None, left: float | None = None, height: int = 0) -> Group:
    """Table, reasons and summary. `height`: lines that there is room for; the members that matter least go first (0: all)."""
    reasons = [member for member in members if member.message]
    room = len(members) if not height else max(height - 6 - min(len(reasons), 5), 3)
    shown = _most_telling(members, room)
    lines = [Text(f"{m.name}: {m.message}", style=STYLES.get(m.state, ""), no_wrap=bool(height)) for m in reasons]
    hidden = [Text(f"... and {len(members) - len(shown)} members more", style="dim")] if len(shown) < len(members) else []
    return Group(_table(shown), *hidden, *(lines[-5:] if height else lines), Text(summary(members, elapsed, left)))


def summary(members: Sequence[Progress], elapsed: float | None = None, left: float | None = None) -> str:
    """ "3 of 17 finished: 12 waiting, 2 running, 3 done; 1:05 passed, about 6:10 left"."""
    counts = Counter(member.state for member in members)
    finished = sum(counts[state] for state in FINISHED)
    states = ", ".join(f"{counts[state]} {state}" for state in STYLES if counts[state])
    times = [f"{clock(elapsed)} passed"] if elapsed is not None else []
    rung = " to the rung" if any(member.goal is not None and not member.finished for member in members) else ""
    times += [f"about {clock(left)} left{rung}"] if left else []
    return "; ".join(filter(None, (f"{finished} of {len(members)} finished: {states}", ", ".join(times))))


def step_line(member: Progress) -> str:
    """ "relu_alpha1.0_p7_seed0 step 120/250, 1500 images/s, loss 0.912, left 0:40": a running member in words."""
    images, loss, accuracy, left = _numbers(member)
    words = [f"{images} images/s", f"loss {loss}", f"val accuracy {accuracy}", f"left {left}"]
    return ", ".join([f"{member.name} step {member.step}/{member.steps}", *(w for w in words if "-" not in w)])


def clock(seconds: float) -> str:
    """Seconds as 0:09, 12:40 or 3:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _most_telling(members: Sequence[Progress], room: int) -> list[Progress]:
    """At most `room` members, in their order: first those at work, then those with trouble, then finished, then waiting."""
    rank = {"running": 0, "starting": 0, "queued": 3, "waiting": 3, **dict.fromkeys(FINISHED, 2)}
    chosen = sorted(range(len(members)), key=lambda index: rank.get(members[index].state, 1))[:room]
    return [members[index] for index in sorted(chosen)]


def _table(members: Sequence[Progress]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("member", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for head in ("step", "images/s", "loss", "val acc", "ETA"):
        table.add_column(head, justify="right", no_wrap=True)
    preempted = any(member.preempted for member in members)
    if preempted:
        table.add_column("preempted", justify="right", no_wrap=True)
    for member in members:
        style = STYLES.get(member.state, "")
        step = f"{member.step if member.step or member.state not in NOT_AT_WORK else '-'}/{member.steps}"
        if member.goal is not None and not member.finished:
            step += f" (rung at {member.goal})"
        times = [f"{member.preempted}x" if member.preempted else "-"] if preempted else []
        table.add_row(member.name, Text(member.state, style=style), step, *_numbers(member), *times)
    return table


def _numbers(member: Progress) -> tuple[str, str, str, str]:
    """images/s, training loss, validation accuracy, time left; "-" for what is not known."""
    metrics = member.metrics

    def number(key: str, digits: int) -> str:
        return f"{metrics[key]:.{digits}f}" if key in metrics else "-"

    left = "-" if member.seconds_left is None else clock(member.seconds_left)
    images = number("speed/images_per_second", 0) if member.state == "running" else "-"
    return images, number("train/loss", 3), number("val/accuracy", 4), left
