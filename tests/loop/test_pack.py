"""Members of a pack are what they would be alone, also when one of them diverges."""

import pytest
from trainer_runs import assert_same_arrays, command, finish, run_here, saved_arrays, saved_steps, without_speed

from vit_attn.spec.load import load_run, split_overrides
from vit_attn.store.run_dir import RunDir

ALPHAS = {"good": 1.0, "bad": -33.0, "other": 0.5, "third": 0.0}  # 4^33 overflows: the loss is not finite
LONG = {"train__steps": 50}


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    for name, alpha in ALPHAS.items():
        prepare(folder / name, alpha, **LONG)
    finish(["--run", *(folder / name for name in ALPHAS)], folder / "log")
    return folder


def prepare(workdir, alpha, **overrides):
    """A run directory as a launcher leaves it for a worker."""
    words, settings = split_overrides(command(workdir, **overrides))
    RunDir(workdir).create(load_run(words[1], {**settings, "model.attention.alpha": alpha}))


@pytest.mark.parametrize("name", ["good", "other", "third"])
def test_members_equal_their_solo_runs(pack, tmp_path, name):
    """After 50 steps, bit for bit."""
    finish(command(tmp_path / "solo", model__attention__alpha=ALPHAS[name], **LONG), tmp_path / "log")
    assert saved_steps(pack / name)[-1] == 50
    assert_same_arrays(saved_arrays(pack / name), saved_arrays(tmp_path / "solo"))
    assert without_speed(RunDir(pack / name).metrics()) == without_speed(RunDir(tmp_path / "solo").metrics())
    assert RunDir(pack / name).status().state == "done"


def test_the_diverged_one_says_when(pack):
    status = RunDir(pack / "bad").status()
    assert (status.state, status.message) == ("diverged", "diverged at step 1: the loss is not finite")
    assert RunDir(pack / "bad").metrics() == [{"step": 1, "train/diverged_at": 1, "train/culprit": 0}]
    assert "diverged at step 1" in (pack / "log").read_text()
    assert saved_steps(pack / "bad") == []


def test_the_last_finite_checkpoint_stays(tmp_path, capsys):
    """A rate of 1e30 ruins the parameters in the second update (the first has rate 0): step 2 notices, in its parameters."""
    argv = command(tmp_path / "run", train__peak_lr=1e30, loop__ckpt_steps=1, loop__ckpt_keep=5)
    assert run_here(*argv) == 0
    assert RunDir(tmp_path / "run").status().message == "diverged at step 2: the parameter head/bias is not finite"
    assert "is not finite; its last finite checkpoint stays" in capsys.readouterr().out
    assert saved_steps(tmp_path / "run") == [1]


def test_members_continue_from_their_own_checkpoints(pack, tmp_path, capsys):
    """One member saved step 48 of 50, another nothing yet (a kill between their saves): both end as if nothing had been."""
    for name in ("good", "other"):
        prepare(tmp_path / name, ALPHAS[name], **LONG)
    stopped = command(tmp_path / "first", model__attention__alpha=1.0, **LONG)
    assert finish(stopped, tmp_path / "log")
    (tmp_path / "first" / "checkpoints").rename(tmp_path / "good" / "checkpoints")
    newest = tmp_path / "good" / "checkpoints" / "50"
    newest.rename(tmp_path / "set aside by the test")
    printed = finish(["--run", tmp_path / "good", tmp_path / "other"], tmp_path / "log")
    assert f"{tmp_path / 'good'}: resumes at step 48" in printed
    assert f"{tmp_path / 'other'}: starts" in printed
    for name in ("good", "other"):
        assert_same_arrays(saved_arrays(tmp_path / name), saved_arrays(pack / name))


def test_runs_that_need_two_programs_are_no_pack(tmp_path, capsys):
    prepare(tmp_path / "a", 1.0)
    prepare(tmp_path / "b", 1.0, train__batch_images=8)
    assert run_here("--run", tmp_path / "a", tmp_path / "b") == 2
    assert "differ in train.batch_images" in capsys.readouterr().err
    assert not (tmp_path / "a" / "status.json").exists()
