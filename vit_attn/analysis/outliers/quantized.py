"""What post-training quantization has measured of a run: RUN/quant/*/results.json."""

import json
import sys
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from vit_attn.spec.errors import UserError

Key = TypeVar("Key", bound=Hashable)


class Quantized(NamedTuple):
    """`accuracies`: of each calibration subset, in percent, of the best estimator. `config`: as vit_attn/spec/quant.py."""

    file: Path
    accuracies: list[float]
    config: dict[str, Any]
    split: str
    excluded: list[str]

    @property
    def how(self) -> str:
        """ "running_min_max on 3 x 16 x 32 images of 'train'; weights min_max, a range a tensor; excluded: nothing"."""
        of = self.config
        best = "the best of " if len(of["estimators"]) > 1 or "all" in of["estimators"] else ""
        images = f"{of['repeats']} x {of['batches']} x {of['batch_images']} images of {self.split!r}"
        weights = f"weights {of['weight_estimator']}, a range {'a channel' if of['per_channel'] else 'a tensor'}"
        return f"{best}{', '.join(of['estimators'])} on {images}; {weights}; excluded: {', '.join(self.excluded) or 'nothing'}"


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
            found[file.parent.name] = Quantized(
                file, accuracies, results["config"], results["calibration_split"], results["excluded"]
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file} cannot be read: {type(error).__name__}: {error}") from error
    return found


def alike(quantized: Mapping[Key, Mapping[str, Quantized]]) -> dict[Key, dict[str, Quantized]]:
    """Without those whose settings are not those of the first run that has the name: their mean would mean nothing."""
    first: dict[str, Quantized] = {}
    kept: dict[Key, dict[str, Quantized]] = {key: {} for key in quantized}
    for key, several in quantized.items():
        for name, one in several.items():
            there = first.setdefault(name, one).config
            if different := [setting for setting in {**there, **one.config} if there.get(setting) != one.config.get(setting)]:
                told = "; ".join(f"{s}: {one.config.get(s)!r} here, {there.get(s)!r} there" for s in different)
                _note(one.file, f"its settings are not those of {first[name].file}: {told}")
            else:
                kept[key][name] = one
    return kept


def _note(file: Path, why: str) -> None:
    print(f"note: {file} is left out: {why}", file=sys.stderr)
