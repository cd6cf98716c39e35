"""The figures of one run, as .png and .svg."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from vit_attn.analysis.outliers import heads_figures, layer_figures
from vit_attn.analysis.outliers.logged import Logged
from vit_attn.analysis.outliers.results import Results
from vit_attn.analysis.outliers.sample import Sample
from vit_attn.report.figure import DOTS_AN_INCH, FONTS


def draw_all(out: Path, run: str, results: Results, sample: Sample, logged: Logged | None) -> None:
    model = sample.model
    form = model.attention.h + ("" if model.attention.gate == "none" else f", gate {model.attention.gate}")
    run = f"{run}, {form}, {results.statistics.images} images"
    of_heads = f"{run.rpartition(', ')[0]}: block {results.heads.layer}"
    with matplotlib.rc_context(FONTS):
        _save(layer_figures.draw_outliers(run, model, results), out / "outliers")
        _save(layer_figures.draw_maps(run, model, results), out / "by_token")
        _save(layer_figures.draw_dims(run, results), out / "by_dim")
        _save(heads_figures.draw_maps(of_heads, sample), out / "heads")
        _save(heads_figures.draw_matrices(of_heads, sample), out / "heads_matrices")
        if logged is not None:
            _save(layer_figures.draw_steps(run, logged), out / "over_steps")


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file.with_suffix(".png"), dpi=DOTS_AN_INCH)
    figure.savefig(file.with_suffix(".svg"), metadata={"Date": None})
