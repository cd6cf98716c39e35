"""The figure: a row for each image and layer, with the image and a map for each head, on one scale of colours a row."""

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vit_attn.analysis.attention_maps import AttentionMaps
from vit_attn.report.figure import DOTS_AN_INCH, FONTS

POSITIVE, SIGNED = "viridis", "PuOr"  # both are read by the colour-blind; the second one where weights may be negative
OPACITY = 0.75  # of a map, so that the image shows through; on the same grey the scale is drawn
FAINT = 0.4  # contrast of the image below a map, so that a colour means nearly the same on black and on white
PANEL = 1.35  # inches


def picture(maps: AttentionMaps, title: str) -> bytes:
    """The figure as a .png file."""
    with matplotlib.rc_context(FONTS):
        file = io.BytesIO()
        draw(maps, title).savefig(file, format="png", dpi=DOTS_AN_INCH)
        return file.getvalue()


def draw(maps: AttentionMaps, title: str) -> Figure:
    images, layers, heads = maps.received.shape[:3]
    figure = Figure(figsize=(2.0 + PANEL * (1 + heads), 1.3 + (PANEL + 0.15) * images * layers))
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03)
    FigureCanvasAgg(figure)
    axes = figure.subplots(images * layers, 1 + heads, squeeze=False)
    for row, (image, place) in enumerate(np.ndindex(images, layers)):
        _draw_row(figure, list(axes[row]), maps, image, place)
    for axis, name in zip(axes[0], ["image", *(f"head {head}" for head in range(heads))], strict=True):
        axis.set_title(name)
    figure.suptitle(f"{title}\nattention weight · L that each token receives,\n{_whose(maps)}", fontsize=12)
    return figure


def _whose(maps: AttentionMaps) -> str:
    if maps.query is None:
        return "mean over all queries"
    return "from the CLS token" if maps.cls is not None else "from the patch in the frame"


def _draw_row(figure: Figure, axes: list[Axes], maps: AttentionMaps, image: int, place: int) -> None:
    size = maps.model.image_size
    scale, cmap = _colours(maps.patches[image, place])
    grey = 0.5 + FAINT * (maps.pixels[image].mean(axis=-1) / 255 - 0.5)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0].imshow(maps.pixels[image], extent=(0, size, size, 0))
    axes[0].set_ylabel(f"image {image}\nlayer {maps.layers[place]}")
    for head, axis in enumerate(axes[1:]):
        axis.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=(0, size, size, 0))
        over: Any = {"extent": (0, size, size, 0), "alpha": OPACITY, "interpolation": "nearest"}
        axis.imshow(maps.patches[image, place, head], cmap=cmap, norm=scale, **over)
        if maps.cls is not None:
            axis.set_xlabel(f"CLS {maps.cls[image, place, head]:.3g}", fontsize=9, labelpad=2)
        elif maps.query is not None:
            _frame(axis, maps)
    bar = figure.colorbar(ScalarMappable(scale, cmap), ax=axes, fraction=0.05, pad=0.01, aspect=12, alpha=OPACITY)
    bar.ax.set_facecolor("0.5")
    bar.ax.tick_params(labelsize=9)


def _colours(values: np.ndarray) -> tuple[Normalize, str]:
    """From 0, or around 0 where some are negative, to the largest of the row's maps."""
    largest = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    signed = bool((values < 0).any())
    return Normalize(-largest if signed else 0.0, largest), SIGNED if signed else POSITIVE


def _frame(axis: Axes, maps: AttentionMaps) -> None:
    patch = maps.model.patch
    row, column = divmod(int(maps.query or 0), maps.model.image_size // patch)
    axis.add_patch(Rectangle((column * patch, row * patch), patch, patch, fill=False, edgecolor="#D55E00", linewidth=1.8))
