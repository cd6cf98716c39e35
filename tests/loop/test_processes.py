"""Two processes with four devices each train as one process with eight: real processes, met over loopback."""

import shutil

import pytest
from trainer_runs import assert_close, command, run_here, saved_arrays, saved_steps, together, without_speed

from vit_attn.store.run_dir import RunDir, read_rows

SETTINGS = {"data__crop_padding": 2, "data__flip": "true", "data__mixup": 0.3, "loop__histogram_steps": 6}


def tiny(workdir, **more):
    return command(workdir, **SETTINGS, **more)


def rows(workdir):
    return without_speed(RunDir(workdir).metrics())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    codes, logs = together(tiny(folder / "run"), folder / "log", 1, 8)
    assert codes == [0], logs
    return folder / "run"


def test_two_processes_are_as_good_as_one(alone, tmp_path):
    codes, logs = together(tiny(tmp_path / "run"), tmp_path / "log", 2, 4)
    assert codes == [0, 0], logs
    assert "8 cpu device(s) in 2 processes" in logs[0]
    assert "step 12/12 |" in logs[0]
    assert "step" not in logs[1]  # the first one speaks
    assert_close(saved_arrays(tmp_path / "run"), saved_arrays(alone))
    for mine, wanted in zip(rows(tmp_path / "run"), rows(alone), strict=True):
        assert mine == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    assert [row["step"] for row in read_rows(RunDir(tmp_path / "run").histograms_file)] == [6, 12]


@pytest.mark.parametrize(
    ("before", "mesh_before", "after", "mesh"),
    [
        ((1, 8), {}, (2, 2), {"mesh__data": 2, "mesh__seq": 2}),
        ((2, 4), {"mesh__fsdp": 4, "mesh__model": 2}, (1, 8), {"mesh__fsdp": 2}),
    ],
    ids=["1x8 to 2x2, tokens over 2", "2x4, all split, to 1x8, some split"],
)
def test_a_run_goes_on_in_another_number_of_processes(alone, tmp_path, before, mesh_before, after, mesh):
    codes, logs = together(tiny(tmp_path / "run", **mesh_before), tmp_path / "log1", *before)
    assert codes == [0] * before[0], logs
    forget_from(tmp_path / "run", 8)
    codes, logs = together(tiny(tmp_path / "run", **mesh), tmp_path / "log2", *after)
    assert codes == [0] * after[0], logs
    assert "resumes at step 8" in logs[0]
    assert f"{after[0] * after[1]} cpu device(s)" in logs[0]
    assert_close(saved_arrays(tmp_path / "run"), saved_arrays(alone))
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2, 4, 6, 8, 10, 12]


def forget_from(workdir, step):
    """As if it had been killed after saving `step`."""
    for later in (one for one in saved_steps(workdir) if one > step):
        shutil.rmtree(workdir / "checkpoints" / str(later))
    (workdir / "status.json").unlink()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--processes", "2"], "--process, --coordinator is missing"),
        (["--processes", "2", "--process", "2", "--coordinator", "localhost:1"], "--process=2 must be one of 0 to 1"),
        (["--processes", "2", "--process", "1", "--coordinator", "localhost"], "--coordinator=localhost must be HOST:PORT"),
        (["--processes", "2", "--process", "1", "--coordinator", "localhost:1", "--alone"], "--alone goes with none"),
        (["--join-seconds", "0"], "--join-seconds=0 must be from 1"),
    ],
)
def test_flags_that_cannot_be(tmp_path, capsys, flags, words):
    assert run_here(*command(tmp_path / "run"), *flags) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
