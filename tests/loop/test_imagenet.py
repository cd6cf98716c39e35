"""Every ImageNet recipe, in small, on data sets that TFDS has prepared under ImageNet's names; killed midway, and resumed."""

import re
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
from trainer_runs import assert_close, assert_same_arrays, finish, kill_at, saved_arrays, together, without_speed

from vit_attn.store.run_dir import RunDir

IMAGES, BATCH = 80, 16
LATE, RESUMES = "step  7/10", re.compile("resumes at step [36]")  # the checkpoint of step 6 may not be complete by then


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
    """A command of five steps an epoch, of which there are two."""
    settings = {
        "train.epochs": 2.0,
        "train.epoch_images": IMAGES,
        "train.batch_images": BATCH,
        "train.warmup_steps": 2,
        "eval.steps": 5,
        "loop.ckpt_steps": 3,
    }
    overrides = [f"--config.{key}={value}" for key, value in settings.items()]
    return ["--config", f"configs/smoke/{recipe}.py:data_dir={data_dir}", "--workdir", workdir, *overrides, *more]


def metrics(workdir):
    return without_speed(RunDir(workdir).metrics())


NAMES = {
    "vit_i1k": [f"{name}/{what}" for name in ("val", "train_seen", "minival", "v2", "real") for what in ("accuracy", "top5")],
    "vit_i21k": ["val/loss", "test/accuracy", "i1k/accuracy", "i1k/classes", "fewshot/mean_10shot"],
    "vit_s16_i1k": ["val/top5", "real/accuracy"],
    "vit_s16_quant": ["val/accuracy", "attention/block_kurtosis/mean_over_layers"],
}


@pytest.fixture(scope="module", params=NAMES)
def whole(data_dir, tmp_path_factory, request):
    """(recipe, directory, what it printed) of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder / "run", finish(smoke(request.param, data_dir, folder / "run"), folder / "log")


def test_recipe(whole):
    recipe, workdir, printed = whole
    last = RunDir(workdir).metrics()[-1]
    assert last["step"] == 10
    assert not {*NAMES[recipe], "speed/core_hours", "data/wait", "memory/resident_mib"} - {*last}
    if recipe == "vit_i1k":
        assert last["val/images"] == 50
    if recipe == "vit_i21k":
        assert (last["i1k/classes"], last["fewshot/sets"]) == (999, 2)
        assert "caltech101" in printed  # missing, and said so
        assert len(i21k_classes()) == 21_843


def test_killed_and_resumed_is_bit_identical(whole, data_dir, tmp_path):
    """Read by threads before, and by two processes of its own afterwards."""
    recipe, workdir, _ = whole
    argv = smoke(recipe, data_dir, tmp_path / "run")
    assert kill_at(argv, tmp_path / "log1", LATE, signal.SIGKILL) == -9
    assert RunDir(tmp_path / "run").status().seen_state() == "interrupted"
    assert RESUMES.search(finish([*argv, "--config.data.workers=2"], tmp_path / "log2"))
    assert_same_arrays(saved_arrays(tmp_path / "run"), saved_arrays(workdir))
    assert metrics(tmp_path / "run") == metrics(workdir)


def test_killed_and_resumed_in_two_processes(data_dir, tmp_path):
    """One process with eight devices, then two with four: the same examples, sums in another order."""
    more = ["--config.evals.stats.type=attention_stats", "--config.evals.few={'type': 'fewshot', 'sets': ['dtd']}"]
    argv = smoke("vit_s16_i1k", data_dir, tmp_path / "one", *more)
    codes, logs = together(argv, tmp_path / "log", 1, 8)
    assert codes == [0], logs
    argv = smoke("vit_s16_i1k", data_dir, tmp_path / "two", *more)
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    assert kill_at(argv, tmp_path / "log1", LATE, signal.SIGKILL, XLA_FLAGS=flags) == -9
    codes, logs = together([*argv, "--config.data.workers=1"], tmp_path / "log2", 2, 4)
    assert codes == [0, 0], logs
    assert RESUMES.search(logs[0])
    assert_close(saved_arrays(tmp_path / "two"), saved_arrays(tmp_path / "one"))
    for mine, wanted in zip(metrics(tmp_path / "two"), metrics(tmp_path / "one"), strict=True):
        assert mine.keys() == wanted.keys()
        for key in (key for key in mine if not key.startswith(("few/", "stats/outlier"))):  # what counts may turn over
            assert mine[key] == pytest.approx(wanted[key], rel=1e-3, abs=1e-5), key


@pytest.mark.parametrize("recipe", ["vit_i1k", "vit_i21k"])
def test_a_set_of_tfrecords_is_as_exact(tmp_path, recipe):
    if recipe == "vit_i1k":
        write_imagenet2012(tmp_path / "sets", train=IMAGES, file_format="tfrecord")
    else:
        write_imagenet21k(tmp_path / "sets", size=IMAGES, file_format="tfrecord")
    without = [f"--config.evals.{name}=none" for name in (("v2", "real") if recipe == "vit_i1k" else ("i1k", "fewshot"))]
    one, parts = (smoke(recipe, tmp_path / "sets", tmp_path / name, *without) for name in ("one", "parts"))
    printed = finish(one, tmp_path / "log")
    assert "prepared as tfrecord" in printed
    assert "array_record is better" in printed
    assert kill_at(parts, tmp_path / "log1", LATE, signal.SIGKILL) == -9
    printed = finish([*parts, "--config.data.workers=2"], tmp_path / "log2")
    assert RESUMES.search(printed)
    assert "2 threads read it instead of config.data.workers=2" in printed
    assert_same_arrays(saved_arrays(tmp_path / "parts"), saved_arrays(tmp_path / "one"))
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "one")
