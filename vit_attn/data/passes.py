"""A pass: the wanted examples of a split, each once and in order, as evaluation sees them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from vit_attn.data.sources.source import Source
from vit_attn.data.views import eval_view


@dataclass(frozen=True)
class View:
    """An encoded image -> image_size x image_size pixels: resized (see config.eval), then the centre cut out."""

    image_size: int
    resize: str
    resize_pixels: int
    method: str

    def __call__(self, encoded: bytes) -> UInt8[np.ndarray, "Y X 3"]:
        return eval_view(encoded, self.image_size, self.resize, self.resize_pixels, self.method)


@dataclass(frozen=True)
class Pass:
    source: Source
    view: View
    batch_images: int  # over all hosts
    indices: Sequence[int]  # in the split
    max_labels: int = 1
    num_classes: int | None = None  # None: any label
