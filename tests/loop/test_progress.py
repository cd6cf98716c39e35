"""What a person sees of a run: on a real terminal, and in a file."""

import re
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console
from terminal import run_on_terminal, screen
from trainer_runs import command, run_here, saved_steps

from vit_attn.loop.live_table import LiveTable
from vit_attn.loop.progress import Rows, progress_line
from vit_attn.spec.load import load_run, split_overrides
from vit_attn.store.run_dir import RunDir

HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"  # the cursor


def test_lines_where_there_is_no_terminal(tmp_path, capsys):
    assert run_here(*command(tmp_path / "run")) == 0
    printed, number = capsys.readouterr().out, r"[\d,.]+"
    line = (
        rf"step +{number}/12 \| {number} images/s \| loss {number} \| (train|val) accuracy {number} \| ETA \d:\d\d:\d\d "
        rf"\| data wait \d+ % \| {number} core-hours"
    )
    lines = [one for one in printed.splitlines() if one.startswith("step")]
    assert len(lines) == 7
    assert all(re.fullmatch(line, one) for one in lines), lines
    assert "\x1b" not in printed


def test_ctrl_c_and_a_terminal_that_is_gone_both_save(tmp_path):
    argv = command(tmp_path / "run")
    code, written = run_on_terminal(argv, typed={"step 4/12": b"\x03"})
    assert code == 3
    seen = screen(written)
    assert "saved: received SIGINT; the same command goes on" in " ".join(seen[-4:])
    assert sum(line.startswith("run ") and "loss" in line for line in seen) == 1  # one table
    assert written.rindex(SHOWN) > written.rindex(HIDDEN)
    stopped_at = saved_steps(tmp_path / "run")[-1]
    code, written = run_on_terminal(argv, columns=120, typed={"step 8/12": None})
    assert f"resumes at step {stopped_at}" in "".join(screen(written, 120))
    assert code == 3
    status = RunDir(tmp_path / "run").status()
    assert (status.state, status.message) == ("stopped", "received SIGHUP")
    assert saved_steps(tmp_path / "run")[-1] >= 8


def test_a_pack_has_a_row_a_member_and_says_who_diverged(tmp_path):
    names = {"good": 1.0, "bad": -33.0, "a_member_whose_name_is_longer_than_any_terminal_has_room_for_in_its_table": 0.5}
    for name, alpha in names.items():
        words, settings = split_overrides(command(tmp_path / name))
        RunDir(tmp_path / name).create(load_run(words[1], {**settings, "model.attention.alpha": alpha}))
    code, written = run_on_terminal(["--run", *(tmp_path / name for name in names)])
    assert code == 0
    seen = screen(written)
    table = next(index for index, line in enumerate(seen) if line.startswith("member "))
    assert seen[table - 2].startswith("step 12/12 ")
    assert seen[table - 2].endswith("ETA 0:00:00")
    assert re.fullmatch(r"[\d,]+ images/s \| data wait \d+ % \| [\d.]+ core-hours", seen[table - 1])
    assert seen[table].split() == ["member", "loss", "accuracy", "val", "acc", "|grads|", "spikes"]
    good, long, bad, *why = seen[table + 1 : table + 6]
    assert re.fullmatch(r"good +\d\.\d{3} +\d\.\d{3} +\d\.\d{4} +\d+\.\d{3} +0", good)
    assert re.fullmatch(r"a_member_whose\w+… +\d\.\d{3} +\d\.\d{3} +\d\.\d{4} +\d+\.\d{3} +0", long)
    assert bad.split() == ["bad", "-", "-", "-", "-", "-"]
    assert why[0].startswith("bad: diverged at step 1: ")
    above = " ".join("".join(seen[:table]).split())
    assert f"{tmp_path / 'bad'}:" in above
    assert "checkpoint stays" not in above  # it has none


def rows_of(step, **more):
    """Of five members; those of `more` have more metrics."""
    members = [SimpleNamespace(run_dir=RunDir(Path(name))) for name in "abcde"]
    plain = {
        "train/loss": 1.5,
        "train/accuracy": 0.25,
        "speed/images_per_second": 100.0,
        "speed/core_hours": 2.0,
        "data/wait": 0.5,
    }
    return Rows(step, 61.0, [(one, {**plain, **more.get(one.run_dir.name, {})}) for one in members])


def test_what_a_table_shows():
    """Each number as last seen, the core-hours of all, and the reasons of the last ones that were lost."""
    console = Console(file=StringIO(), width=100, height=40, force_terminal=True)
    table = LiveTable(console, [*"abcde"], 12)
    table.show(rows_of(6, a={"val/accuracy": 0.125}))
    for name in "bcde":
        table.lost(SimpleNamespace(run_dir=RunDir(Path(name))), f"reason of {name}")
    rows = rows_of(8)
    table.show(rows)
    with console.capture() as captured:
        console.print(table.picture(rows))
    seen = re.sub(r"\x1b\[[^m]*m", "", captured.get())
    assert "step 8/12" in seen
    assert "ETA 0:01:01" in seen
    assert "100 images/s | data wait 50 % | 10.0 core-hours" in seen
    assert re.search(r"\na +1.500 +0.250 +0.1250 *\n", seen)
    assert re.findall("reason of (.)", seen) == [*"cde"]


def test_the_accuracy_of_a_line():
    """Of the validation where it is known."""
    assert "train accuracy 0.250 (a) to 0.250 (a)" in progress_line(rows_of(6), 12)
    measured = {name: {"val/accuracy": 0.5 + 0.1 * number} for number, name in enumerate("abcde")}
    assert "val accuracy 0.500 (a) to 0.900 (e)" in progress_line(rows_of(6, **measured), 12)
