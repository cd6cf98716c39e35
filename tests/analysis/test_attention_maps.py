"""Heat maps of attention against weights written out in numpy, and the program's files and errors."""

import csv
import io
import math
import subprocess
import sys
from dataclasses import asdict
from functools import cache

import attention_oracle as oracle
import jax
import numpy as np
import pytest
from PIL import Image

from vit_attn.analysis.attention_maps import AttentionMaps, main
from vit_attn.analysis.attention_maps_figure import draw, picture
from vit_attn.data.sources.open import open_source
from vit_attn.spec.errors import exit_code_of
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import LoopSpec, knobs_of
from vit_attn.store.checkpoint import Checkpoints
from vit_attn.store.run_dir import RunDir
from vit_attn.train.state import init_state

SIDE, DEPTH, HEADS, WIDTH = 4, 5, 2, 14  # patches of 7 pixels


@cache
def spec_of(pool):
    model = {"variant": "mu/7", "image_size": 28, "num_classes": 10, "depth": DEPTH, "heads": HEADS, "width": WIDTH}
    attention = {"h": "relu", "alpha": 0.8, "qk_norm": "none"}
    return asdict(resolve({"model": {**model, "mlp_dim": 11, "pool": pool, "attention": attention}}))


def noisy_state(pool, seed):
    spec = resolve(spec_of(pool))
    state = jax.jit(lambda: init_state(spec, knobs_of(spec)))()
    rng = np.random.default_rng(seed)
    return state._replace(params=jax.tree.map(lambda x: np.array(x + 0.3 * rng.normal(size=x.shape), np.float32), state.params))


@pytest.fixture(scope="module", params=["gap", "tok"])
def run(request, tmp_path_factory):
    """The directory of a run with the checkpoints 3 and 7; (its RunDir, pool, parameters of step 7)."""
    run_dir = RunDir(tmp_path_factory.mktemp(request.param) / "some_run")
    spec = resolve(spec_of(request.param))
    run_dir.create(spec)
    checkpoints = Checkpoints(run_dir, LoopSpec(ckpt_keep=2))
    for step in (3, 7):
        checkpoints.save(step, noisy_state(request.param, step), {"config": asdict(spec), "step": step})
    checkpoints.wait()
    checkpoints.close()
    return run_dir, request.param, noisy_state(request.param, 7).params


def first_layer(pool, params, images):
    """Weights times L of the first layer, [N, H, L, L]."""
    params = oracle.float64(jax.device_get(params))
    spec = resolve(spec_of(pool))
    source = open_source(spec.data.split("validation"), 10)
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(source[i]["image"])).convert("RGB"), float) for i in range(images)])
    patches = (pixels / 127.5 - 1).reshape(images, SIDE, 7, SIDE, 7, 3).swapaxes(2, 3).reshape(images, SIDE**2, -1)
    x = patches @ params["embedding"]["kernel"].reshape(-1, WIDTH) + params["embedding"]["bias"] + params["pos_embedding"]
    if pool == "tok":
        x = np.concatenate([np.repeat(params["cls"], images, axis=0), x], axis=1)
    block = params["Transformer"]["encoderblock_0"]
    y, own = oracle.layer_norm(x, (-1,), block["LayerNorm_0"]), block["MultiHeadDotProductAttention_0"]
    q, k = (np.einsum("bld,dhe->blhe", y, own[name]["kernel"]) + own[name]["bias"] for name in ("query", "key"))
    z = np.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(WIDTH / HEADS)
    return oracle.weights("relu", z, alpha=0.8) * x.shape[1]


def program(*argv):
    return exit_code_of(lambda: main([str(word) for word in argv]))


