"""Runs in a notebook: two lines from a directory to logits; one clear error where there is nothing to load."""

import shutil
from dataclasses import replace

import golden_inputs as inputs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interop_runs import PLAIN, flat_of, refused, same_arrays, spec_of

from vit_attn.interop.flat import flattened
from vit_attn.interop.new_run import save_run
from vit_attn.interop.run import load_run
from vit_attn.models.vit import ViT
from vit_attn.spec.errors import UserError
from vit_attn.spec.run import LoopSpec, knobs_of
from vit_attn.store.checkpoint import Checkpoints
from vit_attn.store.paths import nested
from vit_attn.store.run_dir import RunDir
from vit_attn.train.saved import saved_params
from vit_attn.train.state import init_state

RELU = {"h": "relu", "alpha": 0.8, "qk_norm": "head", "impl": "pallas"}  # which only a TPU has


def with_impl(model, impl):
    return replace(model, attention=replace(model.attention, impl=impl))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """With the checkpoints 3 and 7; all parameters are 3 or 7 times those of flat_of."""
    run_dir, spec = RunDir(tmp_path_factory.mktemp("sweep") / "relu_alpha0.8_p8_seed0"), spec_of(RELU)
    run_dir.create(spec)
    checkpoints = Checkpoints(run_dir, LoopSpec(ckpt_keep=2))
    dense = replace(spec, model=with_impl(spec.model, "dense"))
    state = jax.jit(lambda: init_state(dense, knobs_of(dense)))()
    for step in (3, 7):
        params = nested({name: np.float32(step) * value for name, value in flat_of(spec).items()})
        checkpoints.save(step, state._replace(params=params), {"step": step})
    checkpoints.wait()
    checkpoints.close()
    return run_dir


def test_two_lines(run_dir):
    run = load_run(str(run_dir.path.parent), member="relu_alpha0.8_p8_seed0")
    assert (run.step, run.spec) == (7, spec_of(RELU))
    flat = {name: np.float32(7) * value for name, value in flat_of(run.spec).items()}
    same_arrays(flattened(run.params), dict(sorted(flat.items())))
    images, _ = inputs.images_and_labels(2)
    model = with_impl(run.spec.model, "dense")
    pixels = images.astype(np.float32) / np.float32(127.5) - 1
    wanted, _ = jax.jit(ViT(model).apply)({"params": nested(flat)}, pixels, knobs_of(run.spec).attention)
    for taken in (images, pixels, pixels.astype(np.float64), list(images)):
        np.testing.assert_allclose(run.predict(taken), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert run.predict(images[:2]).shape == (2, inputs.CLASSES)
    logits, _ = run.model.apply({"params": run.params}, jnp.asarray(pixels), knobs_of(run.spec).attention)
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_a_step_of_choice(run_dir):
    assert load_run(run_dir.path, step=3).step == 3
    with pytest.raises(UserError, match="no checkpoint of step 4; it has 3, 7"):
        load_run(run_dir.path, step=4)


def test_the_newest_good_one(run_dir, tmp_path, capsys):
    """A broken checkpoint is named and left where it is; the one before it is taken."""
    shutil.copytree(run_dir.path, tmp_path / "run")
    files = [path for path in (tmp_path / "run" / "checkpoints" / "7" / "state").rglob("*") if path.is_file()]
    max(files, key=lambda path: path.stat().st_size).write_bytes(b"")
    assert load_run(tmp_path / "run").step == 3
    assert "refused: checkpoint" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoints" / "7").is_dir()


def test_nothing_to_load(run_dir, tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        load_run(tmp_path / "none")
    with pytest.raises(UserError, match=r"member is one of relu_alpha0\.8_p8_seed0"):
        load_run(run_dir.path.parent)
    with pytest.raises(UserError, match=r"member is one of relu_alpha0\.8_p8_seed0"):
        load_run(run_dir.path.parent, member="gelu")
    fresh = RunDir(tmp_path / "fresh")
    fresh.create(spec_of(PLAIN))
    with pytest.raises(UserError, match="no checkpoint yet"):
        load_run(fresh.path)
    fresh.checkpoints.mkdir()
    with pytest.raises(UserError, match="no checkpoint that can be read yet"):
        saved_params(fresh, spec_of(PLAIN))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((2, 25, 25, 3), np.uint8), r"\[any number, 24, 24, 3\]"),
        (np.zeros((24, 24, 3), np.uint8), r"images are \[24, 24, 3\]"),
        (np.zeros((2, 24, 24, 3), np.int64), "int64"),
    ],
)
def test_images_that_are_none(images, words, run_dir):
    with pytest.raises(ValueError, match=words):
        load_run(run_dir.path).predict(images)


def test_flags(tmp_path, capsys):
    """Mistakes in the command line, each in one line, before anything is read."""
    save_run(RunDir(tmp_path / "run"), spec_of(PLAIN), flat_of(spec_of(PLAIN)), "a test")
    cases = {
        "import, export": ["inport"],
        "import needs --from": ["import", "--workdir", tmp_path / "x"],
        "import goes without --to": ["import", "--to", "x.npz"],
        "export needs a RUN_DIR": ["export", "--to", "x.npz"],
        "export goes without --workdir": ["export", tmp_path / "run", "--to", "x.npz", "--workdir", "y"],
        "--config.seed": ["export", tmp_path / "run", "--to", tmp_path / "x.npz", "--config.seed=3"],
        ".npz, .safetensors or .stablehlo": ["export", tmp_path / "run", "--to", tmp_path / "x.bin"],
        "does not exist": ["export", tmp_path / "run", "--to", tmp_path / "y" / "x.npz"],
        "--images=uint8": ["export", tmp_path / "run", "--to", tmp_path / "x.npz", "--images", "uint8"],
        "'int8'": ["export", tmp_path / "run", "--to", tmp_path / "x.stablehlo", "--images", "int8"],
        "is a program": ["export", tmp_path / "run", "--to", tmp_path / "x.stablehlo", "--format", "timm"],
        "no checkpoint of step 9": ["export", tmp_path / "run", "--to", tmp_path / "x.npz", "--step", "9"],
        "is not the directory of a run": ["export", tmp_path, "--to", tmp_path / "x.npz"],
    }
    for words, argv in cases.items():
        assert words in refused(capsys, *argv)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
