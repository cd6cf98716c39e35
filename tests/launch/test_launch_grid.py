"""A sweep's config file -> members and packs; every mistake in it is named."""

import json
from pathlib import Path

import pytest

from configs.grid import product
from launch.grid import Grid, load_grid
from vit_attn.spec.errors import UserError
from vit_attn.spec.run import flat

ROOT = Path(__file__).resolve().parents[2]
BASE = str(ROOT / "configs/quickstart.py")


def grid_of(folder: Path, points: object, base: object = BASE, **overrides: object) -> Grid:
    path = folder / "sweep.py"
    path.write_text(f"def get_sweep(arg=''):\n    return {{'base': {base!r}, 'points': {points!r}}}\n")
    return load_grid(str(path), overrides)


def refusal(folder: Path, points: object, base: object = BASE, **overrides: object) -> str:
    with pytest.raises(UserError) as error:
        grid_of(folder, points, base, **overrides)
    return str(error.value)


def test_quickstart_grid_has_17_members_in_5_packs():
    grid = load_grid(str(ROOT / "configs/sweeps/quickstart_alpha.py"), {})
    assert [(pack.name, len(pack.members)) for pack in grid.packs] == [
        *(("softmax_p7", 1), ("relu_p7", 5), ("relu2_p7", 5), ("softmax_p4", 1), ("relu_p4", 5))
    ]
    names = [member.name for member in grid.members]
    assert names[:3] == ["softmax_p7_seed0", "relu_alpha0.0_p7_seed0", "relu_alpha0.5_p7_seed0"]
    assert names[-1] == "relu_alpha2.0_p4_seed0"
    assert len(set(names)) == 17


def test_members_hold_the_point_and_the_overrides(tmp_path):
    points = [{"h": "relu", "alpha": 0.5, "train.peak_lr": 0.01}, {"h": "gelu", "alpha": None, "train.peak_lr": 0.02}]
    first, second = grid_of(tmp_path, points, **{"train.steps": 77}).members
    assert (first.config, second.config) == (f"{BASE}:h=relu,alpha=0.5", f"{BASE}:h=gelu")
    assert first.overrides == {"train.peak_lr": 0.01, "train.steps": 77}
    settings = flat(first.spec)
    assert settings["model.attention.alpha"] == 0.5
    assert settings["train.peak_lr"] == 0.01
    assert (settings["train.steps"], flat(second.spec)["train.steps"]) == (77, 77)


def test_names_tell_what_varies_with_the_seed_last(tmp_path):
    axes = {"h": ["relu"], "alpha": [1], "train.peak_lr": [0.001, 0.002], "model.pool": ["gap", "tok"]}
    points = product(**axes, **{"seed": [3], "eval.steps": [5]})
    grid = grid_of(tmp_path, points)
    assert [member.name for member in grid.members] == [
        f"relu_alpha1.0_p7_peak_lr{lr}_pool-{pool}_seed3" for pool in ("gap", "tok") for lr in (0.001, 0.002)
    ]
    assert [(pack.name, len(pack.members)) for pack in grid.packs] == [("relu_p7_pool-gap", 2), ("relu_p7_pool-tok", 2)]


def test_names_are_harmless_and_never_ambiguous(tmp_path):
    points = product(**{"variant": ["mu/7", "Ti/7"], "data.seed": [1, 2], "eval.steps": [5, 6], "train.steps": [50, 60]})
    names = [member.name for member in grid_of(tmp_path, points).members]
    assert names[0] == "softmax_p7_variant-mu-7_data_seed1_eval_steps5_train_steps50_seed0"
    assert len(set(names)) == 16
    assert not any("/" in name for name in names)


def test_packs_hold_members_that_differ_in_knobs_only(tmp_path):
    points = product(**{"h": ["relu"], "alpha": [0, 1], "seed": [0, 1], "data.seed": [0, 1], "train.weight_decay": [0, 0.1]})
    grid = grid_of(tmp_path, points)
    assert [(pack.name, len(pack.members)) for pack in grid.packs] == [("relu_p7_data_seed0", 8), ("relu_p7_data_seed1", 8)]


