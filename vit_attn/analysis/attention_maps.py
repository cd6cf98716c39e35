"""Heat maps of attention over images: where the heads of a trained run look.

python -m vit_attn.analysis.attention_maps runs/one
python -m vit_attn.analysis.attention_maps runs/one --images 4 --layers 0,3,7 --queries one --out runs/one/maps

Takes the newest checkpoint of a run and the first images of its validation split. A map shows, for one layer and head, the
attention weight that each token receives, times the number of tokens L: averaged over all queries, or of one query (the CLS
token, or, where the model has none, the patch at the centre). 1 is a uniform softmax. Writes attention_maps.png and, with
every number of it, attention_maps.csv.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy
from jaxtyping import Float, UInt8

from vit_attn.spec.errors import UserError, exit_code_of, unknown
from vit_attn.spec.flags import Flags
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.run import RunSpec, knobs_of
from vit_attn.store.run_dir import RunDir

with epy.lazy_imports():  # so that --help and mistakes do not wait for jax
    import jax

    from vit_attn.data import passes, pipeline, workers
    from vit_attn.data.sources import open as sources
    from vit_attn.models import vit
    from vit_attn.ops.augment import pixels as values
    from vit_attn.train import saved

MOST_IMAGES = 64
DEFAULT_LAYERS = 3  # the first, the middle and the last one
QUERIES = ("all", "one")


@dataclass(frozen=True)
class AttentionMaps:
    """Attention weights times L that tokens receive."""

    model: ModelSpec
    layers: Sequence[int]
    query: int | None  # a position of the sequence; None: the mean over all
    pixels: UInt8[np.ndarray, "N Y X 3"]
    received: Float[np.ndarray, "N layers H L"]

    @property
    def cls(self) -> Float[np.ndarray, "N layers H"] | None:
        """What the CLS token receives; None where there is none."""
        return self.received[..., 0] if self.model.pool == "tok" else None

    @property
    def patches(self) -> Float[np.ndarray, "N layers H side side"]:
        """What the patches receive, as they lie in the image."""
        side = self.model.image_size // self.model.patch
        return self.received[..., -(side**2) :].reshape(*self.received.shape[:-1], side, side)


def main(argv: Sequence[str]) -> int:
    """The command line. Raises UserError for a wrong flag or a directory without a run, before anything is created."""
    flags = _flags().parse_args(argv)
    run_dir = RunDir(flags.run)
    spec = run_dir.spec() if flags.run.is_dir() else None
    if spec is None:
        raise UserError(f"{flags.run} is not the directory of a run: it has no config.json")
    images, layers = _images(flags.images), _layers(flags.layers, spec.model.depth)
    if flags.queries not in QUERIES:
        raise unknown("--queries: the value", flags.queries, QUERIES)
    out = flags.out or run_dir.path / "attention_maps"
    step, params = saved.saved_params(run_dir, spec)
    query = query_of(spec.model) if flags.queries == "one" else None
    maps = measure(spec, params, first_images(spec, images), layers, query)

    from vit_attn.analysis.attention_maps_figure import picture

    title = f"run {run_dir.path.resolve().name}, step {step}, h = {spec.model.attention.h}"
    _write(out, maps, picture(maps, title))
    print(f"wrote attention_maps.png and attention_maps.csv to {out}: {len(maps.pixels)} images, layers {_joined(layers)}")
    return 0


def _flags() -> Flags:
    parser = Flags("vit_attn.analysis.attention_maps", __doc__)
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="the directory of a run that has saved a checkpoint")
    parser.add_argument(
        "--images", default="2", metavar="N", help="of the validation split, from its start; default: %(default)s"
    )
    parser.add_argument("--layers", metavar="I,J,...", help="from 0; default: the first, the middle and the last one")
    parser.add_argument("--queries", default="all", help="all: their mean; one: CLS or centre patch; default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: RUN_DIR/attention_maps")
    return parser


def _joined(layers: Sequence[int]) -> str:
    return ",".join(str(layer) for layer in layers)


def _images(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_IMAGES:
        raise UserError(f"--images: {text!r} is not a whole number from 1 to {MOST_IMAGES}")
    return int(text)


def _layers(text: str | None, depth: int) -> list[int]:
    """Each once, in the order given."""
    if text is None:
        return sorted({round(part * (depth - 1) / (DEFAULT_LAYERS - 1)) for part in range(DEFAULT_LAYERS)})
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part.isdecimal() or int(part) >= depth:
            raise UserError(f"--layers: {part!r} is not a layer of this run: they are 0 to {depth - 1}")
    return list(dict.fromkeys(int(part) for part in parts))


def query_of(model: ModelSpec) -> int:
    """The position of the CLS token, or else of the patch at the centre (below and right of it, where four meet there)."""
    side = model.image_size // model.patch
    return 0 if model.pool == "tok" else (side // 2) * side + side // 2


def first_images(spec: RunSpec, images: int) -> UInt8[np.ndarray, "N Y X 3"]:
    """Of the validation split, as config.eval has them."""
    data, e = spec.data, spec.eval
    source = sources.open_source(
        data.split(e.split), spec.model.num_classes, stream_window=data.stream_window, timeout_seconds=data.timeout_seconds
    )
    images = min(images, len(source))
    view: Any = passes.View(spec.model.image_size, e.resize, e.resize_pixels, e.resize_method)  # type: ignore[arg-type]
    one, crew = passes.Pass(source, view, images, range(images), data.max_labels), workers.Workers(0, data.threads)
    with closing(crew), closing(pipeline.pass_batches(data, one, crew)) as batches:
        batch = next(batches)
    return batch["image"][batch["mask"] > 0]


def measure(
    spec: RunSpec, params: Any, pixels: UInt8[np.ndarray, "N Y X 3"], layers: Sequence[int], query: int | None
) -> AttentionMaps:
    """One image at a time: their weights may be large."""

    def received(params: Any, numbers: Any, pixels: Any) -> Any:
        _, found = vit.ViT(spec.model).apply({"params": params}, values.normalize(pixels), numbers, mutable=["weights"])
        blocks = found["weights"]["Transformer"]
        weights = [blocks[f"encoderblock_{layer}"]["MultiHeadDotProductAttention_0"]["weights"][0] for layer in layers]
        return [(w.mean(axis=1) if query is None else w[:, query]) * w.shape[-1] for w in weights]

    compiled, numbers = jax.jit(received), knobs_of(spec).attention
    found = [np.asarray(jax.device_get(compiled(params, numbers, pixels[i : i + 1]))) for i in range(len(pixels))]
    return AttentionMaps(spec.model, layers, query, pixels, np.stack(found))


def _write(out: Path, maps: AttentionMaps, drawn: bytes) -> None:
    side = maps.model.image_size // maps.model.patch
    first = maps.received.shape[-1] - side**2  # 1 behind a CLS token
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "attention_maps.png").write_bytes(drawn)
        with open(out / "attention_maps.csv", "w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["image", "layer", "head", "token", "row", "column", "weight_times_L"])
            for (image, place, head, token), value in np.ndenumerate(maps.received):
                where = divmod(token - first, side) if token >= first else ("", "")
                writer.writerow([image, maps.layers[place], head, token, *where, value])
    except OSError as error:
        raise UserError(f"--out={out}: {error}") from error


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:])))
