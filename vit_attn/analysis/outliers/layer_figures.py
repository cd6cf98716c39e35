"""Outliers by layer, hidden dimension, position and training step."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vit_attn.analysis.outliers.logged import Logged
from vit_attn.analysis.outliers.measure import LAST
from vit_attn.analysis.outliers.metrics import PREFIX, word_of
from vit_attn.analysis.outliers.results import Results
from vit_attn.spec.model import ModelSpec

BLOCK, MLP = "#0072B2", "#D55E00"  # told apart by the colour-blind
MAPS_A_ROW = 6
NAMED_DIMS = 3
COLOURS = "viridis"
TITLES = {
    "block": "output of the block (residual stream)",
    "ffn": "output of the MLP",
    "attention": "output of the attention",
    "norm_0": "LayerNorm before the attention",
    "norm_1": "LayerNorm before the MLP",
    LAST: "last LayerNorm",
}
OVER_STEPS = {"block_inf_norm": "infinity norm", "block_kurtosis": "kurtosis", "outlier_share": "share of outliers"}


def empty_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    FigureCanvasAgg(figure)
    return figure


def draw_outliers(run: str, model: ModelSpec, results: Results) -> Figure:
    """Infinity norms by layer, and where the outliers of all blocks are: Figure 9 of arXiv:2306.12929."""
    figure, counts = empty_figure(12.0, 4.3), results.statistics.outliers["block"]
    norms, dims, place = figure.subplots(1, 3, width_ratios=(1.0, 1.25, 0.95))
    _norms(norms, results.metrics, len(counts.by_dim))
    _dims(dims, counts.by_dim.sum(axis=0))
    _place(figure, place, model, counts.by_token.sum(axis=0))
    share = results.metrics[f"{PREFIX}/share"]
    figure.suptitle(f"{run}\noutliers (beyond 6 std) of the blocks' outputs: {_percent(share)} of all numbers", fontsize=12)
    return figure


def draw_maps(run: str, model: ModelSpec, results: Results) -> Figure:
    """Where in the image they are: a map a block."""
    outliers = results.statistics.outliers["block"]
    depth, images = model.depth, max(outliers.images, 1)
    columns = min(depth, MAPS_A_ROW)
    lines = math.ceil(depth / columns)
    figure = empty_figure(max(1.9 * columns, 5.0) + 1.2, 1.0 + 2.1 * lines)
    axes = figure.subplots(lines, columns, squeeze=False)
    maps = [_patches(model, counts / images) for counts in outliers.by_token]
    scale = Normalize(0, float(np.max(maps)) or 1.0)
    for layer, axis in enumerate(axes.flat):
        axis.set_axis_off()
        if layer < depth:
            axis.imshow(maps[layer], cmap=COLOURS, norm=scale)
            share = results.metrics[f"{PREFIX}/share/layer_{layer:02d}"]
            cls = f"\nCLS {outliers.by_token[layer, 0] / images:.3g}" if model.pool == "tok" else ""
            axis.set_title(f"block {layer}: {_percent(share)}{cls}", fontsize=10)
    figure.colorbar(ScalarMappable(scale, COLOURS), ax=axes, label="outliers of a patch\nin an image, on average", shrink=0.9)
    figure.suptitle(f"{run}\noutliers of each block's output, as a share of its numbers", fontsize=12)
    return figure


def draw_dims(run: str, results: Results) -> Figure:
    """In which hidden dimensions they are: a panel a tensor, a row a layer, dots with the area of a share of the layer's."""
    outliers = results.statistics.outliers
    depth = len(outliers["block"].by_dim)
    heights = [0.8 + 0.2 * len(outliers[family].by_dim) for family in TITLES]
    figure = empty_figure(10.0, 1.4 + sum(heights))
    axes = figure.subplots(len(outliers), 1, sharex=True, height_ratios=heights)
    for axis, (family, title) in zip(axes, TITLES.items(), strict=True):
        share = results.metrics[f"{PREFIX}/{word_of(family)}share"]
        axis.set_title(f"{title}: {_percent(share)} of its numbers", fontsize=11, loc="left")
        _dots(axis, outliers[family].by_dim, depth)
    axes[-1].set_xlabel("hidden dimension")
    figure.suptitle(f"{run}\noutliers by dimension; the area of a dot is its share of the layer's", fontsize=12)
    return figure


