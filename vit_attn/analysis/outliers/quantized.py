"""What post-training quantization has measured of a run: RUN/quant/*/results.json."""

import json
import sys
from pathlib import Path

from vit_attn.spec.errors import UserError


def quantized_accuracies(run: Path, step: int) -> dict[str, list[float]]:
    """{"w8a8_accuracy": [of each calibration subset, in percent]}, of the best estimator, at this step: results of another
    one are left out, and said. UserError for a broken file."""
    found = {}
    for file in sorted((run / "quant").glob("*/results.json")):
        try:
            results = json.loads(file.read_text())
            if results["step"] != step:
                print(f"note: {file} is left out: it is of step {results['step']}, the run is at {step}", file=sys.stderr)
                continue
            repeats = results["estimators"][results["best"]]["repeats"]
            found[f"{file.parent.name}_accuracy"] = [100 * float(one["accuracy"]) for one in repeats]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file} cannot be read: {type(error).__name__}: {error}") from error
    return found
