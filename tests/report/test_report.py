"""Report from run directories: numbers against an independent computation, half-finished sweeps, several seeds, the files."""

import csv
import dataclasses
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit_attn.report.collect import collect
from vit_attn.report.figure import draw
from vit_attn.report.metric import Metric
from vit_attn.report.overview import chart
from vit_attn.report.table import missing_lines
from vit_attn.spec.errors import UserError
from vit_attn.spec.load import load_run
from vit_attn.store.run_dir import RunDir

ROOT = Path(__file__).resolve().parents[2]
ALPHAS = (0.0, 1.0, 2.0)


def make_run(
    folder: Path, name: str, arguments: str, accuracy: float | None, state: str = "done", **settings: object
) -> RunDir:
    run = RunDir(folder / name)
    run.create(load_run(f"{ROOT / 'configs/quickstart.py'}:{arguments}", settings))
    metrics = {} if accuracy is None else {"val/accuracy": accuracy, "val/loss": 1.5, "speed/core_hours": 0.01}
    message = "diverged at step 30" if state == "diverged" else ""
    if state != "waiting":
        run.write_status(state, step=250 if state == "done" else 30, steps=250, metrics=metrics, message=message)
    return run


def accuracy_of(h: str, alpha: float, patch: int, seed: int) -> float:
    return 0.6 + 0.1 * (h == "relu2") + 0.03 * alpha - 0.01 * patch + 0.005 * (seed * seed)


@pytest.fixture
def sweep(tmp_path) -> Path:
    """relu and relu2 over three alphas, three seeds, at patch 7 and 4; softmax at patch 7."""
    for seed in range(3):
        for patch in (7, 4):
            for h in ("relu", "relu2"):
                for alpha in ALPHAS:
                    arguments = f"h={h},alpha={alpha},patch={patch},seed={seed}"
                    make_run(tmp_path, f"{h}{alpha}-{patch}-{seed}", arguments, accuracy_of(h, alpha, patch, seed))
        make_run(tmp_path, f"softmax-{seed}", f"seed={seed}", 0.7 + seed / 100)
    return tmp_path


def curves(rows):
    """The lines of the overview, by the title of their panel."""
    return {panel.title: panel.series for panel in chart(rows, Metric()).panels}