def draw_steps(run: str, logged: Logged) -> Figure:
    """A panel a quantity, a line a block."""
    figure = empty_figure(1.0 + 4.4 * len(logged.by_layer), 4.2)
    axes = figure.subplots(1, len(logged.by_layer), squeeze=False)[0]
    layers = next(iter(logged.by_layer.values())).shape[1]
    dark = ListedColormap(colormaps[COLOURS](np.linspace(0, 0.88, 256)))  # its yellow is too faint for a line
    colours: Any = ScalarMappable(Normalize(0, max(layers - 1, 1)), dark)
    for axis, (quantity, values) in zip(axes, logged.by_layer.items(), strict=True):
        for layer in range(layers):
            axis.plot(logged.steps, values[:, layer], color=colours.to_rgba(layer), marker="o", markersize=3.5, linewidth=1.6)
        axis.set_xlabel("step")
        axis.set_title(OVER_STEPS[quantity], fontsize=11)
        axis.set_ylim(bottom=0)
        _tidy(axis)
    figure.colorbar(colours, ax=axes, label="block", ticks=MaxNLocator(integer=True, nbins=6))
    figure.suptitle(f"{run.rpartition(', ')[0]}\nblocks' outputs, as {logged.evaluator} has logged them", fontsize=12)
    return figure


def _norms(axis: Axes, metrics: dict[str, float], depth: int) -> None:
    for family, label, colour, marker in (("block", "block", BLOCK, "o"), ("ffn", "its MLP", MLP, "s")):
        values = [metrics[f"{PREFIX}/{family}_inf_norm/layer_{layer:02d}"] for layer in range(depth)]
        axis.plot(
            range(depth),
            values,
            color=colour,
            marker=marker,
            markersize=5,
            label=f"output of the {label}".replace("the its", "its"),
        )
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylim(bottom=0)
    axis.set_xlabel("block")
    axis.set_ylabel("infinity norm, mean over images")
    axis.legend(frameon=False, fontsize=10)
    _tidy(axis)


def _dims(axis: Axes, counts: np.ndarray) -> None:
    """Shares of all outliers, the largest of them named."""
    shares = 100 * counts / max(counts.sum(), 1)
    axis.vlines(np.arange(len(shares)), 0, shares, color=BLOCK, linewidth=1.5)
    axis.set_xlim(-0.02 * len(shares), 1.02 * len(shares))
    axis.set_ylim(0, 1.15 * shares.max() or 100)
    for dim in np.argsort(-shares, kind="stable")[:NAMED_DIMS]:
        if shares[dim]:
            axis.annotate(f"{dim}", (dim, shares[dim]), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=10)
    if not counts.any():
        _none(axis)
    axis.set_xlabel("hidden dimension")
    axis.set_ylabel("share of the outliers (%)")
    _tidy(axis)


def _place(figure: Figure, axis: Axes, model: ModelSpec, counts: np.ndarray) -> None:
    shares = 100 * counts / max(counts.sum(), 1)
    patches = _patches(model, shares)
    drawn = axis.imshow(patches, cmap=COLOURS, vmin=0, vmax=float(patches.max()) or 1.0)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel(f"patch of the image\nCLS token: {shares[0]:.3g} %" if model.pool == "tok" else "patch of the image")
    if counts.any():
        figure.colorbar(drawn, ax=axis, label="share of the outliers (%)", shrink=0.85)
    else:
        _none(axis, "white")


def _dots(axis: Axes, by_dim: Int[np.ndarray, "layers D"], depth: int) -> None:
    shares = by_dim / np.maximum(by_dim.sum(axis=1, keepdims=True), 1)
    layers, dims = np.nonzero(shares)
    axis.scatter(dims, layers, s=120 * shares[layers, dims], color=BLOCK, alpha=0.6, linewidths=0, clip_on=False)
    axis.set_xlim(-0.02 * by_dim.shape[1], 1.02 * by_dim.shape[1])
    axis.set_ylim(len(by_dim) - 0.4, -0.6)
    if len(by_dim) == depth:
        axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axis.set_ylabel("block")
    else:
        axis.set_yticks([])
    if not by_dim.any():
        _none(axis)
    _tidy(axis)


def _patches(model: ModelSpec, tokens: np.ndarray) -> Float[np.ndarray, "side side"]:
    """As they lie in the image, without a CLS token."""
    side = model.image_size // model.patch
    return tokens[-(side**2) :].reshape(side, side)


def _none(axis: Axes, colour: str = "0.3") -> None:
    axis.text(0.5, 0.5, "no outliers", ha="center", va="center", transform=axis.transAxes, color=colour)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _tidy(axis: Axes) -> None:
    axis.grid(True, color="#E3E3E3", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
