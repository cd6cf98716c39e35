"""--dry-run: the plan of a run, from its settings alone."""

import json
import math
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec
from trainer_runs import ROOT, command, run_here

from vit_attn.loop.dry_run import layout_lines, parameter_table
from vit_attn.spec.flops import flops_per_image
from vit_attn.spec.load import load_run
from vit_attn.store.paths import paths_of
from vit_attn.train.health import healthy
from vit_attn.train.saved import abstract_state
from vit_attn.train.state import State

RECIPE = "configs/vit_i1k.py:variant=L/16,h=relu"


def cells(printed):
    """{parameter: (shape, type, bytes, sharding)} of the printed table."""
    rows = [line.split("  ") for line in printed.splitlines() if "float32" in line]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    return {row[0]: tuple(row[1:]) for row in rows}


def test_a_recipe_whose_data_are_not_here(tmp_path):
    """L/16 at 224 for 64 devices, as a process of its own: nothing of it is there afterwards."""
    env = {**os.environ, "TFDS_DATA_DIR": str(tmp_path / "no such folder")}
    argv = ["--config", RECIPE, "--workdir", str(tmp_path / "run"), "--dry-run", "--devices", "64"]
    done = subprocess.run(
        [sys.executable, "-m", "vit_attn.main", *argv], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
    spec = load_run(RECIPE, {})
    shapes = paths_of(abstract_state(spec).params)
    table = {name: (str(x.shape), "float32", f"{4 * math.prod(x.shape):,}", "replicated") for name, x in shapes.items()}
    assert cells(done.stdout) == table
    total = sum(math.prod(x.shape) for x in shapes.values())
    assert total == pytest.approx(304.3e6, rel=0.005)  # as published
    for words in (
        f"{total:,} parameters in {len(shapes)} arrays",
        f"bytes per device: parameters {total * 4 / 2**20:,.1f} MiB, moments {total * 6 / 2**20:,.1f} MiB",  # bfloat16, float32
        "mesh: data 64 x fsdp 1 x seq 1 x model 1 = 64 device(s), which need not be here",
        f"{flops_per_image(spec.model) / 1e9:.0f} GFLOPs per image",
        f"{spec.train.steps:,} steps of 4,096 images, {spec.train.steps * 4096:,} images in all: 300 epochs of ",
        "10,000 steps of warm-up from 0, then a cosine from 0.001 to 0",
        "evaluator v2: classification, every 2,500 steps and at the end",
        "data: imagenet2012, split train[:99%]: not looked at",
    ):
        assert words in done.stdout


def test_here(tmp_path, capsys):
    """On the devices that are here; a pack; a run that is there and finished is planned as any other."""
    assert run_here(*command(tmp_path / "run", train__steps=3, train__peak_lr=0.004, train__floor=0.25)) == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    capsys.readouterr()
    file = tmp_path.with_suffix(".json")
    assert run_here("--run", tmp_path / "run", tmp_path / "run", "--dry-run", "--dry-run-json", file) == 0
    printed = capsys.readouterr().out
    assert "mesh: data 8 x fsdp 1 x seq 1 x model 1 = 8 device(s) (cpu)" in printed
    assert "attention: relu, L 4, blockwise" in printed
    assert "a cosine from 0.004 to 0.001" in printed
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    told, spec = json.loads(file.read_text()), load_run("configs/quickstart.py:h=relu,variant=mu/14", {})
    state = abstract_state(spec)
    bytes_of_it = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert told["state_bytes"] == told["memory"]["state"] == bytes_of_it
    assert told["parameters"] == sum(x.size for x in jax.tree.leaves(state.params))
    assert told["memory"]["temporary"] > 2 * 4 * (16 // 8) * 4 * 128  # a device's images, their tokens, an MLP's channels
    assert (told["devices"], told["platform"], told["device_bytes"]) == (8, "cpu", None)
    assert (told["steps"], told["batch_images"], told["flops_per_image"]) == (3, 16, flops_per_image(spec.model))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--dry-run-json", "x"], "--dry-run-json=x goes with --dry-run only"),
        (["--devices", "3"], "--devices=3 must be at least 1, and goes with --dry-run only"),
        (["--dry-run", "--devices", "0"], "--devices=0 must be at least 1"),
        (["--dry-run", "--devices", "3"], "config.train.batch_images=16 is not divisible by the 3 devices of mesh axis 'data'"),
        (["--dry-run", "--devices", "3", "--config.mesh.seq=2"], "does not make 3 devices"),
        (["--dry-run", "--config.model.attention.impl=pallas"], "its kernels are for TPUs"),
        (["--dry-run", "--config.init_from=no/such/run"], "config.init_from='no/such/run'"),
    ],
)
def test_what_could_not_be_trained(tmp_path, capsys, more, words):
    assert run_here(*command(tmp_path / "run"), *more) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_bytes_and_shardings_of_a_layout(capsys):
    """A tree of any shardings: kernels split over two axes, on 6 devices."""
    mesh = AbstractMesh((3, 2), ("fsdp", "model"), axis_types=(AxisType.Auto,) * 2)
    place = lambda shape, *axes: jax.ShapeDtypeStruct(shape, np.float32, sharding=NamedSharding(mesh, PartitionSpec(*axes)))
    params = {
        "kernel": place((3 * 2**18, 2), "fsdp", "model"),
        "bias": place((2**18,)),
        "wide": place((7, 2**18), None, "model"),
    }
    scalar = place(())
    state = State(params, {"mu": params["kernel"]}, scalar, jax.tree.map(lambda _: scalar, healthy()))
    lines = layout_lines(state, 5)
    assert lines[1].startswith("bytes per device: parameters 5.5 MiB, moments 1.0 MiB")  # 1 + 1 + 3.5
    assert lines[2] == "a pack of 5 members: 32.5 MiB per device"
    columns = {column.header: list(column.cells) for column in parameter_table(params).columns}
    assert columns["sharding"] == ["replicated", "(fsdp, model)", "(-, model)"]
    assert columns["parameter"] == ["bias", "kernel", "wide"]


def test_the_readmes_plan_for_64_devices():
    """What it says of where parameters lie, beside what the axes of L/16 make of 8 fsdp x 2 model devices."""
    (line,) = re.findall(r"^python -m (.* --dry-run .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    done = subprocess.run([sys.executable, "-m", *line.split()], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {name: cell[-1] for name, cell in cells(done.stdout).items()}
    block = "Transformer/encoderblock_23"
    assert found[f"{block}/MlpBlock_0/Dense_1/kernel"] == "(model, fsdp)"
    assert found[f"{block}/MultiHeadDotProductAttention_0/out/kernel"] == "(model, -, fsdp)"
    assert found[f"{block}/LayerNorm_0/scale"] == "replicated"
    assert "mesh: data 4 x fsdp 8 x seq 1 x model 2 = 64 device(s)" in done.stdout
    whole = 305_176_552 * 4 / 2**20
    (params,) = re.findall(r"parameters ([\d.]+) MiB", done.stdout)
    assert whole / 16 < float(params) < 1.1 * whole / 16  # but for vectors
