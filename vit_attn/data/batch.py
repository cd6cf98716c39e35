"""What travels from the host to the device."""

from typing import NotRequired, TypedDict

import numpy as np
from jaxtyping import Float32, Int32, UInt8


class Batch(TypedDict):
    """Decoded images of one size, their labels, and which of them count (padding does not: mask 0)."""

    image: UInt8[np.ndarray, "B Y X 3"]
    label: Int32[np.ndarray, "B"]
    mask: NotRequired[Float32[np.ndarray, "B"]]
