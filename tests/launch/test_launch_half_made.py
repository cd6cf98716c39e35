"""Directories that are being made, or were damaged: what the programs of a sweep say of them."""

import subprocess
import sys

import pytest
from sweep_runs import MEMBERS, ROOT, wait_until

from launch.devices import Devices
from launch.estimate import Cost
from launch.grid import load_grid
from launch.halving import Halving, Rungs
from launch.sweep_dir import SweepDir
from vit_attn.spec.errors import UserError
from vit_attn.store.run_dir import RunDir, write_json


def launched(module, *words):
    command = [sys.executable, "-m", f"launch.{module}", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture
def sweep(sweeps):
    made = SweepDir(sweeps.workdir)
    made.create(load_grid(str(sweeps.config()), {}))
    return made


def test_a_second_launcher_waits_while_the_first_one_makes_the_directory(sweeps):
    """It may find the lock alone, then sweep.json without members: neither is an end, nor an error."""
    sweep = SweepDir(sweeps.workdir)
    grid = load_grid(str(sweeps.config()), {})
    with sweep.locked():
        second = sweeps.start()
        wait_until(lambda: sweeps.folder.exists() and second.poll() is None, 5)
        with pytest.raises(subprocess.TimeoutExpired):
            second.communicate(timeout=4)
        sweep.create(grid)
        for run in [run for runs in sweep.packs().values() for run in runs]:
            run.write_status("running", step=1, steps=16)
    out, err = second.communicate(timeout=100)
    assert (second.returncode, err) == (3, "")
    assert "this one watches it" in out
    assert "The other launcher has ended" in out
    assert not sweeps.starts()


def test_a_member_that_cannot_be_read_is_shown_as_such(sweep):
    (sweep.path / MEMBERS[0] / "config.json").write_text('{"a')
    RunDir(sweep.path / MEMBERS[1]).write_status("done", step=16, steps=16)
    shown = launched("status", sweep.path, "--once")
    assert shown.returncode == 0, shown.stderr
    assert "unreadable" in shown.stdout
    assert "1 done" in shown.stdout
    assert "config.json cannot be read" in shown.stdout


@pytest.mark.parametrize("name", ["halving.json", "submissions/vit-q-1.json"])
def test_a_damaged_file_is_named(sweep, name):
    (sweep.path / name).parent.mkdir(exist_ok=True)
    (sweep.path / name).write_text('{"a')
    program = ["status", "--once"] if "submissions" in name else ["retry", "--failed"]
    if name == "halving.json":
        with pytest.raises(UserError, match=r"halving\.json cannot be read"):
            Rungs(Halving((0.5,), "train/loss", "min"), load_grid(str(sweep.path.parent / "sweep.py"), {}), sweep)
        return
    told = launched(program[0], sweep.path, *program[1:])
    assert (told.returncode, len(told.stderr.splitlines())) == (2, 1)
    assert f"{name} cannot be read" in told.stderr


def test_a_halved_sweep_is_not_retried_by_halves(sweep):
    write_json(sweep.path / "halving.json", {"halving": {}, "rungs": []})
    told = launched("retry", sweep.path, "--failed")
    assert told.returncode == 2
    assert "the launch.sweep command retries them" in told.stderr


def test_retry_takes_no_fewer_than_one_at_a_time(sweep):
    RunDir(sweep.path / MEMBERS[0]).write_status("failed", step=3, steps=16)
    told = launched("retry", sweep.path, "--failed", "--max-parallel", "0")
    assert (told.returncode, told.stderr) == (2, "error: --max-parallel=0 must be at least 1\n")


@pytest.mark.parametrize("value", ["nan", "-1"])
def test_a_limit_that_is_none(sweeps, value):
    code, _, err = sweeps.run("--ask-above", value)
    assert code == 2
    assert "must be a number of core-hours, at least 0" in err


def test_more_groups_than_devices():
    assert Devices("gpu", "A100", ("0", "1", "2")).groups(3) == [("0",), ("1",), ("2",)]
    with pytest.raises(UserError, match="--max-parallel=4: a process takes one of the 3 A100 devices"):
        Devices("gpu", "A100", ("0", "1", "2")).groups(4)


def test_what_is_left_of_a_sweep_that_is_being_halved(sweep):
    """5 members of one hour: 5 pass 0.25, 3 of them 0.5, 2 of those the end. Once 3 are left after the first rung, of which
    one has made half of its steps, 0.25 + 0.25 for the others up to 0.5, and 2 of 3 make the last half."""
    grid = load_grid(str(sweep.path.parent / "sweep.py"), {})
    names = [member.name for member in grid.members]
    assert len(names) == 5
    halving = Halving((0.25, 0.5), "train/loss", "min")
    rungs = Rungs.__new__(Rungs)
    rungs.halving, rungs.grid, rungs.sweep, rungs.decided = halving, grid, sweep, []
    whole = {name: Cost(1.0, 1.0, 0) for name in names}
    assert rungs.left_hours(whole) == pytest.approx(5 * 0.25 + 3 * 0.25 + 2 * 0.5)
    rungs.decided = [set(names[3:])]
    begun = {name: Cost(1.0, 0.75, 0) for name in names} | {names[0]: Cost(1.0, 0.5, 0)}
    assert rungs.left_hours(begun) == pytest.approx(2 * 0.25 + 2 * 0.5)
