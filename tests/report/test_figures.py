"""The papers' figures from runs whose numbers are known: which runs are in which, and what the tables beside them say."""

import csv
import json
import shutil

import numpy as np
import pytest

from tests.report import paper_runs
from tests.report.test_report import report
from vit_attn.report.collect import collect
from vit_attn.report.figures import FIGURES
from vit_attn.report.metric import Metric
from vit_attn.report.series import NotHere

SIZES, HS = ("S/32", "S/16", "S/8"), ("relu", "relu2")
TWO = {"hs": ("relu", "relu2"), "names": ("imagenet21k",)}


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    """A directory a grid, two seeds: figure 1, 2 (two h, one data set), without qk-norm, with a gate, and the tables."""
    folder = tmp_path_factory.mktemp("papers")
    paper_runs.scaling(folder / "fig1", 2)
    paper_runs.alphas(folder / "fig2", 2, **TWO)
    paper_runs.alphas(folder / "fig3", 2, **TWO, more={"model.attention.qk_norm": "none"})
    paper_runs.alphas(folder / "fig4", 2, **TWO, more={"model.attention.gate": "gau"}, cost=1.093, softmax=False)
    paper_runs.outliers(folder / "tables", 2)
    return folder


def drawing(name, *paths, metric="val/accuracy"):
    return FIGURES[name](collect(paths).rows, Metric(metric), paths)


def values(folder, **wanted):
    """The accuracies in percent of the runs with these settings, read without any of our own code."""
    found = []
    for config in sorted(folder.glob("*/config.json")):
        spec, status = json.loads(config.read_text()), json.loads((config.parent / "status.json").read_text())
        has = {**spec["model"]["attention"], "variant": spec["model"]["variant"], "name": spec["data"]["name"]}
        if all(has[key] == value for key, value in wanted.items()) and status["state"] == "done":
            found.append(100 * status["metrics"]["val/accuracy"])
    return found


def read(file):
    with open(file, newline="") as handle:
        return list(csv.DictReader(handle))


def test_figure_1_is_accuracy_against_core_hours_by_size(papers):
    chart = drawing("fig1", papers / "fig1")
    accuracy, transfer = chart.panels
    assert (accuracy.y_label, transfer.y_label) == ("validation accuracy (%)", "10-shot linear transfer (%)")
    assert [series.label for series in accuracy.series] == ["softmax", "relu / L"]
    for series, h in zip(accuracy.series, ("softmax", "relu"), strict=True):
        assert [(p.mark, p.x) for p in series.points] == [
            (s, paper_runs.HOURS[s]) for s in ("S/32", "S/16", "B/32", "B/16", "L/16")
        ]
        for point in series.points:
            runs = values(papers / "fig1", h=h, variant=point.mark)
            assert (len(runs), point.mean, point.std) == (2, pytest.approx(np.mean(runs)), pytest.approx(np.std(runs, ddof=1)))
    laws, ratios = chart.tables
    for row in laws.rows:
        assert row[3] <= paper_runs.EXPONENT <= row[4]
        assert row[2] == pytest.approx(paper_runs.EXPONENT, rel=0.1)
    ((panel, what, ratio, low, high, *_),) = ratios.rows
    assert (panel, what) == ("imagenet21k", "relu / L over softmax")
    assert low < ratio < high
    assert ratio == pytest.approx(paper_runs.SLOWER, rel=0.1)


def test_figure_1_takes_only_alpha_1(papers):
    chart = drawing("fig1", papers / "fig2")
    softmax, relu, relu2 = chart.panels[0].series
    assert [series.label for series in chart.panels[0].series] == ["softmax", "relu / L", "relu2 / L"]
    for point in relu.points:
        assert point.values == pytest.approx(values(papers / "fig2", h="relu", alpha=1.0, variant=point.mark))
    assert [len(series.points) for series in (softmax, relu, relu2)] == [3, 3, 3]


def test_figure_2_has_a_panel_a_size_and_softmax_as_a_level(papers):
    chart = drawing("fig2", papers / "fig2", papers / "fig3", papers / "fig4")  # of these, qk-layernorm and no gate
    assert [panel.title for panel in chart.panels] == ["imagenet21k  S/32", "imagenet21k  S/16", "imagenet21k  S/8"]
    for panel, size in zip(chart.panels, ("S/32", "S/16", "S/8"), strict=True):
        softmax, relu, relu2 = panel.series
        assert [series.label for series in panel.series] == ["softmax", "relu", "relu2"]
        assert [point.x for point in softmax.points] == [None]
        assert [point.x for point in relu.points] == list(paper_runs.ALPHAS)
        for point in (*softmax.points, *relu.points):
            h = "softmax" if point.x is None else "relu"
            assert point.values == pytest.approx(values(papers / "fig2", h=h, alpha=point.x, variant=size))
        assert relu2.diverged == ((0.0,) if size == "S/8" else ())
    (best,) = chart.tables
    assert [row[:2] for row in best.rows] == [(panel.title, h) for panel in chart.panels for h in ("relu", "relu2")]
    for row in best.rows:
        assert row[3] <= row[2] <= row[4]
        assert row[2] == pytest.approx(0.95, abs=0.35)


