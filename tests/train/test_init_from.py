"""Fresh runs from other runs' weights: bit for bit where nothing differs, resampled, fresh, or refused by name."""

import json
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from trainer_runs import command, run_here, saved_arrays, saved_steps

from vit_attn.interop.new_run import save_run
from vit_attn.interop.run import load_run
from vit_attn.models.posemb import resampled
from vit_attn.spec.errors import UserError
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import knobs_of
from vit_attn.store.paths import paths_of
from vit_attn.store.run_dir import RunDir
from vit_attn.train.init_from import check_init_from, start_params
from vit_attn.train.saved import abstract_state
from vit_attn.train.state import init_state


def spec_of(init_from=None, image_size=42, num_classes=7, **model):
    model = {"variant": "mu/14", "image_size": image_size, "num_classes": num_classes, **model}
    return resolve({"model": model, "init_from": None if init_from is None else str(init_from)})


def noise_of(spec, seed=0):
    """{path: noise} for all parameters."""
    rng = np.random.default_rng(seed)
    return {path: rng.normal(size=x.shape).astype(x.dtype) for path, x in paths_of(abstract_state(spec).params).items()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """(directory of a run of 3 x 3 patches and 7 classes, its parameters)."""
    folder = tmp_path_factory.mktemp("source") / "run"
    save_run(RunDir(folder), spec_of(), noise_of(spec_of()), "noise")
    return folder, noise_of(spec_of())


def fresh_params(spec):
    return jax.jit(lambda: init_state(spec, knobs_of(spec)).params)()


def test_all_is_taken_bit_for_bit(source, monkeypatch):
    folder, values = source
    monkeypatch.chdir(folder.parent)
    for place in (folder, folder / "checkpoints" / "0", "run", "run/checkpoints/0"):
        params, line = start_params(spec_of(place), fresh_params(spec_of()))
        for path, x in paths_of(params).items():
            np.testing.assert_array_equal(x, values[path], err_msg=path)
        assert line == f"starts from {folder}/checkpoints/0: {len(values)} arrays taken"


def test_another_patch_count_and_number_of_classes(source):
    folder, values = source
    spec = spec_of(folder, image_size=70, num_classes=5)
    fresh = fresh_params(spec)
    params, line = start_params(spec, fresh)
    for path, x in paths_of(params).items():
        if path == "pos_embedding":
            np.testing.assert_array_equal(x, resampled(jnp.asarray(values[path]), 25))
        elif path.startswith("head/"):
            np.testing.assert_array_equal(x, paths_of(fresh)[path])
        else:
            np.testing.assert_array_equal(x, values[path], err_msg=path)
    assert "pos_embedding resampled from [1, 9, " in line
    assert "fresh, for another number of classes: head/" in line


@pytest.mark.parametrize(("old", "new"), [(3, 5), (5, 3), (7, 2), (2, 7), (4, 4)])
def test_resampling_is_pillows(old, new):
    """Pillow's bilinear filter is antialiased as well."""
    grid = np.random.default_rng(3).normal(size=(old, old, 3)).astype(np.float32)
    wanted = [np.asarray(PIL.Image.fromarray(grid[..., i]).resize((new, new), PIL.Image.Resampling.BILINEAR)) for i in range(3)]
    found = resampled(jnp.asarray(grid.reshape(1, old * old, 3)), new * new)
    np.testing.assert_allclose(found.reshape(new, new, 3), np.stack(wanted, axis=-1), rtol=0, atol=1e-5)


def test_straight_into_shards(source):
    folder, values = source
    spec = spec_of(folder, image_size=56)
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)

    def place(x):
        axes = [None] * x.ndim
        if x.shape and x.shape[-1] % 2 == 0:
            axes[-1] = "fsdp"
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))

    fresh = jax.tree.map(place, fresh_params(spec))
    params, _ = start_params(spec, fresh)
    for path, x in paths_of(params).items():
        assert x.sharding.is_equivalent_to(paths_of(fresh)[path].sharding, x.ndim), path
        if path != "pos_embedding":
            np.testing.assert_array_equal(x, values[path], err_msg=path)
    alone, _ = start_params(spec, fresh_params(spec))
    np.testing.assert_allclose(params["pos_embedding"], alone["pos_embedding"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "lines"),
    [
        ({"variant": "mu/7"}, ["other shape: embedding/kernel is float32[14, 14, 3, "]),
        ({"posemb": "sincos2d"}, ["extra: pos_embedding float32[1, 9, "]),
        ({"pool": "tok"}, ["missing: cls float32[1, 1, "]),
        ({"rep_size": True, "num_classes": 5}, ["missing: pre_logits/bias float32[", "missing: pre_logits/kernel float32["]),
    ],
)
def test_what_does_not_fit_is_listed(source, model, lines):
    with pytest.raises(UserError, match="do not fit this model") as caught:
        check_init_from(spec_of(source[0], **model))
    assert len(caught.value.details) == len(lines)
    for found, wanted in zip(caught.value.details, lines, strict=True):
        assert found.startswith(wanted)