def rows_of(folder):
    with open(folder / "attention_maps.csv", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("queries", ["all", "one"])
def test_maps_are_the_weights_that_tokens_receive(run, queries, tmp_path, capsys):
    run_dir, pool, params = run
    assert program(run_dir.path, "--images", 3, "--layers", "4,0", "--queries", queries, "--out", tmp_path) == 0
    assert "3 images, layers 4,0" in capsys.readouterr().out
    rows, cls = rows_of(tmp_path), int(pool == "tok")
    length = SIDE**2 + cls
    assert len(rows) == 3 * 2 * HEADS * length
    assert {row["layer"] for row in rows} == {"0", "4"}
    weights = first_layer(pool, params, 3)
    centre = 0 if cls else 2 * SIDE + 2
    want = weights.mean(axis=2) if queries == "all" else weights[:, :, centre]
    got = np.array([float(row["weight_times_L"]) for row in rows if row["layer"] == "0"]).reshape(3, HEADS, length)
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-5)
    places = [(row["token"], row["row"], row["column"]) for row in rows[:length]]
    patches = [(str(token + cls), str(token // SIDE), str(token % SIDE)) for token in range(SIDE**2)]
    assert places == [*([("0", "", "")] if cls else []), *patches]
    with Image.open(tmp_path / "attention_maps.png") as image:
        assert image.width > 700
        assert len(image.convert("RGB").getcolors(2**24)) > 100


def test_by_default_two_images_of_three_layers_in_the_runs_directory(run):
    run_dir, _, _ = run
    assert program(run_dir.path) == 0
    rows = rows_of(run_dir.path / "attention_maps")
    assert {row["image"] for row in rows} == {"0", "1"}
    assert {row["layer"] for row in rows} == {"0", "2", "4"}


def some_maps(query=None, low=0.0):
    model = resolve(spec_of("gap")).model
    rng = np.random.default_rng(2)
    received = rng.uniform(low, 3, (1, 2, HEADS, SIDE**2))
    return AttentionMaps(model, [1, 3], query, rng.integers(0, 256, (1, 28, 28, 3), dtype=np.uint8), received)


def test_a_map_lies_over_the_image_the_right_way_round():
    maps = some_maps(query=6)
    figure = draw(maps, "some run")
    axes = {(axis.get_title(), axis.get_ylabel()): axis for axis in figure.axes}
    assert ("image", "image 0\nlayer 1") in axes
    over = axes["head 1", ""].images[1]
    np.testing.assert_array_equal(over.get_array(), maps.received[0, 0, 1].reshape(SIDE, SIDE))
    assert over.get_extent() == [0, 28, 28, 0]
    assert over.get_clim() == (0, maps.received[0, 0].max())  # one scale for the heads of a row
    (frame,) = axes["head 1", ""].patches
    assert frame.get_xy() == (2 * 7, 1 * 7)  # token 6 is row 1, column 2
    assert "from the patch in the frame" in figure.get_suptitle()


def test_negative_weights_get_colours_around_zero():
    maps = some_maps(low=-5.0)
    over = draw(maps, "some run").axes[1].images[1]
    assert over.get_clim() == (-abs(maps.received[0, 0]).max(), abs(maps.received[0, 0]).max())
    assert over.get_cmap().name == "PuOr"
    assert picture(maps, "some run").startswith(b"\x89PNG")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(run, tmp_path, capsys):
    run_dir, pool, _ = run
    copy = RunDir(tmp_path / "copy")
    subprocess.run(["cp", "-r", run_dir.path, copy.path], check=True)
    for file in (copy.checkpoints / "7" / "state").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[:-500])
    before = sorted(copy.checkpoints.iterdir())
    assert program(copy.path, "--layers", 0, "--images", 1, "--out", tmp_path / "maps") == 0
    assert "refused: checkpoint" in capsys.readouterr().err
    want = first_layer(pool, noisy_state(pool, 3).params, 1).mean(axis=2)
    got = [float(row["weight_times_L"]) for row in rows_of(tmp_path / "maps")]
    np.testing.assert_allclose(got, want.ravel(), rtol=2e-4, atol=1e-5)
    assert sorted(copy.checkpoints.iterdir()) == before


def one_error(capsys, *argv):
    assert program(*argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    return captured.err


def test_each_mistake_is_one_line(run, tmp_path, capsys):
    run_dir = run[0].path
    missing = "is not the directory of a run: it has no config.json"
    assert missing in one_error(capsys, tmp_path)
    assert missing in one_error(capsys, tmp_path / "nowhere")
    assert "'5' is not a layer of this run: they are 0 to 4" in one_error(capsys, run_dir, "--layers", "0,5")
    assert "'-1' is not a layer" in one_error(capsys, run_dir, "--layers=-1")
    assert "'0' is not a whole number from 1 to 64" in one_error(capsys, run_dir, "--images", 0)
    assert "(choices: all, one)" in one_error(capsys, run_dir, "--queries", "some")
    assert "unrecognized arguments: --head" in one_error(capsys, run_dir, "--head", "1")
    assert "RUN_DIR" in one_error(capsys)
    (tmp_path / "file").write_text("")
    assert "--out=" in one_error(capsys, run_dir, "--images", 1, "--layers", 0, "--out", tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_without_a_checkpoint_is_one_line(tmp_path, capsys):
    run_dir = RunDir(tmp_path / "new")
    run_dir.create(resolve(spec_of("gap")))
    assert "has no checkpoint yet" in one_error(capsys, run_dir.path)
    assert [path.name for path in run_dir.path.iterdir()] == ["config.json"]
    run_dir.checkpoints.mkdir()
    assert "has no checkpoint that can be read yet" in one_error(capsys, run_dir.path)


def test_help_loads_no_heavy_library():
    code = """
import runpy, sys
sys.argv = ["x", "--help"]
try:
    runpy.run_module("vit_attn.analysis.attention_maps", run_name="__main__")
except SystemExit as end:
    assert end.code in (0, None), end.code
heavy = {"jax", "flax", "tensorflow", "orbax", "matplotlib", "tensorflow_datasets"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "RUN_DIR" in done.stdout
