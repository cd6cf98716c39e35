"""What travels from the host to the device."""

from typing import NotRequired, TypedDict

import numpy as np
from jaxtyping import Float32, Int32, UInt8


class Batch(TypedDict):
    """Decoded images of one size and their labels.

    `labels` has room for K labels an image; -1 stands for none. In training, `index` (in the split) and `epoch` say which
    examples these are; in evaluation, `mask` says which rows count (padding does not: 0).
    """

    image: UInt8[np.ndarray, "B Y X 3"]
    labels: Int32[np.ndarray, "B K"]
    index: NotRequired[Int32[np.ndarray, "B"]]
    epoch: NotRequired[Int32[np.ndarray, "B"]]
    mask: NotRequired[Float32[np.ndarray, "B"]]