def test_what_is_no_run(source, tmp_path):
    (tmp_path / "weights.npz").touch()
    (tmp_path / "empty").mkdir()
    RunDir(tmp_path / "new").create(spec_of())
    shutil.copytree(source[0], tmp_path / "grid" / "member")
    shutil.copytree(source[0], tmp_path / "bad")
    (tmp_path / "bad" / "checkpoints" / "0" / "info" / "metadata").write_text("{")
    for name, words in {
        "nothing": "does not exist",
        "weights.npz": "vit_attn.interop import --from",
        "empty": "neither a run's directory",
        "grid": "directory of runs: take one of member in it",
        "new": "has no checkpoint yet",
        "bad": "no checkpoint that can be read: checkpoint",
    }.items():
        with pytest.raises(UserError, match=words) as caught:
            check_init_from(spec_of(tmp_path / name))
        assert f"config.init_from='{tmp_path / name}'" in str(caught.value)
    with pytest.raises(UserError, match="which --overwrite deletes"):
        check_init_from(spec_of(source[0]), [source[0]])


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pretrained") / "run"
    assert run_here(*command(workdir, train__steps=3, eval__steps=0)) == 0
    return workdir


class TestTrainer:
    """A run that starts from another one."""

    def still(self, workdir, init_from, **more):
        """A run whose steps change nothing."""
        still = {
            "train__peak_lr": 0.0,
            "train__weight_decay": 0.0,
            "train__warmup_steps": 0,
            "train__steps": 4,
            "eval__steps": 0,
        }
        return command(workdir, init_from=init_from, **{**still, "loop__ckpt_steps": 2, **more})

    def test_starts_from_it_and_reads_it_once(self, pretrained, tmp_path, capfd):
        assert run_here(*self.still(tmp_path / "run", pretrained)) == 0
        assert f"{tmp_path / 'run'}: starts from {pretrained}/checkpoints/3: " in capfd.readouterr().out
        old, new = saved_arrays(pretrained), saved_arrays(tmp_path / "run", 2)
        params = [name for name in old if name.startswith("/params")]
        assert len(params) > 10
        for name in params:
            np.testing.assert_array_equal(new[name], old[name], err_msg=name)
        assert new["/step"] == 2
        images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 3), dtype=np.uint8)
        np.testing.assert_array_equal(load_run(tmp_path / "run").predict(images), load_run(pretrained).predict(images))
        shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
        (tmp_path / "run" / "status.json").unlink()
        gone = pretrained.rename(pretrained.with_name("gone"))  # on resume it is not needed
        assert run_here(*self.still(tmp_path / "run", pretrained)) == 0
        gone.rename(pretrained)
        assert saved_steps(tmp_path / "run") == [2, 4]

    def test_moments_and_step_are_fresh(self, pretrained, tmp_path):
        assert run_here(*self.still(tmp_path / "run", pretrained, train__steps=1)) == 0
        assert run_here(*self.still(tmp_path / "fresh", "none", train__steps=1)) == 0
        new, fresh = saved_arrays(tmp_path / "run"), saved_arrays(tmp_path / "fresh")
        assert new.keys() == fresh.keys()
        assert new["/step"] == 1
        (count,) = [name for name in new if name.endswith("count")]
        assert new[count] == fresh[count] == 1

    def test_nothing_is_created_where_it_cannot_be(self, pretrained, tmp_path, capfd):
        assert run_here(*self.still(tmp_path / "run", tmp_path / "nothing")) == 2
        assert run_here(*self.still(tmp_path / "run", pretrained, model__variant="mu/7")) == 2
        error = capfd.readouterr().err
        assert "does not exist" in error
        assert "\n  other shape: embedding/kernel is" in error
        assert not (tmp_path / "run").exists()
        assert run_here(*self.still(pretrained, pretrained), "--overwrite") == 2
        assert "which --overwrite deletes" in capfd.readouterr().err
        assert saved_steps(pretrained) == [3]

    def test_each_member_of_a_pack(self, pretrained, tmp_path):
        spec = resolve(json.loads((pretrained / "config.json").read_text()))
        spec = replace(spec, init_from=str(pretrained), train=replace(spec.train, steps=3, peak_lr=0.0, weight_decay=0.0))
        for seed in (1, 2):
            RunDir(tmp_path / str(seed)).create(replace(spec, seed=seed))
        assert run_here("--run", tmp_path / "1", tmp_path / "2") == 0
        old = saved_arrays(pretrained)
        for seed in ("1", "2"):
            new = saved_arrays(tmp_path / seed)
            for name in (name for name in old if name.startswith("/params")):
                np.testing.assert_array_equal(new[name], old[name], err_msg=name)
