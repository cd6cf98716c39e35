"""The command over real runs: what it writes, that it writes it once and the same again, and every mistake of the user's."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from statistics import mean, stdev

import pytest
from trainer_runs import ROOT, command, run_here, wait_for

from vit_attn.quantize import main
from vit_attn.spec.errors import exit_code_of
from vit_attn.spec.quant import QuantSpec, resolve_quant
from vit_attn.store.run_dir import RunDir

CONFIG = "configs/quant/w8a8.py:batches=2,repeats=2"
SHORT = ("--config.batch_images=16", '--config.estimators=["running_min_max","percentile"]', "--config.percentiles=[97.0]")


def quantize(run, *words, config=CONFIG):
    return exit_code_of(lambda: main(["--run", str(run), "--config", config, *SHORT, *map(str, words)]))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A directory with a finished run, one that has just begun, and one that was only made."""
    folder = tmp_path_factory.mktemp("sweep")
    assert run_here(*command(folder / "done", model__attention__gate="linear", model__depth=1)) == 0
    shutil.copytree(folder / "done", folder / "going")
    RunDir(folder / "going").write_status("stopped", step=8, steps=12)
    RunDir(folder / "made").create(RunDir(folder / "done").spec())
    return folder


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_a_sweep_then_a_run(sweep, tmp_path, capfd):
    assert quantize(sweep, "--workdir", tmp_path / "q") == 0
    said = capfd.readouterr()
    assert "going is left out: stopped" in said.err
    assert "made is left out: waiting" in said.err
    out = tmp_path / "q" / "done"
    assert [path.name for path in (tmp_path / "q").iterdir()] == ["done"]
    results, ranges = read(out, "results.json"), read(out, "ranges.json")

    assert results["float32"]["accuracy"] == pytest.approx(RunDir(sweep / "done").status().metrics["val/accuracy"])
    assert (results["step"], results["float32"]["images"], results["excluded"]) == (12, 37, [])
    assert list(results["estimators"]) == ["running_min_max", "percentile_97"]
    for one in results["estimators"].values():
        accuracies = [each["accuracy"] for each in one["repeats"]]
        assert (one["accuracy"], one["accuracy_std"]) == pytest.approx((mean(accuracies), stdev(accuracies)))
    best = results["best"]
    assert results["estimators"][best]["accuracy"] == max(one["accuracy"] for one in results["estimators"].values())
    assert f"{best} on 2 x 2 x 16 images of 'train'" in said.out
    assert "excluded: nothing" in said.out
    assert "best" in next(line for line in said.out.splitlines() if f"w8a8 {best} " in line)

    (row,) = RunDir(out).metrics()
    assert row["step"] == 12
    assert row["quant/w8a8/accuracy"] == row[f"quant/w8a8/{best}/accuracy"] == results["estimators"][best]["accuracy"]
    assert row["quant/float32/accuracy"] == results["float32"]["accuracy"]
    assert len(list(out.glob("events.out.tfevents*"))) == 1

    one, other = ranges["activations"]["running_min_max"]
    assert one["images"]["low"] == other["images"]["low"] == -1.0
    assert one["images"]["scale"] == pytest.approx(2 / 255, rel=1e-2)
    assert one["encoderblock_0/norm_0"] != other["encoderblock_0/norm_0"]  # other images
    assert {"encoderblock_0/attention/gated", "head/output"} < set(one)
    assert "encoderblock_0/attention/context" not in one
    assert {"head/kernel", "encoderblock_0/LayerNorm_0/scale"} < set(ranges["weight_scales"])

    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert quantize(sweep, "--workdir", tmp_path / "q") == 0
    assert "is complete (step 12): nothing to do" in capfd.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert quantize(sweep / "done") == 0
    assert (sweep / "done/quant/w8a8/ranges.json").read_bytes() == (out / "ranges.json").read_bytes()

    assert quantize(sweep, "--workdir", tmp_path / "q", "--config.seed=5") == 2
    assert "config.seed: 0 there, 5 here" in capfd.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_member_that_fails_does_not_stop_the_others(sweep, tmp_path, capfd):
    """Exit code 1, and its name and reason at the end; without an own reason of one of them, it is the user's mistake."""
    grid, out = tmp_path / "grid", tmp_path / "q"
    for name in ("a_gone", "b_done"):
        shutil.copytree(sweep / "done", grid / name)
    shutil.rmtree(grid / "a_gone/checkpoints")
    assert quantize(grid, "--workdir", out, "--config.repeats=1") == 1
    said = capfd.readouterr()
    assert "b_done (2 of 2): w8a8 accuracy" in said.out
    assert said.err.splitlines()[-1].startswith(f"failed: a_gone: {grid}/a_gone has no checkpoint")
    assert sorted(path.name for path in out.iterdir()) == ["b_done"]
    told = [line for line in said.out.splitlines() if "of all | ETA 0:" in line]
    assert [line.split(" | ")[0] for line in told] == [
        "running_min_max: calibrated on subset 1 of 1",
        "percentile_97: calibrated on subset 1 of 1",
        *["evaluating 3 networks"] * 3,
    ]
    shares = [int(line.split(" | ")[1].split("%")[0]) for line in told]
    assert shares == [20, 40, 60, 80, 100]  # of the one that was left

    shutil.rmtree(grid / "b_done/quant", ignore_errors=True)
    shutil.rmtree(out)
    shutil.copytree(sweep / "done/checkpoints", grid / "a_gone/checkpoints")
    assert quantize(grid, "--workdir", out, "--config.split=validation") == 2
    assert capfd.readouterr().err.count("37 of the 37") == 1
    assert not out.exists()


