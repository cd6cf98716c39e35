"""One head on a few images: as maps over the patches, and as the matrices P, V and P V of arXiv:2306.12929."""

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


def draw_maps(title: str, sample: Sample) -> Figure:
    """A row an image: the image, then for each patch attention received, the norm of its value, and of its update (Fig. 3)."""
    names = [
        "image, and its index\nin the split",
        "attention weight · L,\nmean over queries",
        r"$|v_j|$ of the patch",
        f"$|{_update(sample)}|$ of the patch",
    ]
    columns = [sample.received, sample.value_norms, sample.update_norms]
    figure = empty_figure(10.2, 1.7 + 2.25 * len(sample.indices))
    axes = figure.subplots(len(sample.indices), len(names), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name, fontsize=11)
    for row, pixels in enumerate(sample.pixels):
        axes[row, 0].imshow(pixels, extent=_extent(sample))
        axes[row, 0].set_ylabel(str(sample.indices[row]), rotation=0, ha="right", va="center")
    for place, tokens in enumerate(columns, 1):
        scale, cmap = _scale(tokens, COLOURS)
        for row in range(len(sample.indices)):
            _map(axes[row, place], sample, row, tokens[row], scale, cmap)
        figure.colorbar(ScalarMappable(scale, cmap), ax=axes[:, place], location="bottom", shrink=0.9, aspect=18, pad=0.02)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle(f"{title}\n{_told(sample)}", fontsize=12)
    return figure


def draw_matrices(title: str, sample: Sample) -> Figure:
    """A row an image: all weights, all values, and their product, behind the gate if there is one (Figs 2 and 8)."""
    names = ["attention weights", "values V", f"update ${_update(sample)}$"]
    figure = empty_figure(10.2, 1.7 + 2.6 * len(sample.indices))
    axes = figure.subplots(len(sample.indices), len(names), squeeze=False)
    scales = [
        _scale(sample.weights, "magma"),
        *[_scale(np.concatenate([sample.values, sample.updates]), SIGNED, both=True)] * 2,
    ]
    for row, index in enumerate(sample.indices):
        for axis, matrix, (scale, cmap) in zip(axes[row], (sample.weights, sample.values, sample.updates), scales, strict=True):
            axis.imshow(matrix[row], cmap=cmap, norm=scale, aspect="auto", interpolation="nearest")
            axis.set_ylabel("token")
            axis.set_xlabel("channel of the head")
        axes[row, 0].set_ylabel(f"image {index}\nquery i")
        axes[row, 0].set_xlabel("key j")
        for token in map(int, np.flatnonzero(sample.outliers[row] > 0)):
            _tick(axes[row, 0], token, below=True)
            _tick(axes[row, 1], token, below=False)
            _tick(axes[row, 2], token, below=False)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name, fontsize=11)
    figure.colorbar(ScalarMappable(*scales[0]), ax=axes[:, 0], location="bottom", aspect=22, pad=0.02)
    figure.colorbar(ScalarMappable(*scales[1]), ax=axes[:, 1:], location="bottom", aspect=45, pad=0.02)
    figure.suptitle(f"{title}\n{_told(sample)}", fontsize=12)
    return figure


def _update(sample: Sample) -> str:
    gated = sample.model.attention.gate != "none"
    return r"g_i\,\Sigma_j\,w_{ij} v_j" if gated else r"\Sigma_j\,w_{ij} v_j"


def _told(sample: Sample) -> str:
    head = sample.head
    if head.dim < 0:
        return "no outliers in front of any block: the head most set on one token"
    return f"in red, tokens with outliers behind block {head.layer - 1}, most of them in dimension {head.dim}"


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


def _scale(values: np.ndarray, cmap: str, both: bool = False) -> tuple[Normalize, str]:
    """From 0, or around 0 where some are negative, to the largest."""
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    signed = both or bool((values < 0).any())
    return Normalize(-largest if signed else 0.0, largest), SIGNED if signed else cmap


def _tick(axis: Axes, token: int, below: bool) -> None:
    """A mark at the edge of a matrix: at a key's column, or a token's row."""
    at = axis.get_xaxis_transform() if below else axis.get_yaxis_transform()
    x, y = (token, 0.0) if below else (0.0, token)
    axis.plot([x], [y], marker="^" if below else ">", markersize=5, color=MARK, transform=at, clip_on=False, linestyle="none")
