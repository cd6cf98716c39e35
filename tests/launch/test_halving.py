"""Successive halving: who goes on, who ends, in which packs, and that no kill changes it. The workers are stand-ins."""

import json
import signal

import pytest
from sweep_runs import MEMBERS, wait_until

from launch.halving import Halving
from launch.progress import Watch
from launch.sweep_dir import SweepDir
from vit_attn.store.run_dir import RunDir

# Accuracies, at all steps: softmax 0.77, alpha 0: 0.5, alpha 1: 0.6. Rungs at 4 and 8 of 16 steps.
FLAGS = ("--halve-at", "0.25,0.5", "--metric", "val/accuracy", "--config.eval.steps=4")
SOFTMAX, RELU0, RELU1, OTHER0, OTHER1 = MEMBERS
STEPS = {SOFTMAX: 16, RELU0: 4, RELU1: 16, OTHER0: 4, OTHER1: 8}


def states(sweeps):
    return {name: RunDir(sweeps.workdir / name).status().state for name in MEMBERS}


def assert_halved(sweeps):
    """The best of 5 members went through, and each step was made once."""
    assert states(sweeps) == {name: "done" if steps == 16 else "halved" for name, steps in STEPS.items()}
    assert sorted(sweeps.steps()) == sorted([name, str(step)] for name, last in STEPS.items() for step in range(1, last + 1))


def test_the_better_half_goes_on(sweeps):
    code, out, err = sweeps.run(*FLAGS)
    assert (code, err) == (0, "")
    assert_halved(sweeps)
    first = [[SOFTMAX], [RELU0, RELU1], [OTHER0, OTHER1]]
    assert sweeps.starts() == [*first, [SOFTMAX], [RELU1], [OTHER1], [SOFTMAX], [RELU1]]
    message = RunDir(sweeps.workdir / OTHER1).status().message
    assert message == "val/accuracy 0.6: 3 of 3 at step 8"  # equal to another: the first of the grid goes on
    for words in (
        "halving: at 0.25, 0.5 of the steps the worse half of the whole sweep ends; better is the highest val/accuracy",
        "halving at 0.25 of the steps: 3 go on, 2 end",
        "halving at 0.5 of the steps: 2 go on, 1 end",
    ):
        assert words in out
    assert "Missing" not in out
    assert {member.name: member.steps_left for member in Watch(sweeps.workdir).look()} == dict.fromkeys(MEMBERS, 0)

    started = len(sweeps.starts())
    assert sweeps.run(*FLAGS)[0] == 0  # nothing is left to do
    assert len(sweeps.starts()) == started
    code, _, err = sweeps.run("--config.eval.steps=4")
    assert code == 2
    assert "was begun with --halve-at 0.25,0.5 --metric val/accuracy --metric-order max: say the same" in err


@pytest.mark.parametrize("moment", ["within the first", "decided", "within the second"])
def test_a_killed_launcher_changes_nothing(sweeps, moment):
    sweeps.environment = {"STAND_IN_STEP_SECONDS": "0.03"}
    launcher = sweeps.start(*FLAGS, "--max-parallel", "2")
    reached = {
        "within the first": lambda: RunDir(sweeps.workdir / RELU0).status().step > 1,
        "decided": lambda: (sweeps.workdir / "halving.json").exists(),
        "within the second": lambda: RunDir(sweeps.workdir / SOFTMAX).status().step > 5,
    }
    wait_until(reached[moment], 60)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    code, _, err = sweeps.run(*FLAGS)
    assert (code, err) == (0, "")
    assert_halved(sweeps)


