"""A folder of JPEG photographs at ImageNet's sizes, to measure input pipelines on.

    python -m benchmarks.photographs FOLDER [--images 400] [--seed 0]

The pictures are the wallpapers and sample photographs of some Debian packages, fetched with `apt-get download` and unpacked
(no root needed); where that does not work, the three photographs that scikit-learn and matplotlib ship. Each file is a random
part of a picture that was first shrunk so that its shorter side is 1 to 1.6 times the shorter side of the part: so it has the
detail of a photograph and not of a magnified one. Sides are drawn from `SHAPES`, quality from `QUALITIES`, chroma is 4:2:0
in half of them and 4:4:4 in the others. The licences are mixed: make the folder where it is needed, do not pass it on.
"""

import argparse
import io
import subprocess
import tempfile
from pathlib import Path

import matplotlib.cbook
import numpy as np
import sklearn.datasets
from PIL import Image

PACKAGES = ("opencv-doc", "mate-backgrounds", "plasma-workspace-wallpapers", "ukui-wallpapers", "lomiri-wallpapers-20.04")
SHAPES = (
    (375, 500),
    (375, 500),
    (500, 375),
    (333, 500),
    (500, 333),
    (334, 500),
    (400, 500),
    (480, 640),
    (281, 500),
    (500, 500),
)
QUALITIES = (92, 93, 94, 95, 96)
CHROMAS = ("4:2:0", "4:4:4")
SIDE_SPREAD = 0.15  # of the images have sides that are not in the table: 60 to 140 % of one that is
LEAST_DETAIL = 5.0  # mean difference of neighbouring pixels, in levels: less is flat sky
LEAST_SIDE = 600  # of a picture: smaller ones are icons and masks
APT_SECONDS = 400


def photographs(folder: Path, images: int = 400, seed: int = 0) -> list[bytes]:
    """The encoded photographs of `folder`, in order; makes `images` of them first where there are none."""
    if not list(folder.glob("*.jpg")):
        make(folder, images, seed)
    return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:images]]


def make(folder: Path, images: int, seed: int) -> None:
    """Writes 0000.jpg ... into `folder`, the same ones for the same pictures and seed."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as unpacked:
        sources = _from_packages(Path(unpacked)) or _shipped()
        for number in range(images):
            (folder / f"{number:04d}.jpg").write_bytes(_part(sources, number, rng))


def _part(sources: list[Path], number: int, rng: np.random.Generator) -> bytes:
    """Image `number`: a random part of a picture, which is another one if the first is flat."""
    height, width = SHAPES[rng.integers(len(SHAPES))]
    if rng.random() < SIDE_SPREAD:
        height, width = (int(side * rng.uniform(0.6, 1.4)) for side in (height, width))
    for attempt in range(len(sources)):
        with Image.open(sources[(number + attempt) % len(sources)]) as opened:
            zoom = rng.uniform(1, 1.6) * max(height / opened.height, width / opened.width)
            if zoom > 1:
                zoom = max(height / opened.height, width / opened.width)
            opened.draft("RGB", (2 * int(zoom * opened.width), 2 * int(zoom * opened.height)))
            size = (max(width, round(zoom * opened.width)), max(height, round(zoom * opened.height)))
            picture = opened.convert("RGB")
        small = np.asarray(picture.resize(size, Image.Resampling.LANCZOS))
        y, x = rng.integers(small.shape[0] - height + 1), rng.integers(small.shape[1] - width + 1)
        part = small[y : y + height, x : x + width]
        if np.abs(np.diff(part.astype(np.float32), axis=1)).mean() >= LEAST_DETAIL:
            break
    stream = io.BytesIO()
    chroma = CHROMAS[number % len(CHROMAS)]
    Image.fromarray(part).save(stream, "JPEG", quality=QUALITIES[rng.integers(len(QUALITIES))], subsampling=chroma)
    return stream.getvalue()


def _from_packages(unpacked: Path) -> list[Path]:
    """The pictures of the packages, unpacked; none where apt-get has no network or there is no apt-get."""
    for package in PACKAGES:
        try:
            command = ["apt-get", "download", "-qq", package]
            subprocess.run(command, cwd=unpacked, check=True, capture_output=True, timeout=APT_SECONDS)
        except (OSError, subprocess.SubprocessError):
            continue
    for archive in unpacked.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", archive, unpacked / archive.stem], check=True)
    return [path for path in sorted(unpacked.rglob("*")) if _is_photograph(path)]


def _is_photograph(path: Path) -> bool:
    if path.is_symlink() or path.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        return False
    try:
        with Image.open(path) as opened:
            return opened.mode in ("RGB", "RGBA") and min(opened.size) >= LEAST_SIDE
    except (OSError, ValueError, Image.DecompressionBombError):
        return False


def _shipped() -> list[Path]:
    """The photographs that come with scikit-learn and matplotlib."""
    folder = Path(sklearn.datasets.__file__).parent / "images"
    return [*sorted(folder.glob("*.jpg")), Path(str(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    encoded = photographs(flags.folder, flags.images, flags.seed)
    pixels = []
    for image in encoded:
        with Image.open(io.BytesIO(image)) as opened:
            pixels.append(opened.width * opened.height)
    print(f"{len(encoded)} photographs of {np.mean(pixels):.0f} pixels and {np.mean([len(e) for e in encoded]) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
