"""What is found in a run, as files: outliers.json, layers.csv, by_dim.csv, by_token.csv, heads.csv."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vit_attn.analysis.outliers.measure import ATTENTION, FAMILIES, LAST
from vit_attn.analysis.outliers.metrics import PREFIX
from vit_attn.analysis.outliers.results import Results
from vit_attn.analysis.outliers.sample import Sample
from vit_attn.analysis.outliers.summary import COLUMNS
from vit_attn.spec.model import ModelSpec
from vit_attn.spec.run import RunSpec
from vit_attn.store.run_dir import differences, read_json, write_json

RESULTS = "outliers.json"
NAMES = {"MlpBlock_0": "mlp", ATTENTION: "attention"}
Row = Sequence[Any]


def read_metrics(out: Path, spec: RunSpec, step: int, split: str, images: int) -> dict[str, float] | None:
    """Of results that are there already, of the same run, checkpoint and images. Raises UserError for a broken file."""
    found = read_json(out / RESULTS) or {}
    metrics: dict[str, float] = found.get("metrics", {})
    if "run_config" not in found or differences(found["run_config"], asdict(spec)):
        return None
    same = {"step": step, "split": split, "images": images}
    return metrics if found.items() >= same.items() and metrics.keys() >= {f"{PREFIX}/{name}" for name in COLUMNS} else None


def write(out: Path, run: Path, spec: RunSpec, results: Results, sample: Sample) -> None:
    """outliers.json comes last: where it is, the tables are, and the figures if they were drawn before."""
    outliers = results.statistics.outliers
    _table(out / "layers.csv", ["tensor", "layer", "inf_norm", "kurtosis"], _of_layers(results.metrics, sample.model.depth))
    dims = _counted({family: of.by_dim for family, of in outliers.items()})
    _table(out / "by_dim.csv", ["tensor", "layer", "dim", "outliers"], dims)
    tokens = _counted({family: of.by_token for family, of in outliers.items()})
    rows = ([family, layer, token, *place_of(sample.model, token), count] for family, layer, token, count in tokens)
    _table(out / "by_token.csv", ["tensor", "layer", "token", "row", "column", "outliers"], rows)
    columns = ["head", "image", "token", "row", "column", "outliers", "weight_times_L", "value_norm", "update_norm"]
    _table(out / "heads.csv", columns, _of_tokens(sample))
    write_json(out / RESULTS, values_of(run, spec, results, sample.indices))


def values_of(run: Path, spec: RunSpec, results: Results, sample_images: list[int]) -> dict[str, Any]:
    """`metrics` are flat, for reports; the rest says what they are of."""
    heads = results.heads
    return {
        "run": str(run),
        "run_config": asdict(spec),
        "step": results.step,
        "split": results.split,
        "images": results.statistics.images,
        "tensors": {
            family: "/".join(["encoderblock_I", *(NAMES.get(part, part) for part in path)]) for family, path in FAMILIES.items()
        }
        | {LAST: LAST},
        "heads": {"layer": heads.layer, "dim": heads.dim, **heads.by_role, "rule": heads.rule},
        "sample_images": sample_images,
        "metrics": results.metrics,
    }


def _counted(counts: dict[str, np.ndarray]) -> Iterable[tuple[str, int | str, int, int]]:
    """(tensor, layer, index, count), where there are any."""
    for family, of in counts.items():
        for layer, index in np.argwhere(of):
            yield family, "" if family == LAST else int(layer), int(index), int(of[layer, index])


def place_of(model: ModelSpec, token: int) -> tuple[int, int] | tuple[str, str]:
    """(row, column) of its patch; empty for a CLS token."""
    side = model.image_size // model.patch
    patch = token - (model.length - side**2)
    return divmod(patch, side) if patch >= 0 else ("", "")


def _of_layers(metrics: dict[str, float], layers: int) -> Iterable[Row]:
    for family in FAMILIES:
        for layer in range(layers):
            of = [metrics[f"{PREFIX}/{family}_{quantity}/layer_{layer:02d}"] for quantity in ("inf_norm", "kurtosis")]
            yield [family, layer, *of]
    yield [LAST, "", *(metrics[f"{PREFIX}/{LAST}_{quantity}"] for quantity in ("inf_norm", "kurtosis"))]


def _of_tokens(sample: Sample) -> Iterable[Row]:
    columns = (sample.received, sample.value_norms, sample.update_norms)
    for number, head in enumerate(sample.heads.numbers):
        for place, token in np.ndindex(sample.outliers.shape):
            count = sample.outliers[place, token]
            where = [head, sample.indices[place], token, *place_of(sample.model, token), "" if count < 0 else count]
            yield [*where, *(column[place, number, token] for column in columns)]


def _table(file: Path, head: Row, rows: Iterable[Row]) -> None:
    with open(file, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(head)
        writer.writerows(rows)
