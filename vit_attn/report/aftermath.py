"""What was measured of a finished run: quantized (RUN/quant/NAME/results.json or RUN/quant/NAME.json) and its outliers
(RUN/outliers/outliers.json), as metrics."""

import json
from pathlib import Path


def aftermath(run: Path) -> dict[str, float]:
    """{"quant/w8a8/accuracy": ..., "outliers/kurtosis": ...}: the numbers of these files' tables `metrics`.

    A file that cannot be read is as one that is not there: its column stays empty and is told as missing.
    """
    folder = run / "quant"
    found: dict[str, float] = {}
    files = sorted([*folder.glob("*.json"), *folder.glob("*/results.json")]) if folder.is_dir() else []
    for file in (*files, run / "outliers" / "outliers.json"):
        try:
            metrics = json.loads(file.read_text())["metrics"]
            found.update({str(name): float(value) for name, value in metrics.items() if isinstance(value, int | float)})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return found
