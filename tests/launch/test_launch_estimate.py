"""What a sweep is said to cost: core-hours by FLOPs, a measured step or finished members, and checkpoints that stay."""

import pytest

from launch.devices import Devices
from launch.estimate import checkpoints_kept, choose_rate, costs
from launch.grid import load_grid
from vit_attn.spec.flops import flops_per_image
from vit_attn.spec.load import load_run
from vit_attn.store.run_dir import Status


@pytest.fixture(scope="module")
def grid():
    return load_grid("configs/sweeps/quickstart_alpha.py", {})


def test_core_hours_by_flops(grid):
    waiting = {member.name: Status() for member in grid.members}
    rate = choose_rate(grid, waiting, Devices(), "v3", 0.5, None, 1)
    found = costs(grid, rate, waiting)
    for member in grid.members:
        flops = flops_per_image(member.spec.model) * 128 * 250
        assert found[member.name].core_hours == pytest.approx(flops / (61.5e12 * 0.5) / 3600)
    done = {**waiting, grid.members[0].name: Status("done", 250, 250), grid.members[1].name: Status("stopped", 50, 250)}
    left = [cost.left / cost.core_hours for cost in costs(grid, rate, done).values()]
    assert left == pytest.approx([0.0, 0.8] + [1.0] * 15)


def test_core_hours_by_measurement(grid):
    """Of a measured step, and of members that are finished; programs that were not measured: by their products."""
    waiting = {member.name: Status() for member in grid.members}
    first, last = grid.members[0].spec, grid.members[-1].spec
    ratio = flops_per_image(last.model) / flops_per_image(first.model)
    rate = choose_rate(grid, waiting, Devices(), None, 0.4, 720.0, 4)
    assert rate.core_hours(first) == pytest.approx(250 * 0.72 * 4 / 3600)
    assert rate.core_hours(last) == pytest.approx(ratio * 250 * 0.72 * 4 / 3600)

    hours = {grid.members[1].name: 3.0, grid.members[2].name: 5.0}  # two of one program
    done = {name: Status("done", 250, 250, metrics={"speed/core_hours": value}) for name, value in hours.items()}
    rate = choose_rate(grid, {**waiting, **done}, Devices(), None, 0.4, None, 1)
    assert rate.core_hours(grid.members[1].spec) == pytest.approx(4.0)
    assert rate.core_hours(last) == pytest.approx(4.0 * ratio)
    assert "measured" in rate.words
    assert "TPU v4" in choose_rate(grid, {**waiting, **done}, Devices(), "v4", 0.4, None, 1).words  # stated: that


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"train.steps": 250, "loop.ckpt_steps": 100}, 2),  # 200, 250
        ({"train.steps": 250, "loop.ckpt_steps": 1000}, 1),
        ({"train.steps": 250, "loop.ckpt_steps": 50, "loop.ckpt_keep": 1, "loop.ckpt_keep_every": 100}, 3),  # 100, 200, 250
        ({"train.steps": 250, "loop.ckpt_steps": 50, "loop.ckpt_best": "val/accuracy"}, 3),
    ],
)
def test_checkpoints_that_stay(settings, count):
    assert checkpoints_kept(load_run("configs/quickstart.py", settings)) == count
