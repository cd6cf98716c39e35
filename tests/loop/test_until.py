"""config.loop.until: a run that pauses on purpose is, once it has gone on, the run that never paused."""

import pytest
from trainer_runs import assert_same_arrays, command, finish, run_here, saved_arrays, saved_steps, without_speed

from vit_attn.store.run_dir import RunDir


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("until") / "whole"
    finish(command(folder), folder.with_suffix(".log"))
    return folder


def test_it_pauses_and_goes_on(whole, tmp_path, capsys):
    """5 is no step at which anything is logged, measured or saved."""
    paused, log = tmp_path / "paused", tmp_path / "log"
    finish(command(paused, loop__until=5), log)
    status = RunDir(paused).status()
    assert (status.state, status.step, status.steps, status.message) == ("paused", 5, 12, "")
    assert saved_steps(paused) == [4, 5]
    assert [row["step"] for row in RunDir(paused).metrics()] == [1, 2, 4]
    before = {path: path.stat().st_mtime_ns for path in paused.rglob("*")}
    for again in (command(paused, loop__until=5), ["--run", paused]):
        assert run_here(*again) == 0
        assert "is as far as config.loop.until says (paused, step 5): nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in paused.rglob("*")} == before

    assert "resumes at step 5" in finish(command(paused), log)
    assert RunDir(paused).status().state == "done"
    assert_same_arrays(saved_arrays(paused), saved_arrays(whole))
    assert without_speed(RunDir(paused).metrics()) == without_speed(RunDir(whole).metrics())


def test_beyond_the_last_step_it_has_no_say(tmp_path):
    assert run_here(*command(tmp_path / "run", train__steps=3, loop__until=7)) == 0
    assert RunDir(tmp_path / "run").status().state == "done"
