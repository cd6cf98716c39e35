"""A pass: the wanted examples of a split, each once and in order, as evaluation sees them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from vit_attn.data.sources.source import Source
from vit_attn.data.views import Fit, Method, eval_view, whole_view

WHOLE_TO_CENTRE = 256 / 224  # of the sides of a resized image to those of what is cut out of it


@dataclass(frozen=True)
class View:
    """An encoded image -> image_size x image_size pixels: resized, then the centre cut out (see config.eval)."""

    image_size: int
    resize: Fit = "square"
    resize_pixels: int = 0  # 0: image_size for square, 256/224 of it for small
    method: Method = "bilinear"

    def __call__(self, encoded: bytes) -> UInt8[np.ndarray, "Y X 3"]:
        """Raises BadImageError."""
        if self.resize == "square" and self.resize_pixels in (0, self.image_size):
            return whole_view(encoded, self.image_size)
        pixels = self.resize_pixels or round(WHOLE_TO_CENTRE * self.image_size)
        return eval_view(encoded, self.image_size, self.resize, pixels, self.method)


@dataclass(frozen=True)
class Pass:
    source: Source
    view: View
    batch_images: int  # over all hosts
    indices: Sequence[int]  # in the split
    max_labels: int = 1
    num_classes: int | None = None  # None: any label
