"""Heads on a few images: as maps over the patches, and as the matrices P, V and P V of arXiv:2306.12929."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vit_attn.analysis.outliers.layer_figures import COLOURS, empty_figure
from vit_attn.analysis.outliers.sample import Sample

MARK = "#FF3B30"  # of the tokens that have outliers
SIGNED = "RdBu_r"
FAINT, OPACITY = 0.35, 0.8
ROLES = {"owner": "owner", "reader": "reader", "focused": "most set on one token"}
Scale = tuple[Normalize, str]


def draw_maps(title: str, sample: Sample) -> Figure:
    """A row an image: the image; then for each patch attention received, its value's norm and its update's, a head (Fig. 3)."""
    names = ["attention weight · L,\nmean over queries", r"$|v_j|$ of the patch", f"$|{_update(sample)}|$ of the patch"]
    columns = [sample.received, sample.value_norms, sample.update_norms]
    heads, images = sample.heads.numbers, len(sample.indices)
    figure = empty_figure(2.4 + 2.6 * 3 * len(heads), 2.0 + 2.25 * images)
    axes = figure.subplots(images, 1 + 3 * len(heads), squeeze=False)
    axes[0, 0].set_title("image, and its index\nin the split", fontsize=11)
    for row, pixels in enumerate(sample.pixels):
        axes[row, 0].imshow(pixels, extent=_extent(sample))
        axes[row, 0].set_ylabel(str(sample.indices[row]), rotation=0, ha="right", va="center")
    for place in range(len(heads)):
        for column, (name, tokens) in enumerate(zip(names, columns, strict=True), 1 + 3 * place):
            scale, cmap = _scale(tokens[:, place], COLOURS)
            axes[0, column].set_title(_named(sample, place, name), fontsize=11)
            for row in range(images):
                _map(axes[row, column], sample, row, tokens[row, place], scale, cmap)
            figure.colorbar(ScalarMappable(scale, cmap), ax=axes[:, column], location="bottom", shrink=0.9, aspect=18, pad=0.02)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle(f"{title}\n{_told(sample)}", fontsize=12)
    return figure


def draw_matrices(title: str, sample: Sample) -> Figure:
    """A row an image: all weights, all values, and their product, behind the gate if there is one, a head (Figs 2 and 8)."""
    heads, images = sample.heads.numbers, len(sample.indices)
    figure = empty_figure(1.0 + 3.1 * 3 * len(heads), 2.0 + 2.6 * images)
    axes = figure.subplots(images, 3 * len(heads), squeeze=False)
    for place in range(len(heads)):
        _matrices(figure, axes[:, 3 * place : 3 * place + 3], sample, place)
    for row, index in enumerate(sample.indices):
        axes[row, 0].set_ylabel(f"image {index}\nquery i")
    figure.suptitle(f"{title}\n{_told(sample)}", fontsize=12)
    return figure


def _matrices(figure: Figure, axes: np.ndarray, sample: Sample, place: int) -> None:
    """Of one head, in three columns."""
    matrices = [matrix[:, place] for matrix in (sample.weights, sample.values, sample.updates)]
    scales = [_scale(matrix, cmap) for matrix, cmap in zip(matrices, ("magma", SIGNED, SIGNED), strict=True)]
    for row in range(len(axes)):
        for axis, matrix, (scale, cmap) in zip(axes[row], matrices, scales, strict=True):
            axis.imshow(matrix[row], cmap=cmap, norm=scale, aspect="auto", interpolation="nearest")
            axis.set_ylabel("token")
            axis.set_xlabel("channel of the head")
        axes[row, 0].set_ylabel("query i")
        axes[row, 0].set_xlabel("key j")
        for token in map(int, np.flatnonzero(sample.outliers[row] > 0)):
            for axis in axes[row]:
                _tick(axis, token, below=axis is axes[row, 0])
    for axis, name in zip(axes[0], ["attention weights", "values V", f"update ${_update(sample)}$"], strict=True):
        axis.set_title(_named(sample, place, name), fontsize=11)
    for column, (scale, cmap) in enumerate(scales):
        figure.colorbar(ScalarMappable(scale, cmap), ax=axes[:, column], location="bottom", aspect=22, pad=0.02)


def _named(sample: Sample, place: int, name: str) -> str:
    head = sample.heads.numbers[place]
    return f"head {head} ({' and '.join(ROLES[role] for role in sample.heads.roles(head))})\n{name}"


def _update(sample: Sample) -> str:
    gated = sample.model.attention.gate != "none"
    return r"g_i\,\Sigma_j\,w_{ij} v_j" if gated else r"\Sigma_j\,w_{ij} v_j"


def _told(sample: Sample) -> str:
    heads = sample.heads
    if heads.dim < 0:
        return "no outliers in front of any block"
    return (
        f"in red, tokens with outliers behind block {heads.layer - 1}, most of them in dimension {heads.dim};\n"
        "the owner has that dimension among its channels, the reader attends to those tokens most"
    )


def _extent(sample: Sample) -> tuple[float, float, float, float]:
    return (0, sample.model.image_size, sample.model.image_size, 0)


def _map(axis: Axes, sample: Sample, row: int, tokens: np.ndarray, scale: Normalize, cmap: str) -> None:
    patch = sample.model.patch
    side = sample.model.image_size // patch
    first = len(tokens) - side**2
    grey = 0.5 + FAINT * (sample.pixels[row].mean(axis=-1) / 255 - 0.5)
    axis.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=_extent(sample))
    over = tokens[first:].reshape(side, side)
    axis.imshow(over, cmap=cmap, norm=scale, alpha=OPACITY, interpolation="nearest", extent=_extent(sample))
    for token in np.flatnonzero(sample.outliers[row, first:] > 0):
        y, x = divmod(int(token), side)
        axis.add_patch(Rectangle((x * patch, y * patch), patch, patch, fill=False, edgecolor=MARK, linewidth=1.3))
    if first:
        axis.set_xlabel(f"CLS {tokens[0]:.3g}", fontsize=9, labelpad=2, color=MARK if sample.outliers[row, 0] > 0 else "black")


def _scale(values: np.ndarray, cmap: str) -> Scale:
    """From 0, or around 0 where some are negative, to the largest."""
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    signed = cmap == SIGNED or bool((values < 0).any())
    return Normalize(-largest if signed else 0.0, largest), SIGNED if signed else cmap


def _tick(axis: Axes, token: int, below: bool) -> None:
    """A mark at the edge of a matrix: at a key's column, or a token's row."""
    at = axis.get_xaxis_transform() if below else axis.get_yaxis_transform()
    x, y = (token, 0.0) if below else (0.0, token)
    axis.plot([x], [y], marker="^" if below else ">", markersize=5, color=MARK, transform=at, clip_on=False, linestyle="none")