def report(*paths: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vit_attn.report", *map(str, paths)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_figure_and_tables_hold_the_numbers_of_the_runs(sweep):
    shown = report(sweep)
    assert (shown.returncode, shown.stderr) == (0, "")
    with open(sweep / "report/results.csv") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 39
    for row in rows:
        status = json.loads((sweep / row["name"] / "status.json").read_text())
        assert float(row["accuracy"]) == status["metrics"]["val/accuracy"]
        assert float(row["core_seconds"]) == pytest.approx(36.0)
        assert int(row["L"]) == {"7": 16, "4": 49}[row["patch"]]
        assert (row["state"], row["step"], row["dataset"], row["qk_norm"]) == ("done", "250", "fashion_mnist_12k", "head")
    assert {row["alpha"] for row in rows if row["h"] == "softmax"} == {""}
    for file in ("figure.png", "figure.svg", "results.csv", "results.md"):
        assert str(sweep / "report" / file) in shown.stdout
    table = (sweep / "report/results.md").read_text()
    assert "| h | alpha | L | seed | validation accuracy | loss | core-seconds | state |" in table
    assert "| relu | 2 | 16 | 1 | 0.5950 | 1.500 | 36.0 | done |" in table
    with Image.open(sweep / "report/figure.png") as picture:
        assert picture.size[0] >= 1800
        assert len(picture.convert("L").histogram()) == 256
        assert picture.convert("L").getextrema()[0] < 100  # something dark was drawn
    assert ElementTree.parse(sweep / "report/figure.svg").getroot().tag.endswith("svg")


def test_curves_are_mean_and_deviation_over_seeds(sweep):
    panels = curves(collect([sweep]).rows)
    assert list(panels) == ["L = 16 keys", "L = 49 keys"]
    assert [curve.label for curve in panels["L = 16 keys"]] == ["softmax", "relu", "relu2"]
    assert [curve.label for curve in panels["L = 49 keys"]] == ["relu", "relu2"]
    for title, patch in (("L = 16 keys", 7), ("L = 49 keys", 4)):
        for curve in panels[title]:
            for point in curve.points:
                values = [0.7, 0.71, 0.72]
                if not curve.reference:
                    values = [accuracy_of(curve.label, point.x, patch, seed) for seed in range(3)]
                assert point.mean == pytest.approx(100 * np.mean(values))
                assert point.std == pytest.approx(100 * np.std(values, ddof=1))
    assert [point.x for point in panels["L = 49 keys"][0].points] == list(ALPHAS)


def test_the_figure_draws_the_curves(sweep):
    make_run(sweep, "bad", "h=relu,alpha=3,patch=4", 0.1, "diverged")
    figure = draw(chart(collect([sweep]).rows, Metric()))
    left, right = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["L = 16 keys", "L = 49 keys"]
    assert left.get_ylim() == right.get_ylim()
    relu = next(line for line in left.lines if len(line.get_xdata()) == 3)
    expected = [100 * np.mean([accuracy_of("relu", a, 7, s) for s in range(3)]) for a in ALPHAS]
    np.testing.assert_allclose(relu.get_ydata(), expected)
    level = next(line for line in left.lines if line.get_linestyle() == "--")
    np.testing.assert_allclose(level.get_ydata(), [71.0, 71.0])
    crosses = [line for line in right.lines if line.get_marker() == "x"]
    assert [list(cross.get_xdata()) for cross in crosses] == [[3.0]]
    assert crosses[0].get_color() == relu.get_color()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["softmax", "relu", "relu2", "diverged"]
    colours = [line.get_color() for line in figure.legends[0].get_lines()]
    markers = [line.get_marker() for line in figure.legends[0].get_lines()]
    assert len(set(colours)) == len(set(markers)) == 4
    assert len([band for band in left.collections if len(band.get_paths())]) == 2  # relu and relu2; softmax's is a patch


def test_a_half_finished_sweep_says_what_is_missing(tmp_path):
    make_run(tmp_path, "a", "h=softmax", 0.75)
    make_run(tmp_path, "b", "h=relu,alpha=0", 0.60, "diverged")
    make_run(tmp_path, "c", "h=relu,alpha=0.5", 0.65, "running")
    make_run(tmp_path, "d", "h=relu,alpha=1", None, "waiting")
    make_run(tmp_path, "e", "h=relu,alpha=1.5", 0.65, "stopped")
    rows = collect([tmp_path]).rows
    assert missing_lines(rows) == ["c: running 30/250", "d: waiting", "e: stopped 30/250"]
    (curve,) = [curve for curve in curves(rows)["L = 16 keys"] if not curve.reference]
    assert (curve.points, curve.diverged) == ((), (0.0,))
    shown = report(tmp_path)
    assert shown.returncode == 0
    assert "Missing: 3 of 5" in shown.stdout
    assert "d: waiting" in (tmp_path / "report/results.md").read_text()
    assert "| relu | 0 | 16 | - | - | 36.0 | diverged at step 30 |" in (tmp_path / "report/results.md").read_text()


def test_what_is_lost_is_named_and_the_rest_is_reported(tmp_path):
    make_run(tmp_path, "a", "h=softmax", 0.75)
    make_run(tmp_path, "b", "h=relu", 0.75)
    make_run(tmp_path, "c", "h=gelu", 0.75)
    (tmp_path / "b/status.json").write_text('{"state": "do')
    (tmp_path / "c/config.json").write_text("")
    packs = [{"name": "pack", "members": [{"name": name} for name in "abcd"]}]
    (tmp_path / "sweep.json").write_text(json.dumps({"packs": packs}))
    rows, lost = collect([tmp_path])
    assert [row.name for row in rows] == ["a"]
    assert [line.partition(":")[0] for line in lost] == ["d", "b", "c"]
    shown = report(tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Missing: 3 of 4" in shown.stdout
    table = (tmp_path / "report/results.md").read_text()
    assert "- d: not there yet" in table
    assert "b/status.json cannot be read" in table
    assert "c/config.json cannot be read" in table


def test_nothing_finished_makes_tables_and_no_figure(tmp_path):
    make_run(tmp_path, "a", "h=softmax", None, "waiting")
    shown = report(tmp_path)
    assert shown.returncode == 0
    assert "No figure yet" in shown.stdout
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["report.html", "results.csv", "results.md"]


def test_a_running_member_whose_process_is_gone_is_interrupted(tmp_path):
    run = make_run(tmp_path, "a", "h=softmax", 0.5, "running")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    status = dataclasses.asdict(run.status())
    (run.path / "status.json").write_text(json.dumps({**status, "pid": ended.pid}))
    assert collect([tmp_path]).rows[0].state == "interrupted"


def test_single_runs_and_several_sweeps_are_taken_together(sweep, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    run = make_run(other, "one", "h=gelu,alpha=1,seed=9", 0.8, **{"model.pool": "tok"})
    rows = collect([sweep, run.path]).rows
    assert len(rows) == 40
    (row,) = [row for row in rows if row.name == "one"]
    assert (row.h, row.alpha, row.length, row.seed) == ("gelu", 1.0, 17, 9)  # 16 patches and the CLS token
    assert report(run.path).returncode == 0
    assert (run.path / "report/figure.png").exists()


def test_other_settings_that_vary_make_lines_of_their_own(tmp_path):
    for rate in (0.001, 0.002):
        for alpha in (0, 1):
            settings = {"train.peak_lr": rate}
            make_run(tmp_path, f"r{rate}-{alpha}", f"h=relu,alpha={alpha}", 0.5 + rate, **settings)
    make_run(tmp_path, "other L", "h=relu,alpha=1,patch=4", 0.5, **{"train.peak_lr": 0.001, "train.steps": 99})
    lines = curves(collect([tmp_path]).rows)["L = 16 keys"]
    assert [curve.label for curve in lines] == ["relu, peak_lr 0.001", "relu, peak_lr 0.002"]
    assert [len(curve.points) for curve in lines] == [2, 2]
    assert {point.std for curve in lines for point in curve.points} == {0.0}  # learning rates are no seeds
    assert report(tmp_path).returncode == 0
    head = (tmp_path / "report/results.csv").read_text().splitlines()[0]
    assert head.endswith("state,message,train.peak_lr")
    assert "| h | alpha | L | steps | peak_lr |" in (tmp_path / "report/results.md").read_text()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: None, "is not a directory"),
        (lambda folder: folder.mkdir(), "holds no run"),
        (lambda folder: (folder / "x").mkdir(parents=True) or (folder / "x/config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "x").mkdir(parents=True) or (folder / "x/config.json").write_text('{"no": 1}'), "config.no"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, make, told):
    make(tmp_path / "W")
    with pytest.raises(UserError) as error:
        collect([tmp_path / "W"])
    assert told in str(error.value)
    assert str(tmp_path / "W") in str(error.value)


def test_the_command_refuses_in_one_line(tmp_path):
    shown = report(tmp_path)
    assert (shown.returncode, len(shown.stderr.splitlines())) == (2, 1)
    assert list(tmp_path.iterdir()) == []
