"""The table of a sweep, read from its files, on a terminal and elsewhere."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from sweep_runs import MEMBERS, ROOT, wait_until

from launch.grid import load_grid
from launch.progress import Progress, mark_starting, seconds_left
from launch.sweep_dir import SweepDir
from launch.table import clock, overview, summary
from vit_attn.report.table import wide_console
from vit_attn.store.run_dir import RunDir

TERMINAL = {"COLUMNS": "120", "LINES": "40", "TERM": "xterm"}


def status_of(path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launch.status", str(path), *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture
def sweep(sweeps) -> Path:
    SweepDir(sweeps.workdir).create(load_grid(str(sweeps.config()), {}))
    return sweeps.workdir


def row_of(out: str, name: str) -> list[str]:
    return next(line.split() for line in out.splitlines() if line.split()[:1] == [name])


def test_every_member_is_shown_as_its_files_say(sweep):
    metrics = {"train/loss": 1.2345, "val/accuracy": 0.71234, "speed/images_per_second": 1500.4}
    RunDir(sweep / MEMBERS[0]).write_status("done", step=250, steps=250, metrics=metrics)
    RunDir(sweep / MEMBERS[1]).write_status("running", step=120, steps=250, metrics=metrics, seconds_left=75.0)
    RunDir(sweep / MEMBERS[2]).write_status("failed", step=7, steps=250, message="exit code 1: ValueError: [bad] luck")
    gone = subprocess.run(
        [sys.executable, "-c", "import sys; from pathlib import Path; from vit_attn.store.run_dir import RunDir\n"
         f"RunDir(Path({str(sweep / MEMBERS[3])!r})).write_status('running', step=50, steps=250, seconds_left=9.0)"],
        cwd=ROOT, check=True,
    )  # fmt: skip
    assert gone.returncode == 0
    shown = status_of(sweep)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert row_of(shown.stdout, MEMBERS[0])[1:] == ["done", "250/250", "-", "1.234", "0.7123", "-"]
    assert row_of(shown.stdout, MEMBERS[1])[1:] == ["running", "120/250", "1500", "1.234", "0.7123", "1:15"]
    assert row_of(shown.stdout, MEMBERS[2])[1:] == ["failed", "7/250", "-", "-", "-", "-"]
    assert row_of(shown.stdout, MEMBERS[3])[1:] == ["interrupted", "50/250", "-", "-", "-", "-"]
    assert row_of(shown.stdout, MEMBERS[4])[1:] == ["waiting", "-/250", "-", "-", "-", "-"]
    assert f"{MEMBERS[2]}: exit code 1: ValueError: [bad] luck" in shown.stdout
    assert "1 of 5 finished: 1 waiting, 1 running, 1 done, 1 interrupted, 1 failed" in shown.stdout


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "is not the directory of a sweep"), ("[1", "is not a sweep's file"), ('{"packs": 3}', "is not a sweep's file")],
)
def test_what_is_no_sweep_is_refused(tmp_path, content, told):
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    shown = status_of(tmp_path)
    assert (shown.returncode, len(shown.stderr.splitlines())) == (2, 1)
    assert told in shown.stderr


def test_on_a_terminal_the_launcher_shows_a_live_table(sweeps):
    sweeps.environment = TERMINAL
    ours, theirs = pty.openpty()
    launcher = sweeps.start(stdout=theirs)
    os.close(theirs)
    shown = _read_to_the_end(ours)
    assert launcher.wait() == 0
    assert shown.count("val acc") > 2  # drawn again and again
    assert "0 of 5 finished: 4 waiting, 1 starting" in shown
    assert "5 of 5 finished: 5 done" in shown
    assert "pack relu_p7: started" in shown


def test_on_a_terminal_status_is_live(sweeps):
    sweeps.environment = {"STAND_IN_STEP_SECONDS": "0.2"}
    sweeps.start()
    wait_until(lambda: RunDir(sweeps.workdir / MEMBERS[0]).status().state == "running")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "launch.status", str(sweeps.workdir)]
    with subprocess.Popen(command, cwd=ROOT, stdout=theirs, stderr=theirs, env={**os.environ, **TERMINAL}) as watcher:
        os.close(theirs)
        shown = _read_to_the_end(ours)
    assert watcher.returncode == 0
    assert shown.count("val acc") > 2
    assert "0 of 5 finished" in shown
    assert "5 of 5 finished: 5 done" in shown


def _read_to_the_end(terminal: int) -> str:
    parts = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux's way to say that the other side has gone
            part = b""
        if not part:
            os.close(terminal)
            return b"".join(parts).decode()
        parts.append(part)


def member(name: str, state: str, step: int = 0, updated: float = 0.0) -> Progress:
    return Progress(name, state, step, 100, updated=updated)


def test_a_member_is_starting_until_its_worker_has_spoken():
    members = [member("a", "failed", updated=5), member("b", "failed", updated=15), member("c", "running")]
    members += [member("d", "waiting")]
    states = [m.state for m in mark_starting(members, {"a": 10.0, "b": 10.0, "c": 10.0})]
    assert states == ["starting", "failed", "running", "waiting"]


def test_time_left_is_that_of_the_steps_left():
    before = [member("a", "done", 100), member("b", "waiting"), member("c", "waiting")]
    now = [member("a", "done", 100), member("b", "diverged", 30), member("c", "running", 20)]
    assert seconds_left(before, now, elapsed=12.0) == pytest.approx(12.0 * 80 / 50)
    assert seconds_left(before, before, elapsed=12.0) is None


def test_before_a_rung_the_time_left_is_that_to_the_rung():
    halved = Progress("a", "halved", 25, 100, goal=25)
    before = [halved, Progress("b", "paused", 25, 100, goal=50), Progress("c", "running", 30, 100, goal=50)]
    now = [halved, Progress("b", "running", 35, 100, goal=50), Progress("c", "paused", 50, 100, goal=50)]
    assert [one.steps_left for one in now] == [0, 15, 0]
    assert seconds_left(before, now, elapsed=12.0) == pytest.approx(12.0 * 15 / 30)
    console = wide_console()
    with console.capture() as captured:
        console.print(overview(now, left=60))
    assert row_of(captured.get(), "c")[1:6] == ["paused", "50/100", "(rung", "at", "50)"]
    assert row_of(captured.get(), "a")[2] == "25/100"
    assert "about 1:00 left to the rung" in captured.get()


def test_the_log_of_a_rung_is_shown_by_the_packs_of_the_rung(sweep):
    directory = SweepDir(sweep)
    directory.log("relu_p7").write_text("the first rung was fine\n")
    directory.begin_stage({"relu_p7_1of2": [RunDir(sweep / MEMBERS[1])], "relu_p7_2of2": [RunDir(sweep / MEMBERS[2])]})
    directory.log("relu_p7_2of2").write_text("out of luck\n")
    RunDir(sweep / MEMBERS[2]).write_status("failed", step=7, steps=250, message="exit code 1")
    shown = status_of(sweep).stdout
    assert "out of luck" in shown
    assert "pack relu_p7_2of2, end of" in shown
    assert "fine" not in shown
    (sweep / "stage.json").write_text("[1")  # a damaged one says nothing
    assert "the first rung was fine" in status_of(sweep).stdout


def test_a_low_terminal_shows_the_members_at_work():
    members = [member(f"m{i:02}", "running" if i == 57 else "waiting") for i in range(60)]
    console = wide_console()
    with console.capture() as captured:
        console.print(overview(members, height=20))
    lines = captured.get().splitlines()
    assert len(lines) <= 20
    assert any(line.startswith("m57") for line in lines)
    assert "... and 46 members more" in captured.get()


def test_clock_and_summary_are_readable():
    assert [clock(s) for s in (0.4, 65, 3725)] == ["0:00", "1:05", "1:02:05"]
    told = summary([member("a", "done", 100), member("b", "starting")], elapsed=65, left=125)
    assert told == "1 of 2 finished: 1 starting, 1 done; 1:05 passed, about 2:05 left"
