"""Every ImageNet recipe, in small, on data sets that TFDS has prepared under ImageNet's names; killed midway, and resumed."""

import signal

import pytest
from imagenet_sets import (
    i21k_classes,
    write_fewshot,
    write_imagenet21k,
    write_imagenet2012,
    write_imagenet2012_real,
    write_imagenet_v2,
)
from trainer_runs import assert_same_arrays, finish, kill_at, saved_arrays, without_speed

from vit_attn.store.run_dir import RunDir

RECIPES = ["vit_i1k", "vit_i21k", "vit_s16_i1k", "vit_s16_quant"]
IMAGES = 320


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    write_imagenet2012(folder, train=IMAGES)
    write_imagenet_v2(folder)
    write_imagenet2012_real(folder)
    write_imagenet21k(folder, size=IMAGES)
    for name in ("dtd", "oxford_iiit_pet"):
        write_fewshot(folder, name)
    return folder


def smoke(recipe, data_dir, workdir, *more):
    """A command of five steps of 64 images an epoch, of which there are two."""
    settings = {
        "train.epochs": 2.0,
        "train.epoch_images": IMAGES,
        "train.warmup_steps": 2,
        "eval.steps": 5,
        "loop.ckpt_steps": 3,
    }
    overrides = [f"--config.{key}={value}" for key, value in settings.items()]
    return ["--config", f"configs/smoke/{recipe}.py:data_dir={data_dir}", "--workdir", workdir, *overrides, *more]


def metrics(workdir):
    return without_speed(RunDir(workdir).metrics())


@pytest.fixture(scope="module")
def i1k(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit_i1k")
    finish(smoke("vit_i1k", data_dir, folder / "run"), folder / "log")
    return folder / "run"


def test_vit_i1k(i1k):
    last = metrics(i1k)[-1]
    assert last["step"] == 10
    assert last["val/images"] == 50
    for name in ("val", "train_seen", "minival", "v2", "real"):
        assert 0 <= last[f"{name}/accuracy"] <= last[f"{name}/top5"] <= 1
    assert "speed/core_hours" in RunDir(i1k).metrics()[-1]


@pytest.mark.parametrize(("recipe", "names"), [
    ("vit_i21k", ["val/loss", "test/accuracy", "i1k/accuracy", "i1k/classes", "fewshot/mean_10shot"]),
    ("vit_s16_i1k", ["val/top5", "real/accuracy"]),
    ("vit_s16_quant", ["val/accuracy"]),
])  # fmt: skip
def test_recipe(data_dir, tmp_path, recipe, names):
    printed = finish(smoke(recipe, data_dir, tmp_path / "run"), tmp_path / "log")
    last = metrics(tmp_path / "run")[-1]
    assert last["step"] == 10
    assert not {*names} - {*last}
    if recipe == "vit_i21k":
        assert last["i1k/classes"] == 999
        assert last["fewshot/sets"] == 2
        assert "caltech101" in printed  # missing, and said so
        assert len(i21k_classes()) == 21_843


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_is_bit_identical(i1k, data_dir, tmp_path, workers):
    """Whatever number of processes reads: none of its own before, `workers` after."""
    argv = smoke("vit_i1k", data_dir, tmp_path / "run", f"--config.data.workers={workers}")
    assert kill_at([*argv[:-1], "--config.data.workers=0"], tmp_path / "log1", "step  5/10", signal.SIGKILL) == -9
    status = RunDir(tmp_path / "run")
    assert status.status().seen_state() == "interrupted"
    printed = finish(["--run", tmp_path / "run"] if not workers else argv, tmp_path / "log2")
    assert "resumes at step 3" in printed
    assert_same_arrays(saved_arrays(tmp_path / "run"), saved_arrays(i1k))
    assert metrics(tmp_path / "run") == metrics(i1k)


def test_a_set_of_tfrecords_is_as_exact(tmp_path):
    write_imagenet2012(tmp_path / "sets", train=IMAGES, file_format="tfrecord")
    without = [f"--config.evals.{name}=none" for name in ("v2", "real")]
    whole, parts = (smoke("vit_i1k", tmp_path / "sets", tmp_path / name, *without) for name in ("whole", "parts"))
    printed = finish(whole, tmp_path / "log")
    assert "prepared as tfrecord" in printed
    assert "array_record is better" in printed
    assert kill_at(parts, tmp_path / "log1", "step  7/10", signal.SIGKILL) == -9
    assert "resumes at step 6" in finish(parts, tmp_path / "log2")
    assert_same_arrays(saved_arrays(tmp_path / "parts"), saved_arrays(tmp_path / "whole"))
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
