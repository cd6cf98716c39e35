"""What post-training quantization has measured of a run: RUN/quant/*/results.json."""

import json
import sys
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from vit_attn.spec.errors import UserError
from vit_attn.spec.quant import QuantSpec, as_values, resolve_quant, told

Key = TypeVar("Key", bound=Hashable)


class Quantized(NamedTuple):
    """`accuracies`: of each calibration subset, in percent, of the best estimator."""

    file: Path
    accuracies: list[float]
    spec: QuantSpec
    how: str


def quantized_of(run: Path, step: int) -> dict[str, Quantized]:
    """By name, as "w8a8", at this step: results of another one are left out, and said. UserError for a broken file."""
    found = {}
    for file in sorted((run / "quant").glob("*/results.json")):
        try:
            results = json.loads(file.read_text())
            if results["step"] != step:
                _note(file, f"it is of step {results['step']}, the run is at {step}")
                continue
            repeats = results["estimators"][results["best"]]["repeats"]
            accuracies = [100 * float(one["accuracy"]) for one in repeats]
            spec = resolve_quant(results["config"])
            best = f"{'the best of ' if len(spec.measured) > 1 else ''}{', '.join(spec.measured)}"
            how = told(spec, best, results["calibration_split"], results["excluded"])
            found[file.parent.name] = Quantized(file, accuracies, spec, how)
        except (OSError, ValueError, KeyError, TypeError, UserError) as error:
            raise UserError(f"{file} cannot be read: {type(error).__name__}: {error}") from error
    return found


def alike(quantized: Mapping[Key, Mapping[str, Quantized]]) -> dict[Key, dict[str, Quantized]]:
    """Without those whose settings are not those of the first run that has the name: their mean would mean nothing."""
    first: dict[str, Quantized] = {}
    kept: dict[Key, dict[str, Quantized]] = {key: {} for key in quantized}
    for key, several in quantized.items():
        for name, one in several.items():
            here, there = as_values(one.spec), as_values(first.setdefault(name, one).spec)
            if different := [f"{s}: {here[s]!r} here, {there[s]!r} there" for s in here if here[s] != there[s]]:
                _note(one.file, f"its settings are not those of {first[name].file}: {'; '.join(different)}")
            else:
                kept[key][name] = one
    return kept


def _note(file: Path, why: str) -> None:
    print(f"note: {file} is left out: {why}", file=sys.stderr)