def test_survivors_share_packs(sweeps):
    """Packs of two: what is left of two packs goes on as one. One group of members: those that differ in alpha."""
    points = [{"h": "relu", "alpha": alpha} for alpha in (1.0, 0.0, 3.0, 9.0)]  # 9 diverges, and so ends below all others
    config = sweeps.config(f"def get_sweep(arg=''):\n    return {{'base': 'configs/quickstart.py', 'points': {points}}}\n")
    code, out, err = sweeps.run("--pack", "2", *FLAGS[2:], "--halve-at", "0.25", config=config)
    assert (code, err) == (0, "")
    names = [f"relu_alpha{alpha}_p7_seed0" for alpha in (1.0, 0.0, 3.0, 9.0)]
    assert sweeps.starts() == [names[:2], names[2:], [names[0], names[2]]]
    assert [RunDir(sweeps.workdir / name).status().state for name in names] == ["done", "halved", "done", "diverged"]
    assert "pack relu_p7_1of2: paused" in out
    assert "pack relu_p7: finished" in out
    packs = json.loads((sweeps.workdir / "sweep.json").read_text())["packs"]
    assert [pack["name"] for pack in packs] == ["relu_p7_1of2", "relu_p7_2of2"]
    assert SweepDir(sweeps.workdir).packs_at_work() == {"relu_p7": [names[0], names[2]]}


def test_nobody_is_ranked_while_a_pack_has_failed(sweeps):
    sweeps.environment = {"STAND_IN_FAILING": RELU1, "STAND_IN_FAILURES": "2"}
    code, _, _ = sweeps.run(*FLAGS, "--halve-within", "model.attention.h")
    assert code == 1
    assert states(sweeps) == {name: "failed" if name in (RELU0, RELU1) else "paused" for name in MEMBERS}
    assert not (sweeps.workdir / "halving.json").exists()
    assert {member.goal for member in Watch(sweeps.workdir).look()} == {4}
    sweeps.environment = {}
    assert sweeps.run(*FLAGS, "--halve-within", "model.attention.h")[0] == 0
    # each h for itself: one of one, one of two, one of two
    assert states(sweeps) == {name: "halved" if name in (RELU0, OTHER0) else "done" for name in MEMBERS}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--metric", "val/accuracy"], "--metric=val/accuracy has no meaning without --halve-at"),
        (["--halve-at", "0.5"], "--halve-at=0.5 needs --metric"),
        (["--halve-at", "0.5,0.25", "--metric", "val/loss"], "--halve-at=0.5,0.25 must be rising numbers between 0 and 1"),
        (["--halve-at", "1.0", "--metric", "val/loss"], "--halve-at=1.0 must be rising numbers between 0 and 1"),
        (["--halve-at", "half", "--metric", "val/loss"], "--halve-at=half must be rising numbers"),
        (["--halve-at", "0.5", "--metric", "val/acuracy"], "--metric: the metric 'val/acuracy' is unknown; did you mean"),
        (["--halve-at", "0.5", "--metric", "test/accuracy"], "'test' is unknown (choices: train, val)"),
        (["--halve-at", "0.01", "--metric", "val/loss"], "--halve-at=0.01 of the 16 steps of softmax_p7_seed0 is step 0"),
        (["--halve-at", "0.5,0.51", "--metric", "train/loss", "--config.loop.log_steps=1"], "are the same step"),
        (
            ["--halve-at", "0.5", "--metric", "val/loss"],
            "val/loss is measured every 125 steps (config.eval.steps=125), not at step 8, where --halve-at=0.5 of 16 ranks "
            "softmax_p7_seed0: say --config.eval.steps=8, or a divisor of 8",
        ),
        ([*FLAGS, "--metric-order", "up"], "--metric-order: the value 'up' is unknown"),
        ([*FLAGS, "--halve-within", "model.attention.hh"], "'model.attention.hh' is unknown; did you mean"),
    ],
)
def test_what_cannot_be_ranked_is_refused_up_front(sweeps, flags, told):
    code, _, err = sweeps.run(*flags)
    assert (code, len(err.splitlines())) == (2, 1)
    assert told in err
    assert not sweeps.workdir.exists()


def test_the_share_of_steps_that_is_made():
    """0.25 of all, then 0.25 of a half, then 0.5 of a quarter."""
    assert Halving((0.25, 0.5), "val/accuracy", "max").share() == 0.25 + 0.125 + 0.125
