"""What a person sees of a run: on a real terminal, and in a file."""

import re

from terminal import run_on_terminal, screen
from trainer_runs import command, run_here, saved_steps

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
