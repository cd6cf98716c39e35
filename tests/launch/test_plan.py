"""How a sweep is packed, what it is said to cost, and when somebody is asked first."""

import json
import os
import subprocess
import sys

import pytest
from sweep_runs import ROOT

from launch.devices import Devices, find_devices
from launch.grid import load_grid
from launch.packing import cut
from launch.plan import Wish, key_of, make_plan, what_fits
from vit_attn.spec.errors import UserError

MIB = 2**20
AUTO = ("--pack", "auto", "--config.model.variant=mu/14", "--config.eval.batch_images=496")  # for 8 devices
GPUS = Devices("gpu", "NVIDIA H100 80GB HBM3", tuple("01234567"))


@pytest.fixture(scope="module")
def grid():
    """softmax; relu and relu2 at 5 alphas each; at two patch sides: packs of 1, 5, 5, 1, 5."""
    return load_grid("configs/sweeps/quickstart_alpha.py", {})


def known(grid, slots, state):
    """What programs are said to have answered: a device of 1000 MiB, 100 for batches and activations."""
    memory = {"state": state * MIB, "batch": 10 * MIB, "temporary": 70 * MIB, "results": 10 * MIB}
    keys = (key_of(pack.members[0].spec, len(GPUS.ids) // slots, GPUS.kind) for pack in grid.packs)
    return {key: {"memory": memory, "device_bytes": 1000 * MIB} for key in keys}


def test_a_pack_is_as_large_as_the_memory(grid):
    """0.9 * 1000 - 100 MiB for states of 250: 3 members, so 5 go as 2 and 3; one device group, so that nothing is spread."""
    plan = make_plan(grid, Wish(devices_per_pack=8), GPUS, known(grid, 1, 250))
    assert (plan.slots, plan.fixed) == (1, True)
    assert plan.sizes == {"relu_p7": 3, "relu2_p7": 3, "relu_p4": 3}
    packs = {pack.name: len(pack.members) for pack in cut(grid, plan.sizes).packs}
    assert (packs["relu_p7_1of2"], packs["relu_p7_2of2"], packs["softmax_p7"]) == (2, 3, 1)
    assert [member.name for member in cut(grid, plan.sizes).members] == [member.name for member in grid.members]
    assert "relu_p7: up to 3 members fit (state 250.0 MiB each, batches and activations 100.0 of 1,000 MiB)" in plan.why


def test_a_member_that_does_not_fit(grid):
    with pytest.raises(UserError, match=r"not one member of relu_p7 fits: state 801\.0 MiB each, "):
        make_plan(grid, Wish(devices_per_pack=8), GPUS, known(grid, 1, 801))
    assert make_plan(grid, Wish(devices_per_pack=8), GPUS, known(grid, 1, 800)).sizes["relu_p7"] == 1


def test_no_device_group_is_left_idle():
    """One group of 5 members that would fit at once, 8 devices: 128 images keep 4 of them busy, so 2 processes, 3 and 2."""
    grid = load_grid("configs/sweeps/quickstart_alpha.py", {})
    one = cut(grid, {}, keep={member.name for member in grid.packs[1].members})
    plan = make_plan(one, Wish(), GPUS, known(one, 2, 1))
    assert plan.slots == 2
    assert plan.sizes == {"relu_p7": 3}
    assert plan.why[0] == (
        "8 NVIDIA H100 80GB HBM3 devices in 2 groups of 4, a process each: with more, a device would get fewer than 32 of 128 "
        "images a step"
    )
    assert plan.why[1].endswith("; 3, so that 2 processes have work")


@pytest.mark.parametrize(
    ("wish", "devices", "slots", "sizes"),
    [
        (Wish(), Devices(), 1, {5, 1}),
        (Wish(max_parallel=3), Devices(), 3, {5, 1}),
        (Wish("all"), GPUS, 2, {5, 1}),
        (Wish(2, max_parallel=8), GPUS, 8, {2}),
        (Wish(7, devices_per_pack=1), GPUS, 8, {7}),
        (Wish("all", max_parallel=5), None, 5, {5, 1}),  # elsewhere
    ],
)
def test_what_is_said_is_done(grid, wish, devices, slots, sizes):
    plan = make_plan(grid, wish, devices, {})
    assert plan.slots == slots
    assert set(plan.sizes.values()) == sizes


@pytest.mark.parametrize(
    ("wish", "devices", "told"),
    [
        (Wish(0), Devices(), "--pack=0 must be at least 1"),
        (Wish("auto"), None, "--pack=auto measures the devices of this machine, and packs train elsewhere"),
        (Wish(devices_per_pack=2), Devices(), "--devices-per-pack=2: no accelerator is seen here"),
        (Wish(devices_per_pack=2), None, "--devices-per-pack=2 shares out the devices of this machine (--backend local)"),
        (
            Wish(devices_per_pack=3),
            GPUS,
            "--devices-per-pack=3 leaves devices idle that would be enough: of 8, take 1, 2, 4, 8",
        ),
        (Wish(devices_per_pack=2, max_parallel=4), GPUS, "say the same: leave one out"),
        (Wish(max_parallel=9), GPUS, "--max-parallel=9: a process takes one of the 8 NVIDIA H100"),
    ],
)
def test_what_cannot_be(grid, wish, devices, told):
    with pytest.raises(UserError) as error:
        make_plan(grid, wish, devices, {})
    assert told in str(error.value)


def test_less_memory_fits_less():
    asked = {"memory": {"state": 30, "batch": 5, "temporary": 20, "results": 10}, "device_bytes": 200}
    assert what_fits(asked, 1)[0] == 4  # 180 - 40 = 140
    assert what_fits({**asked, "device_bytes": 50}, 1)[0] == 0
    with pytest.raises(UserError, match="does not say what a program needs"):
        what_fits({**asked, "memory": None}, 1)


def test_gpus_are_found_and_shared_out(tmp_path):
    """By a program on the PATH that prints what NVIDIA's does."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\nfor i in 0 1 2 3 4; do echo "$i, NVIDIA A100-SXM4-40GB"; done\n')
    tool.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    before = os.environ["PATH"]
    os.environ["PATH"] = environ["PATH"]
    try:
        assert find_devices(environ) == Devices("gpu", "NVIDIA A100-SXM4-40GB", tuple("01234"))
        some = find_devices({**environ, "CUDA_VISIBLE_DEVICES": "4,2"})
        assert find_devices({**environ, "JAX_PLATFORMS": "cpu"}) == Devices()
        assert find_devices({**environ, "CUDA_VISIBLE_DEVICES": ""}) == Devices()
    finally:
        os.environ["PATH"] = before
    assert some.ids == ("4", "2")
    assert [some.environment(ids) for ids in some.groups(2)] == [
        {"CUDA_VISIBLE_DEVICES": "4"},
        {"CUDA_VISIBLE_DEVICES": "2"},
    ]
    assert [GPUS.environment(ids) for ids in GPUS.groups(1)] == [{}]
    chips = Devices("tpu", "TPU v4", tuple("0123"))
    assert [chips.environment(ids)["TPU_VISIBLE_CHIPS"] for ids in chips.groups(2)] == ["0,1", "2,3"]
    assert chips.environment(("2", "3"))["TPU_CHIPS_PER_PROCESS_BOUNDS"] == "1,2,1"


def test_workers_get_their_gpus(sweeps):
    """Through the real launcher: what two workers at a time have in their environment."""
    tool = sweeps.folder / "nvidia-smi"
    tool.write_text('#!/bin/sh\nfor i in 0 1 2 3; do echo "$i, NVIDIA A100-SXM4-40GB"; done\n')
    tool.chmod(0o755)
    seen = {name: sweeps.folder / name for name in ("0,1", "2,3")}
    sweeps.environment = {
        "PATH": f"{sweeps.folder}:{os.environ['PATH']}",
        "JAX_PLATFORMS": "",
        "STAND_IN_ENVIRONMENT": str(sweeps.folder),
    }
    code, out, err = sweeps.run("--devices-per-pack", "2", "--pack", "all")
    assert (code, err) == (0, "")
    assert "plan: 4 NVIDIA A100-SXM4-40GB devices in 2 groups of 2, a process each: --devices-per-pack" in out
    assert all(file.exists() for file in seen.values())


def test_the_table_of_a_dry_run(sweeps):
    code, out, _ = sweeps.run(
        "--dry-run", "--device", "v5e", "--pack", "1", "--config.train.steps=1000000", "--ask-above", "0.01"
    )
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.split()}
    assert rows["relu_p7_2of2"][1:3] == ["161,322", "1,000,000"]
    hours = 15_652_608 * 128 * 1e6 / (197e12 * 0.4) / 3600
    assert float(rows["relu_alpha1.0_p7_seed0"][1]) == pytest.approx(hours, rel=0.01)
    assert (
        f"core-hours: {5 * hours:.3g} in all, {5 * hours:.3g} still to be spent; matrix products at --mfu 0.4 of the 197 "
        in out
    )
    assert "5 members in 5 packs, 1 at a time" in out
    assert "more than --ask-above 0.01 core-hours: a start asks first, or wants --yes" in out
    assert not sweeps.workdir.exists()


def test_much_is_not_spent_unasked(sweeps):
    flags = ("--step-ms", "100", "--ask-above", "0.002")  # 5 members * 16 steps * 0.1 s = 0.0022 core-hours
    code, _, err = sweeps.run(*flags)
    assert (code, len(err.splitlines())) == (2, 1)
    assert (
        "this sweep takes about 0.00222 core-hours, more than --ask-above 0.002 (100 ms a step of softmax_p7_seed0 on 1" in err
    )
    assert "say --yes" in err
    assert not sweeps.workdir.exists()
    assert sweeps.run(*flags, "--yes")[0] == 0
    assert sweeps.run(*flags)[0] == 0  # nothing is left to be spent


def test_a_million_members_are_counted_before_they_are_made(sweeps):
    config = sweeps.config(
        "def get_sweep(arg=''):\n"
        "    return {'base': 'configs/quickstart.py', 'points': [{'h': 'relu', 'alpha': i / 1e6} for i in range(10**6)]}\n"
    )
    for flags in ((), ("--dry-run",)):
        code, _, err = sweeps.run(*flags, config=config)
        assert (code, len(err.splitlines())) == (2, 1)
        assert (
            "this sweep has 1,000,000 members, more than 10,000: make the grid smaller, or say --yes to do it all the same"
            in err
        )
    assert not sweeps.workdir.exists()


def test_on_a_terminal_it_asks():
    """The question, a no, and a yes."""
    import pty

    program = "from launch.consent import confirm; confirm('this sweep takes long', False); print('it goes on')"
    for answer, told in ((b"n\n", "not confirmed, nothing was started"), (b"y\n", "it goes on")):
        ours, theirs = pty.openpty()
        with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs) as asked:
            os.close(theirs)
            os.write(ours, answer)
            said = b""
            while True:
                try:
                    said += os.read(ours, 4096)
                except OSError:
                    break
        os.close(ours)
        assert b"this sweep takes long. Go on? [y/N]" in said
        assert told in said.decode()
        assert (asked.returncode == 0) == (answer == b"y\n")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--pack", "many"], "--pack=many must be a number of members, all or auto"),
        (["--mfu", "40"], "--mfu=40 must be above 0 and at most 1"),
        (["--step-ms", "0"], "--step-ms=0 must be above 0"),
        (["--device", "h1000"], "--device: the device 'h1000' is unknown; did you mean 'h100'?"),
    ],
)
def test_bad_flags(sweeps, flags, told):
    code, _, err = sweeps.run(*flags)
    assert (code, len(err.splitlines())) == (2, 1)
    assert told in err
    assert not sweeps.workdir.exists()


def test_a_program_is_asked_in_a_process_of_its_own(sweeps):
    """--pack auto on CPU: what the compiled update of the real trainer needs, against the host's memory. A second start asks
    nothing."""
    points = [{"h": "relu", "alpha": alpha} for alpha in (0.0, 1.0)]
    config = sweeps.config(f"def get_sweep(arg=''):\n    return {{'base': 'configs/quickstart.py', 'points': {points}}}\n")
    code, out, err = sweeps.run(*AUTO, config=config)
    assert (code, err) == (0, "")
    assert "plan: compiling relu_p14 to see how many members fit (1 of 1) ..." in out
    (asked,) = json.loads((sweeps.workdir / "plan.json").read_text()).values()
    assert asked["memory"]["temporary"] > asked["memory"]["state"] == asked["state_bytes"] > 0
    code, out, _ = sweeps.run("--dry-run", *AUTO, config=config)
    assert code == 0
    assert "plan: compiling" not in out
    (line,) = [line for line in out.splitlines() if line.startswith("relu_p14: up to ")]
    assert int(line.split()[3]) > 100  # of 0.3 MiB