def test_numpy_numbers_are_numbers(tmp_path):
    path = tmp_path / "sweep.py"
    path.write_text(
        "import numpy as np\ndef get_sweep(arg=''):\n"
        f"    return {{'base': {BASE!r}, 'points': [{{'train.peak_lr': x}} for x in np.linspace(0.1, 0.2, 2)]}}\n"
    )
    grid = load_grid(str(path), {})
    assert [member.spec.train.peak_lr for member in grid.members] == [0.1, 0.2]
    assert json.dumps([member.overrides for member in grid.members])


def test_base_is_found_from_another_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = load_grid(str(ROOT / "configs/sweeps/quickstart_alpha.py"), {})
    assert grid.members[0].config == f"{BASE}:h=softmax,patch=7,seed=0"


@pytest.mark.parametrize(
    ("points", "told"),
    [
        ([{"h": "relu", "gama": 1}], "point 0 {'h': 'relu', 'gama': 1}: config file"),
        ([{"h": "relu", "gama": 1}], "argument 'gama=1' is not one of h=softmax, alpha=None, gamma=None"),
        ([{"h": "relu"}, {"train.peek_lr": 1.0}], "point 1 {'train.peek_lr': 1.0}: config.train.peek_lr: the key 'peek_lr' is"),
        ([{"h": "rellu"}], "'rellu' is unknown; did you mean 'relu'? (choices: softmax, softmax1, clipped_softmax, relu"),
        ([{"h": "relu", "alpha": "nan"}], "config.model.attention.alpha=nan is not a finite number"),
        ([{"h": "softmax", "alpha": 1.0}], "config.model.attention.alpha=1.0 has no meaning for h='softmax'"),
        ([{"variant": "nano/5", "model.image_size": 28}], "config.model.patch=5 does not divide"),
        ([], "the grid is empty"),
        (product(h=["relu"], alpha=[]), "the grid is empty"),
        ([{"h": "relu", "alpha": 1}, {"h": "softmax"}, {"h": "relu", "alpha": 1.0}], "points 0, 2 have the same run"),
        ({"h": ["relu"]}, "points must be a list of dictionaries, not a dict"),
        ([["relu"]], "point 0 is a list, but a dictionary"),
        ([{"h": ["relu", "gelu"]}], "point 0: h=['relu', 'gelu'] must be a single number"),
        ([{1: "relu"}], "point 0: the axis 1 must be a string"),
    ],
)
def test_a_wrong_grid_is_refused(tmp_path, points, told):
    assert told in refusal(tmp_path, points)


def test_an_override_that_makes_members_equal_is_refused(tmp_path):
    points = [{"h": "relu", "alpha": 0}, {"h": "relu", "alpha": 1}]
    told = refusal(tmp_path, points, **{"model.attention.alpha": 2})
    assert "points 0, 1 have the same run, relu_alpha2.0_p7_seed0" in told


@pytest.mark.parametrize(
    ("base", "told"), [("configs/none.py", "'configs/none.py' does not exist"), (3, "base=3 must be the path of a config file")]
)
def test_a_wrong_base_is_refused(tmp_path, base, told):
    assert told in refusal(tmp_path, [{"h": "relu"}], base)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def get_config(arg=''):\n    return {}\n", "does not define get_sweep(arg)"),
        ("def get_sweep(arg=''):\n    return [1]\n", 'must return {"base": "configs/x.py", "points": [...]}, not a list'),
        ("def get_sweep(arg=''):\n    return {'base': 'x.py'}\n", "not the keys base"),
        (
            "def get_sweep(arg=''):\n    return {'points': [{'h': 'relu'}]}\n",
            "point 0: base=None must be the path of a config file",
        ),
        ("def get_sweep(arg=''):\n    return 1 / 0\n", "line 2: ZeroDivisionError"),
    ],
)
def test_a_file_that_is_no_sweep_is_refused(tmp_path, text, told):
    path = tmp_path / "sweep.py"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_grid(str(path), {})
    assert told in str(error.value)


def test_a_point_may_have_a_base_of_its_own(tmp_path):
    points = [{"h": "relu"}, {"h": "relu", "base": str(ROOT / "configs/cifar10_tfds.py"), "patch": 8}]
    first, second = grid_of(tmp_path, points).members
    assert (first.spec.data.name, second.spec.data.name) == ("fashion_mnist_12k", "cifar10")
    assert (first.name, second.name) == ("relu_alpha1.0_p7_quickstart_seed0", "relu_alpha1.0_p8_cifar10_tfds_seed0")