def test_killed_and_once_more(sweep, tmp_path, capfd):
    """SIGKILL when the first of two members is done and the second one calibrates: the same bytes as without it."""
    grid, log = tmp_path / "grid", tmp_path / "log"
    for name in ("a", "b"):
        shutil.copytree(sweep / "done", grid / name, ignore=shutil.ignore_patterns("quant"))
    words = ["--run", grid, "--workdir", tmp_path / "q", "--config", CONFIG, *SHORT]
    with open(log, "w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "vit_attn.quantize", *map(str, words)], cwd=ROOT, stdout=out, stderr=out
        )
    try:
        wait_for(process, log, "(1 of 2)")
        wait_for(process, log, f"{grid / 'b'}: step 12")
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    first = (tmp_path / "q/a/results.json").stat().st_mtime_ns
    assert not (tmp_path / "q/b/results.json").exists()
    assert quantize(grid, "--workdir", tmp_path / "q") == 0
    assert f"{tmp_path / 'q/a'} is complete" in capfd.readouterr().out
    assert (tmp_path / "q/a/results.json").stat().st_mtime_ns == first
    assert quantize(grid / "b", "--workdir", tmp_path / "undisturbed") == 0
    for name in ("a", "b"):
        assert (tmp_path / "q" / name / "ranges.json").read_bytes() == (tmp_path / "undisturbed/ranges.json").read_bytes()
        results, wanted = read(tmp_path / "q" / name, "results.json"), read(tmp_path / "undisturbed", "results.json")
        assert {**results, "run": ""} == {**wanted, "run": ""}
    assert len(RunDir(tmp_path / "q/b").metrics()) == 1


def test_the_results_of_another_run(sweep, tmp_path, capfd):
    """That lie where this one's are to go: neither taken for its own nor lost."""
    other = tmp_path / "other"
    assert run_here(*command(other, model__attention__gate="linear", model__depth=1, seed=7)) == 0
    assert quantize(sweep / "done", "--workdir", tmp_path / "q", "--config.repeats=1") == 0
    before = (tmp_path / "q/results.json").read_bytes()
    assert quantize(other, "--workdir", tmp_path / "q", "--config.repeats=1") == 2
    assert f"results of another run ({sweep}/done), which differs in config.seed: 0 there, 7 here" in capfd.readouterr().err
    assert (tmp_path / "q/results.json").read_bytes() == before


def test_a_place_that_is_a_run_keeps_its_log(sweep, tmp_path, capfd):
    """Results lie beside a run's own metrics, never instead of them; and in no bucket."""
    shutil.copytree(sweep / "done", tmp_path / "grid" / "one")
    log = (tmp_path / "grid" / "one" / "metrics.jsonl").read_bytes()
    before = sorted(tmp_path.rglob("*"))
    for run, workdir in ((tmp_path / "grid" / "one",) * 2, (tmp_path / "grid",) * 2):
        assert quantize(run, "--workdir", workdir) == 2
        assert f"--workdir: {tmp_path / 'grid' / 'one'} is the directory of a run" in capfd.readouterr().err
    assert quantize(tmp_path / "grid" / "one", "--workdir", "gs://bucket/place") == 2
    assert "--workdir=gs:/bucket/place is in a bucket" in capfd.readouterr().err
    assert quantize("gs://bucket/run") == 2
    assert "is in a bucket: runs lie on a file system" in capfd.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "grid" / "one" / "metrics.jsonl").read_bytes() == log


def test_results_that_are_not_ours(sweep, tmp_path, capfd):
    (tmp_path / "results.json").write_text('{"step": 3, "metrics": {}}')
    assert quantize(sweep / "done", "--workdir", tmp_path) == 2
    assert "results.json is not one of ours: it has no config, float32, estimators, best" in capfd.readouterr().err


def test_no_more_images_at_once_than_fit(sweep):
    """A point holds all attention weights of a batch: the run's own may be of thousands of images."""
    from vit_attn.quant.measure import EVALUATED, in_small_batches

    spec = RunDir(sweep / "done").spec()
    assert in_small_batches(spec) == spec  # 16 images
    large = dataclasses.replace(spec, eval=dataclasses.replace(spec.eval, batch_images=10**5))
    assert in_small_batches(large).eval.batch_images == EVALUATED * 8  # devices