@pytest.mark.parametrize(
    ("name", "other", "without"),
    [
        ("fig3", "fig3", ["softmax, no qk-norm", "relu, no qk-norm", "relu2, no qk-norm"]),
        ("fig4", "fig4", ["relu, gate gau", "relu2, gate gau"]),
    ],
)
def test_figures_3_and_4_put_twins_side_by_side(papers, name, other, without):
    chart = drawing(name, papers / "fig2", papers / other)
    labels = {series.label for series in chart.series}
    assert labels == {"softmax", "relu", "relu2", *without}
    relu, twin = (next(s for s in chart.series if s.label == label) for label in ("relu", without[-2]))
    assert (relu.kin, relu.variant, twin.kin) == ("relu", "", "relu")
    key = {"qk_norm": "none"} if name == "fig3" else {"gate": "gau"}
    for point in twin.points:
        assert point.values == pytest.approx(values(papers / other, h="relu", alpha=point.x, variant="S/32", **key))


def test_figure_4_tells_what_the_gate_costs(papers):
    _, cost = drawing("fig4", papers / "fig2", papers / "fig4").tables
    assert [row[:2] for row in cost.rows] == [
        (f"imagenet21k  {s}", h) for s in ("S/32", "S/16", "S/8") for h in ("relu", "relu2")
    ]
    for row in cost.rows:
        assert row[2:4] == (pytest.approx(9.3), pytest.approx(0, abs=1e-9))
        assert row[4] == (16 if row[:2] == ("imagenet21k  S/8", "relu2") else 18)  # alpha = 0 has diverged


def test_table_7_has_the_papers_rows_and_columns(papers):
    dots = drawing("table7", papers / "tables")
    assert dots.columns == ("validation accuracy (%)", "max inf norm", "kurtosis", "W8A8 accuracy (%)")
    rows = dict(dots.rows)
    assert list(rows)[:3] == ["vanilla", "clipped softmax γ = -0.003", "clipped softmax γ = -0.003, ζ = 1.003"]
    assert {"gated linear π = 0.25", "gated mlp n_hid = 4 π = 0.5", "vanilla + patch norm"} < set(rows)
    assert len(rows) == 16
    accuracy, norm, kurtosis, w8a8 = rows["vanilla"]
    assert accuracy == pytest.approx((80.75, 80.85))
    assert w8a8 == pytest.approx((69.24, 69.24))
    assert np.mean(norm) == pytest.approx(358.5, rel=0.05)
    assert np.mean(kurtosis) == pytest.approx(1018.3, rel=0.05)
    assert dots.missing == ()


def test_table_8_goes_by_gamma_and_zeta(papers):
    dots = drawing("table8", papers / "tables")
    plain = [label for label, _ in dots.rows if "patch" not in label]
    assert plain == ["γ = 0, ζ = 1", "γ = 0, ζ = 1.01", "γ = -0.003, ζ = 1", "γ = -0.004, ζ = 1", "γ = -0.003, ζ = 1.003"]
    assert dots.rows[1][1][0] == pytest.approx((78.3, 78.4))


def test_forms_beyond_table_7_have_its_columns_and_every_width(papers, tmp_path):
    shutil.copytree(papers / "tables", tmp_path / "W")
    with pytest.raises(NotHere, match="no form but softmax and clipped_softmax"):
        drawing("outliers", tmp_path / "W")
    for norm, number in (("none", 12.0), ("tokens", 9.0)):
        settings = {"model.attention.h": "relu", "model.attention.alpha": 0.5, "model.patch_norm": norm}
        metrics = {"val/accuracy": 0.8, "outliers/max_inf_norm": number, "quant/w4a8/accuracy": 0.6, "quant/w6a6/accuracy": 0.5}
        paper_runs.write_run(tmp_path / "W", f"relu_{norm}", settings, metrics)
    dots = drawing("outliers", tmp_path / "W")
    widths = ("W8A8 accuracy (%)", "W4A8 accuracy (%)", "W6A6 accuracy (%)")
    assert dots.columns == ("validation accuracy (%)", "max inf norm", "kurtosis", *widths)
    rows = dict(dots.rows)
    assert len(rows) == 18
    plain = next(cells for label, cells in rows.items() if "relu" in label and "patch_norm none" in label)
    assert plain == ((pytest.approx(80.0),), (12.0,), (), (), (pytest.approx(60.0),), (pytest.approx(50.0),))
    assert drawing("table7", tmp_path / "W").columns[3:] == ("W8A8 accuracy (%)",)  # of its own rows


def test_what_was_not_measured_is_told(papers, tmp_path):
    shutil.copytree(papers / "tables", tmp_path / "W")
    for folder in (tmp_path / "W").glob("*_seed1/quant"):
        shutil.rmtree(folder)
    dots = drawing("table7", tmp_path / "W")
    assert [len(cell) for cell in dots.rows[0][1]] == [2, 2, 2, 1]
    (line,) = dots.missing
    assert line.startswith("W8A8 accuracy (%): 16 done without quant/w8a8/accuracy, first row0_none_seed1")


