"""A launcher at work in a sweep's directory: from what is there to what is missing, with a table of it all."""

import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from signal import SIGINT, SIGTERM, Signals, signal

from rich.console import Console

from launch.backends.job import Backend
from launch.display import Display, display
from launch.progress import Watch, mark_starting
from launch.schedule import Schedule
from launch.sweep_dir import SweepDir, all_finished
from vit_attn.report.publish import publish
from vit_attn.store.run_dir import RunDir

DONE, FAILED, STOPPED = 0, 1, 3
POLL_SECONDS, SHOW_SECONDS = 0.1, 0.5
SHOW_SHARE = 10  # looking at many members takes its time: at most a tenth of the launcher's


@dataclass(frozen=True)
class Stage:
    """`packs` that train together, after `news` was told. The next stage begins when all their members have done what they
    were to do."""

    news: Sequence[str]
    packs: Mapping[str, list[RunDir]]


def launch(sweep: SweepDir, stages: Iterable[Stage], backend: Callable[[int], Backend], console: Console) -> int:
    """Trains what is unfinished. The caller holds the lock. `backend` makes one for so many packs. Returns the exit code."""
    sweep.stop_file.unlink(missing_ok=True)  # it was meant for those before
    with display(console) as shown, _stop_requests() as requests:
        for stage in stages:
            for news in stage.news:
                shown.say(news)
            sweep.begin_stage(stage.packs)
            todo = sum(not all_finished(runs) for runs in stage.packs.values())
            schedule = Schedule(sweep, backend(todo), shown.say, stage.packs)
            by = _train(schedule, Watch(sweep.path), shown, requests)
            if schedule.stopping or schedule.stopped or schedule.failed:
                break
    if not schedule.stopping:
        try:
            publish([sweep.path], console)
        except OSError as error:
            console.print(f"no report was written: {error}", markup=False, highlight=False, soft_wrap=True)
        words = f"TensorBoard: tensorboard --logdir {shlex.quote(str(sweep.path))}"
        console.print(words, markup=False, highlight=False, soft_wrap=True)
    for pack, why in schedule.failed.items():
        words = f"pack {pack} failed: {why} (log: {sweep.log(pack)})"
        console.print(words, style="red", markup=False, highlight=False, soft_wrap=True)
    if schedule.failed:
        return FAILED
    if schedule.stopping or schedule.stopped:
        who = by or f"somebody else ({', '.join(schedule.stopped[:3])})"
        left = "all that was trained is saved" if schedule.stopped else "nothing was left at work"
        words = f"Stopped by {who}; {left}. Run the same command to go on."
        console.print(words, markup=False, highlight=False, soft_wrap=True)
        return STOPPED
    return DONE


def _train(schedule: Schedule, watch: Watch, shown: Display, requests: list[Signals]) -> str:
    """Until all packs are over, or somebody asked for the end and the workers have saved. Returns who did, or ""."""
    next_show, by = 0.0, ""
    while not schedule.over:
        asked = requests[0].name if requests else "launch.stop" if schedule.sweep.stop_file.exists() else ""
        if asked and not schedule.stopping:
            by = asked
            schedule.stop(by)
        schedule.tick()
        if (now := time.monotonic()) >= next_show:
            shown.show(mark_starting(watch.look(), schedule.started()))
            next_show = time.monotonic() + max(SHOW_SECONDS, SHOW_SHARE * (time.monotonic() - now))
        time.sleep(POLL_SECONDS)
    shown.show(watch.look())
    return by


@contextmanager
def _stop_requests() -> Iterator[list[Signals]]:
    """SIGTERM and SIGINT end up in this list instead of ending the launcher."""
    requests: list[Signals] = []
    before = {number: signal(number, lambda got, _: requests.append(Signals(got))) for number in (SIGTERM, SIGINT)}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal(number, handler)
