"""The program: its files and figures, sweeps, summaries over seeds and quantized forms, and mistakes."""

import csv
import json
import shutil
from io import BytesIO

import jax
import numpy as np
import pytest
from outlier_runs import GATED, PLAIN, SIDE, params_of, plant_tokens, save_run, spec_of
from PIL import Image

from vit_attn.analysis.outliers.__main__ import main
from vit_attn.analysis.outliers.summary import Method
from vit_attn.spec.errors import exit_code_of
from vit_attn.spec.quant import QuantSpec, as_values
from vit_attn.store.run_dir import RunDir

DIM, PATCH = 3, 9  # row 2, column 1
TABLES = {"layers.csv", "by_dim.csv", "by_token.csv", "heads.csv"}
FIGURES = {"outliers", "by_token", "by_dim", "heads", "heads_matrices"}


def program(*argv):
    return exit_code_of(lambda: main([str(word) for word in argv]))


def table(file):
    with open(file, newline="") as handle:
        return list(csv.DictReader(handle))


def quantized(estimators, step=7, **settings):
    """What a results.json holds."""
    config = as_values(QuantSpec(estimators=tuple(estimators), repeats=2, **settings))
    return {
        **{"step": step, "best": "mse", "estimators": estimators, "config": config},
        **{"calibration_split": "train", "excluded": ["head/output"] if settings else []},
    }


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Vanilla with two seeds and a gate with one, all with a planted token; one member that has diverged, one that waits."""
    folder = tmp_path_factory.mktemp("sweep") / "grid"
    accuracies = {"vanilla_seed0": 0.5, "vanilla_seed1": 0.6, "gated": 0.7}
    for name, accuracy in accuracies.items():
        spec = spec_of(GATED if name == "gated" else PLAIN, seed=int(name == "vanilla_seed1"))
        params = plant_tokens(params_of(spec, seed=len(name) + int(accuracy * 10)), [PATCH], DIM, 40.0 + 20 * accuracy)
        save_run(folder / name, spec, params, accuracy=accuracy)
    for name, state in {"gone": "diverged", "later": "waiting"}.items():
        RunDir(folder / name).create(spec_of(PLAIN, seed=5))
        RunDir(folder / name).write_status(state)
    logged = ("block_inf_norm", "block_kurtosis", "outlier_share")
    rows = [{"step": step, **{f"stats/{of}/layer_{i:02d}": step + i for of in logged for i in range(3)}} for step in (2, 4)]
    (folder / "gated/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for seed, repeats in enumerate([(0.4, 0.44), (0.5, 0.54)]):
        place = folder / f"vanilla_seed{seed}/quant/w8a8"
        place.mkdir(parents=True)
        estimators = {"min_max": {"repeats": [{"accuracy": 0.1}]}, "mse": {"repeats": [{"accuracy": x} for x in repeats]}}
        (place / "results.json").write_text(json.dumps(quantized(estimators)))
    return folder


@pytest.fixture(scope="module")
def analysed(sweep):
    assert program(sweep, "--images", 5, "--batch-images", 3) == 0
    return sweep


def test_every_member_that_is_done_has_its_files(analysed):
    for name in ("vanilla_seed0", "vanilla_seed1", "gated"):
        there = {path.name for path in (analysed / name / "outliers").iterdir()}
        figures = FIGURES | ({"over_steps"} if name == "gated" else set())
        assert there == {"outliers.json", *TABLES, *(f"{figure}.{kind}" for figure in figures for kind in ("png", "svg"))}
        for figure in figures:
            with Image.open(BytesIO((analysed / name / "outliers" / f"{figure}.png").read_bytes())) as image:
                assert len(image.convert("RGB").getcolors(2**24)) > 30
    assert not (analysed / "gone/outliers").exists()
    assert not (analysed / "later/outliers").exists()


@pytest.mark.parametrize(("name", "cls"), [("vanilla_seed0", 0), ("gated", 1)])
def test_a_planted_token_is_found_at_its_place(analysed, name, cls):
    """With a CLS token, too, which comes before the patches."""
    found = [row for row in table(analysed / name / "outliers/by_token.csv") if row["tensor"] == "block"]
    place = {"token": str(PATCH + cls), "row": "2", "column": "1"}
    assert [row["layer"] for row in found] == ["0", "1", "2"]
    assert all(row.items() >= place.items() and row["outliers"] == "5" for row in found)
    dims = [row for row in table(analysed / name / "outliers/by_dim.csv") if row["tensor"] == "block"]
    assert {row["dim"] for row in dims} == {str(DIM)}
    rows = table(analysed / name / "outliers/heads.csv")
    heads = json.loads((analysed / name / "outliers/outliers.json").read_text())["heads"]
    assert [*dict.fromkeys(row["head"] for row in rows)] == [str(i) for i in dict.fromkeys((heads["owner"], heads["reader"]))]
    assert len(rows) == 4 * (SIDE**2 + cls) * len({heads["owner"], heads["reader"]})
    assert {row["token"] for row in rows if row["outliers"] != "0"} == {str(PATCH + cls)}
    assert [row["row"] for row in rows[: 2 + cls]] == [*([""] * cls), "0", "0"]


def test_flat_metrics_for_reports(analysed):
    results = json.loads((analysed / "gated/outliers/outliers.json").read_text())
    assert (results["step"], results["split"], results["images"]) == (7, "validation", 5)
    metrics = results["metrics"]
    assert all(name.startswith("outliers/") and isinstance(value, float) for name, value in metrics.items())
    assert metrics["outliers/top_dim"] == DIM
    assert metrics["outliers/top_token"] == PATCH + 1
    of = {(row["tensor"], row["layer"]): row for row in table(analysed / "gated/outliers/layers.csv")}
    assert len(of) == 5 * 3 + 1
    assert metrics["outliers/max_inf_norm"] == max(float(of["block", str(layer)]["inf_norm"]) for layer in range(3))
    assert metrics["outliers/ffn_kurtosis"] == pytest.approx(np.mean([float(of["ffn", str(i)]["kurtosis"]) for i in range(3)]))


def test_a_sweep_ends_in_a_table_over_seeds(analysed):
    rows = {row["method"]: row for row in table(analysed / "outliers/summary.csv")}
    assert len(rows) == 2
    (vanilla,) = (row for label, row in rows.items() if "gate=none" in label)
    (gated,) = (row for label, row in rows.items() if "gate=linear" in label)
    seeds = [json.loads((analysed / f"vanilla_seed{i}/outliers/outliers.json").read_text())["metrics"] for i in (0, 1)]
    for column in ("max_inf_norm", "kurtosis", "ffn_max_inf_norm"):
        values = [of[f"outliers/{column}"] for of in seeds]
        assert float(vanilla[column]) == pytest.approx(np.mean(values))
        assert float(vanilla[f"{column}_std"]) == pytest.approx(np.std(values, ddof=1))
        assert float(gated[f"{column}_std"]) == 0
    assert (vanilla["seeds"], gated["seeds"]) == ("2", "1")
    assert float(vanilla["accuracy"]) == pytest.approx(55)
    assert float(vanilla["core_hours"]) == pytest.approx(1.1)
    quantized = [40, 44, 50, 54]  # every seed and subset, of the best estimator
    assert float(vanilla["w8a8_accuracy"]) == pytest.approx(np.mean(quantized))
    assert float(vanilla["w8a8_accuracy_std"]) == pytest.approx(np.std(quantized, ddof=1))
    assert gated["w8a8_accuracy"] == ""
    told = json.loads((analysed / "outliers/summary.json").read_text())["quantized"]
    where = "2 x 16 x 32 images of 'train'; weights min_max, a range a tensor; excluded: nothing"
    assert told == {"w8a8": f"the best of min_max, mse on {where}"}


def test_numbers_of_other_settings_are_not_averaged(tmp_path, capsys):
    for seed, settings in enumerate([{}, {}, {"exclude": ("head/*",)}]):
        run = save_run(tmp_path / f"grid/seed{seed}", spec_of(PLAIN, seed=seed), params_of(spec_of(PLAIN))).path
        (run / "quant/w4a8").mkdir(parents=True)
        results = quantized({"mse": {"repeats": [{"accuracy": 0.4 + 0.1 * seed}]}}, **settings)
        (run / "quant/w4a8/results.json").write_text(json.dumps(results))
    assert program(tmp_path / "grid", "--images", 2) == 0
    said = capsys.readouterr()
    assert "seed2/quant/w4a8/results.json is left out: its settings are not those of" in said.err
    assert "exclude: ['head/*'] here, [] there" in said.err
    assert "w4a8: mse on 2 x 16 x 32 images of 'train'; weights min_max, a range a tensor; excluded: nothing" in said.out
    (row,) = table(tmp_path / "grid/outliers/summary.csv")
    assert (row["seeds"], float(row["w4a8_accuracy"])) == ("3", pytest.approx(45))


def test_settings_of_one_last_name_are_told_apart():
    settings = {"train.steps": 600, "eval.steps": 300, "model.patch": 4, "model.attention.gamma": None}
    assert Method(settings).label == "train.steps=600 eval.steps=300 patch=4"


def test_results_may_go_elsewhere(sweep, tmp_path, capsys):
    before = sorted(path for path in sweep.rglob("*"))
    runs = sweep / "vanilla_seed0", sweep / "vanilla_seed1"
    assert program(*runs, "--workdir", tmp_path / "out", "--images", 3, "--split", "train[:3]") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "summary.csv",
        "summary.json",
        *(run.name for run in runs),
    ]
    assert "3 images of 'train[:3]'" in capsys.readouterr().out
    assert sorted(path for path in sweep.rglob("*")) == before


def test_what_is_there_is_not_measured_again(tmp_path, capsys):
    """But what was not finished, and what is asked for with other images, is."""
    for seed in (0, 1):
        save_run(tmp_path / f"grid/seed{seed}", spec_of(PLAIN, seed=seed), params_of(spec_of(PLAIN), seed=seed))
    assert program(tmp_path / "grid", "--images", 3) == 0
    files = [tmp_path / f"grid/seed{seed}/outliers/outliers.json" for seed in (0, 1)]
    first, summary = [file.read_bytes() for file in files], (tmp_path / "grid/outliers/summary.json").read_bytes()
    files[1].unlink()
    capsys.readouterr()
    before = files[0].stat().st_mtime_ns
    assert program(tmp_path / "grid", "--images", 3) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("seed0/outliers (1 of 2): complete (step 7): nothing to do")
    assert "seed1/outliers (2 of 2): step 7, 3 images" in lines[1]
    assert files[0].stat().st_mtime_ns == before
    assert [file.read_bytes() for file in files] == first
    assert (tmp_path / "grid/outliers/summary.json").read_bytes() == summary
    assert program(tmp_path / "grid", "--images", 2) == 0
    assert "nothing to do" not in capsys.readouterr().out
    assert json.loads(files[0].read_text())["images"] == 2
    shutil.move(tmp_path / "grid/seed0/outliers", tmp_path / "kept")  # and what is there of another run
    shutil.rmtree(tmp_path / "grid/seed0")
    save_run(tmp_path / "grid/seed0", spec_of(GATED), params_of(spec_of(GATED)))
    shutil.move(tmp_path / "kept", tmp_path / "grid/seed0/outliers")
    assert program(tmp_path / "grid", "--images", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "seed0/outliers (1 of 2): step 7" in lines[0]
    assert "nothing to do" in lines[1]


def one_error(capsys, *argv):
    assert program(*argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("error: ")
    assert sum(line.startswith("error: ") for line in captured.err.splitlines()) == 1
    return captured.err


def test_each_mistake_is_one_line_and_creates_nothing(sweep, tmp_path, capsys):
    run = sweep / "gated"
    before = sorted(path for path in sweep.rglob("*"))
    assert "holds no run: neither it nor a directory in it has a config.json" in one_error(capsys, tmp_path)
    assert "--images: '0' is not a whole number of at least 1" in one_error(capsys, run, "--images", 0)
    assert "--batch-images: '-2'" in one_error(capsys, run, "--batch-images=-2")
    assert "split 'nowhere' of data set" in (told := one_error(capsys, run, "--split", "nowhere"))
    assert "see --split" in told
    assert "has no checkpoint yet" in one_error(capsys, sweep / "later")
    assert "unrecognized arguments: --image" in one_error(capsys, run, "--image", 3)
    (tmp_path / "file").write_text("")
    assert "is a file, not a directory" in one_error(capsys, run, "--workdir", tmp_path / "file")
    other = tmp_path / "other/gated"
    RunDir(other).create(spec_of(GATED))
    save_run(other, spec_of(GATED), params_of(spec_of(GATED)))
    assert "two runs of one name, gated" in one_error(capsys, run, other, "--workdir", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert sorted(path for path in sweep.rglob("*")) == before


def test_a_sweep_of_which_nothing_is_finished_is_one_line(tmp_path, capsys):
    for name, state in {"a": "running", "b": "diverged"}.items():
        RunDir(tmp_path / name).create(spec_of(PLAIN))
        RunDir(tmp_path / name).write_status(state)
    assert "has no member that is done: they are diverged, running" in one_error(capsys, tmp_path)


def test_broken_results_of_quantization_are_one_line(tmp_path, capsys):
    run = save_run(tmp_path / "grid/one", spec_of(PLAIN), params_of(spec_of(PLAIN))).path
    (run / "quant/w8a8").mkdir(parents=True)
    (run / "quant/w8a8/results.json").write_text('{"step": 7, "best": "mse"}')
    assert "quant/w8a8/results.json cannot be read: KeyError" in one_error(capsys, run.parent, "--images", 2)


def test_one_that_cannot_be_looked_into_does_not_stop_the_others(tmp_path, capsys):
    """Its numbers are not finite. And what was quantized at another step is left out, and said."""
    spec = spec_of(PLAIN)
    broken = jax.tree.map(lambda x: x * np.float32("nan"), params_of(spec))
    save_run(tmp_path / "grid/a_broken", spec, broken)
    save_run(tmp_path / "grid/b_whole", spec_of(PLAIN, seed=1), params_of(spec))
    (tmp_path / "grid/b_whole/quant/w8a8").mkdir(parents=True)
    old = quantized({"mse": {"repeats": [{"accuracy": 0.4}]}}, step=3)
    (tmp_path / "grid/b_whole/quant/w8a8/results.json").write_text(json.dumps(old))
    assert program(tmp_path / "grid", "--images", 4) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("failed: a_broken: ")
    assert "w8a8/results.json is left out: it is of step 3, the run is at 7" in said.err
    (row,) = table(tmp_path / "grid/outliers/summary.csv")
    assert row["seeds"] == "1"
    assert "w8a8_accuracy" not in row
    assert "±" not in said.out
