"""Does it matter to a trained model which decoder cut the images out of their JPEGs?

    python -m benchmarks.decoding_accuracy RUN_DIR [--images 2000]

RUN_DIR is a run of configs/quickstart.py. The validation images are enlarged sixteenfold, get the noise of a camera in all
three channels, and are stored as JPEGs (quality 90). A box around each is decoded by `decode_part`, and, as the plain path,
cut out of the image that Pillow decodes whole; both are shrunk in the same way to what the model takes.
"""

import argparse
import io

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from vit_attn.data.decode import decode
from vit_attn.data.part import decode_part
from vit_attn.data.sources.open import open_source
from vit_attn.data.views import whole_view
from vit_attn.interop.run import load_run

LARGER, MARGIN, NOISE = 16, 21, 12  # pixels a pixel; pixels of gray around the image; levels
BATCH = 500


def photograph(pixels: np.ndarray, seed: int) -> bytes:
    side = LARGER * len(pixels)
    framed = np.full((side + 2 * MARGIN, side + 2 * MARGIN, 3), 128.0)
    framed[MARGIN:-MARGIN, MARGIN:-MARGIN] = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_LINEAR)
    noisy = framed + np.random.default_rng(seed).normal(0, NOISE, framed.shape)
    encoded = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(encoded, "jpeg", quality=90)
    return encoded.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=2000)
    flags = parser.parse_args()
    run = load_run(flags.run)
    side = run.spec.model.image_size
    source = open_source(run.spec.data.split(run.spec.eval.split), None)
    box = (MARGIN, MARGIN, LARGER * side, LARGER * side)
    part = slice(MARGIN, MARGIN + LARGER * side)
    ours, plain, labels, levels = [], [], [], []
    for index in range(min(flags.images, len(source))):
        encoded = photograph(whole_view(source[index]["image"], side), index)
        shrink = lambda pixels: cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
        views = decode_part(encoded, box), decode(encoded)[part, part]
        levels.append(np.abs(views[0].astype(int) - views[1]).mean())
        ours.append(shrink(views[0]))
        plain.append(shrink(views[1]))
        labels.append(source[index]["labels"][0])
    found = [
        np.concatenate([run.predict(np.stack(views[at : at + BATCH])).argmax(-1) for at in range(0, len(views), BATCH)])
        for views in (ours, plain)
    ]
    table = Table("decoded by", "accuracy", title=f"{len(labels)} images, {flags.run} at step {run.step}", title_justify="left")
    for name, classes in zip(("ours, the box alone", "Pillow, whole"), found, strict=True):
        table.add_row(name, f"{np.mean(classes == np.array(labels)):.4f}")
    console = Console(width=110)
    console.print(table)
    shrunk = np.abs(np.stack(ours).astype(int) - np.stack(plain)).mean()
    changed = int((found[0] != found[1]).sum())
    console.print(f"{changed} images get another class; mean difference {np.mean(levels):.3f} levels, {shrunk:.3f} when shrunk")


if __name__ == "__main__":
    main()
