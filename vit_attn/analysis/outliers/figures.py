"""The figures of one run, as .png and .svg."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from vit_attn.analysis.outliers import head_figures, layer_figures
from vit_attn.analysis.outliers.logged import Logged
from vit_attn.analysis.outliers.results import Results
from vit_attn.analysis.outliers.sample import Sample
from vit_attn.report.figure import DOTS_AN_INCH, FONTS


def draw_all(out: Path, run: str, results: Results, sample: Sample, logged: Logged | None) -> None:
    model, head = sample.model, results.head
    form = model.attention.h + ("" if model.attention.gate == "none" else f", gate {model.attention.gate}")
    run = f"{run}, {form}, {results.statistics.images} images"
    of_head = f"{run.rpartition(', ')[0]}: block {head.layer}, head {head.head}"
    with matplotlib.rc_context(FONTS):
        _save(layer_figures.draw_outliers(run, model, results), out / "outliers")
        _save(layer_figures.draw_maps(run, model, results), out / "by_token")
        _save(layer_figures.draw_dims(run, results), out / "by_dim")
        _save(head_figures.draw_maps(of_head, sample), out / "head")
        _save(head_figures.draw_matrices(of_head, sample), out / "head_matrices")
        if logged is not None:
            _save(layer_figures.draw_steps(run, logged), out / "over_steps")


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file.with_suffix(".png"), dpi=DOTS_AN_INCH)
    figure.savefig(file.with_suffix(".svg"), metadata={"Date": None})