def test_no_percentile_is_rounded():
    assert QuantSpec(estimators=("percentile",), percentiles=(99.99999, 99.99, 99.990001, 97.0)).measured == [
        "percentile_99.99999",
        "percentile_99.99",
        "percentile_99.990001",
        "percentile_97",
    ]


def test_what_is_excluded_is_said(sweep, tmp_path, capfd):
    assert quantize(sweep / "done", "--workdir", tmp_path / "q", '--config.exclude=["head/*"]', "--config.repeats=1") == 0
    assert "excluded: head/output, head/kernel" in capfd.readouterr().out
    ranges = read(tmp_path / "q", "ranges.json")
    assert not {"head/output", "head/kernel"} & {*ranges["weight_scales"], *ranges["activations"]["percentile_97"][0]}
    assert read(tmp_path / "q", "results.json")["estimators"]["percentile_97"]["accuracy_std"] == 0


CASES = {
    "weight bits": (["--config.weight_bits=1"], ["config.weight_bits=1", ">= 2"]),
    "activation bits": (["--config.activation_bits=17"], ["config.activation_bits=17", "<= 16"]),
    "estimator": (
        ["--config.estimators=minmax"],
        ["config.estimators", "'minmax'", "min_max", "running_min_max", "mse", "all"],
    ),
    "no estimator": (["--config.estimators=[]"], ["config.estimators=[]", "choices"]),
    "weight estimator": (["--config.weight_estimator=percentile"], ["weight_estimator", "'percentile'", "min_max, mse"]),
    "percentile 50": (["--config.percentiles=[50.0]"], ["config.percentiles", "50", "at most 100"]),
    "percentile 101": (["--config.percentiles=[99.9,101.0]"], ["config.percentiles", "101", "at most 100"]),
    "no batches": (["--config.batches=0"], ["config.batches=0", ">= 1"]),
    "momentum": (["--config.momentum=1.0"], ["config.momentum=1.0", "< 1"]),
    "percentiles that nothing takes": (["--config.estimators=mse"], ["percentiles=[97.0]", "is mse", "add percentile"]),
    "no percentiles": (["--config.percentiles=[]"], ["config.percentiles is empty", "99.99"]),
    "few images": (["--config.split=train[:31]"], ["'train[:31]' has 31 images", "batches=2 x config.batch_images=16 are 32"]),
    "unknown key": (["--config.bits=8"], ["config.bits", "weight_bits"]),
    "pattern": (['--config.exclude=["encoderblock_9/*"]'], ["config.exclude", "'encoderblock_9/*'", "matches no point"]),
    "split": (["--config.split=tarin"], ["config.split", "'tarin'", "train"]),
    "validation": (["--config.split=validation"], ["config.split='validation'", "37 of the 37", "validation[:37]"]),
    "a part of it": (["--config.split=validation[30:99]"], ["7 of the 37", "train"]),
}


@pytest.mark.parametrize("case", CASES)
def test_mistakes(case, sweep, tmp_path, capfd):
    words, told = CASES[case]
    assert quantize(sweep / "done", "--workdir", tmp_path / "q", *words) == 2
    error, *details = [line for line in capfd.readouterr().err.splitlines() if not line.startswith(("WARNING", "I0000"))]
    assert all(word in error for word in ["error: ", *told]), error
    assert "encoderblock_0/attention/logits" in " ".join(details) if case == "pattern" else not details
    assert not (tmp_path / "q").exists()


def test_runs_that_cannot_be(sweep, tmp_path, capfd):
    for run, told in (
        (sweep / "made", "has no checkpoint yet"),
        (tmp_path, "holds no run"),
        (tmp_path / "gone", "holds no run"),
    ):
        assert quantize(run, "--workdir", tmp_path / "q") == 2
        assert told in capfd.readouterr().err
    shutil.copytree(sweep / "made", tmp_path / "grid" / "made")
    assert quantize(tmp_path / "grid") == 2
    assert "no member that is done: they are waiting" in capfd.readouterr().err
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize(
    ("name", "bits", "weights"),
    [("w8a8", (8, 8), "min_max"), ("w6a8", (6, 8), "mse"), ("w4a8", (4, 8), "mse"), ("w6a6", (6, 6), "mse")],
)
def test_presets(name, bits, weights):
    from vit_attn.spec.load import load_config

    quant = resolve_quant(load_config(f"configs/quant/{name}.py:estimators=all"))
    assert (quant.weight_bits, quant.activation_bits, quant.weight_estimator, quant.name) == (*bits, weights, name)
    assert quant.measured == ["min_max", "running_min_max", "percentile_99.99", "percentile_99.999", "mse"]
    assert (quant.momentum, quant.batches, quant.repeats, quant.per_channel) == (0.9, 16, 3, False)
