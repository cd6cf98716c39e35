"""What a launcher refuses, in one line, before it creates or changes anything."""

import pytest
from sweep_runs import SWEEP

OTHER_SWEEP = SWEEP.replace("(0.0, 1.0)", "(0.0, 2.0)")


def test_another_grid_is_refused_and_nothing_changes(sweeps):
    assert sweeps.run()[0] == 0
    before = sweeps.files()
    for text, flags, told in (
        (SWEEP, ["--config.train.steps=31"], "config.train.steps: 16 there, 31 here (in softmax_p7_seed0, relu_"),
        (OTHER_SWEEP, [], "only there: relu_alpha1.0_p7_seed0, relu2_alpha1.0_p7_seed0; only here: relu_alpha2.0_p7_seed0"),
    ):
        code, _, err = sweeps.run(*flags, config=sweeps.config(text))
        assert (code, len(err.splitlines())) == (2, 1)
        assert told in err
        assert sweeps.files() == before


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--max-parallel", "0"], "--max-parallel=0 must be at least 1"),
        (["--max-parallel", "two"], "argument --max-parallel: invalid int value: 'two'"),
        (
            ["--backend", "locl"],
            "--backend: the backend 'locl' is unknown; did you mean 'local'? (choices: local, slurm, tpu-vm, gke)",
        ),
        (["--dryrun"], "unrecognized arguments: --dryrun"),
        (["--config.train.stepps=3"], "did you mean 'steps'?"),
        (["--config.train.steps=-3"], "config.train.steps=-3 must be >= 0"),
    ],
)
def test_bad_flags_are_one_line_and_create_nothing(sweeps, flags, told):
    code, _, err = sweeps.run(*flags)
    assert code == 2
    assert told in err
    assert len(err.splitlines()) == 1
    assert not sweeps.workdir.exists()


def test_a_workdir_that_cannot_be_is_refused(sweeps):
    sweeps.workdir.write_text("a file")
    code, _, err = sweeps.run()
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"{sweeps.workdir} is a file, not a directory" in err


def test_the_workdir_of_a_single_run_is_refused(sweeps):
    sweeps.workdir.mkdir()
    (sweeps.workdir / "config.json").write_text("{}")
    code, _, err = sweeps.run()
    assert (code, len(err.splitlines())) == (2, 1)
    assert "holds a single run, not a sweep" in err
