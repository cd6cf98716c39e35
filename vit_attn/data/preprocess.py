"""An encoded image -> pixels, on the host. What is random (crop, flip) happens later, on the device."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG")  # what TFDS stores


def decode(encoded: bytes, image_size: int) -> UInt8[np.ndarray, "{image_size} {image_size} 3"]:
    """The RGB pixels (0 to 255) of a PNG or JPEG; gray becomes three equal channels, transparency is dropped.

    An image of another size is resized to the square, bilinearly; its aspect ratio is not kept. Raises ValueError for
    bytes that are neither format, and what Pillow raises (OSError, SyntaxError and others) for a damaged image.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as opened:
            image = opened.convert("RGB")
    except UnidentifiedImageError as error:
        raise ValueError(f"these {len(encoded)} bytes are not an image of the format {' or '.join(FORMATS)}") from error
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(image)