def test_all_figures_are_written_with_their_numbers(papers):
    shown = report(*(papers / name for name in ("fig2", "fig1", "fig3", "fig4", "tables")), "--figure", "all")
    assert (shown.returncode, shown.stderr) == (0, "")
    folder = papers / "fig2" / "report"
    for name in ("fig1", "fig2", "fig3", "fig4", "table7", "table8"):
        for kind in ("png", "svg", "csv"):
            assert (folder / f"{name}.{kind}").stat().st_size > 100
    assert "Not drawn: init: no init_scale.csv: python -m vit_attn.analysis.init_scale --out" in shown.stdout
    rows = read(folder / "fig2.csv")
    (row,) = [r for r in rows if (r["panel"], r["series"], r["alpha"]) == ("imagenet21k  S/8", "relu", "1.0")]
    runs = values(papers / "fig2", h="relu", alpha=1.0, variant="S/8")
    assert (float(row["mean"]), int(row["seeds"])) == (pytest.approx(np.mean(runs)), 2)
    assert {int(r["seeds"]) for r in rows} == {0, 2}  # the first sweep and the second have runs in common
    (bad,) = [r for r in rows if r["diverged"] == "1"]
    assert (bad["series"], bad["alpha"], bad["mean"], bad["seeds"]) == ("relu2", "0.0", "", "0")
    assert all(r["core_hours_from"].startswith("speed/core_hours of status.json") for r in read(folder / "fig1.csv"))
    assert float(read(folder / "fig4_cost.csv")[0]["extra_core_hours_percent"]) == pytest.approx(9.3)


def test_runs_that_are_not_for_a_figure(papers, tmp_path):
    shutil.copytree(papers / "fig3", tmp_path / "W")
    for name in ("fig3", "fig4", "table7", "table8", "outliers", "init"):
        with pytest.raises(NotHere):
            drawing(name, tmp_path / "W")
    shown = report(tmp_path / "W", "--figure", "fig4")
    assert (shown.returncode, len(shown.stderr.splitlines())) == (2, 1)
    assert "--figure fig4: these runs are not for it: no h with an alpha both with and without a gate" in shown.stderr
    assert not (tmp_path / "W/report").exists()


def test_a_figure_or_metric_that_is_not_known(papers):
    wrong = report(papers / "fig2", "--figure", "fig5")
    assert wrong.returncode == 2
    assert "--figure: the figure 'fig5' is unknown" in wrong.stderr
    assert "(choices: fig1, fig2, fig3, fig4, table7, table8, outliers, init, all)" in wrong.stderr
    wrong = report(papers / "fig1", "--metric", "val/acuracy")
    assert wrong.returncode == 2
    assert "--metric: the metric 'val/acuracy' is unknown; did you mean 'val/accuracy'?" in wrong.stderr


def test_another_metric(papers):
    chart = drawing("fig1", papers / "fig1", metric="val/loss")
    assert chart.panels[0].y_label == "validation loss"
    assert {point.mean for series in chart.panels[0].series for point in series.points} == {1.0}
    assert drawing("fig1", papers / "fig1", metric="fewshot/mean_10shot").panels[0].y_label == "10-shot linear transfer (%)"


def test_members_that_are_not_finished_are_missing_from_their_figure(tmp_path):
    for alpha, state in ((0.0, "done"), (1.0, "waiting"), (2.0, "stopped")):
        paper_runs.member(tmp_path, "relu", "S/16", 0, alpha, state=state)
    chart = drawing("fig2", tmp_path)
    assert [point.x for point in chart.series[0].points] == [0.0]
    assert [line.partition(": ")[2] for line in chart.missing] == ["waiting", "stopped 100/100"]
    assert chart.tables[0].rows[0][-1].startswith("not enough points")


def test_init_is_drawn_from_the_file_of_init_scale(tmp_path):
    paper_runs.member(tmp_path, "relu", "S/16", 0, 1.0)
    head = "h,alpha,L,mean,std,mean_times_L,spread_of_mean,logit_std,qk_norm,seeds\n"
    lines = [f"relu,{a},{n},{0.4 * n**-a},0.1,{0.4 * n ** (1 - a)},0,1,head,1" for a in (0.0, 1.0) for n in (49, 196)]
    lines += [f"softmax,,{n},{1 / n},0.0,1.0,0,1,head,1" for n in (49, 196)]
    lines += [f"identity,1.0,{n},1e-9,0.1,1e-7,0,1,head,1" for n in (49, 196)]  # mean 0
    (tmp_path / "init_scale.csv").write_text(head + "\n".join(lines) + "\n")
    chart = drawing("init", tmp_path)
    assert [panel.title for panel in chart.panels] == ["α = 0", "α = 1"]
    assert [[series.label for series in panel.series] for panel in chart.panels] == [["relu", "softmax"]] * 2
    assert [point.mean for point in chart.panels[0].series[0].points] == pytest.approx([0.4 * 49, 0.4 * 196])
    assert report(tmp_path, "--figure", "init").returncode == 0
    assert (tmp_path / "report/init.png").exists()
