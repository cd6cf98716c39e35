"""What post-training quantization measured of a run: RUN/quant/NAME/results.json or RUN/quant/NAME.json, as metrics."""

import json
from pathlib import Path


def quantized_metrics(run: Path) -> dict[str, float]:
    """{"quant/w8a8/accuracy": ...}: the numbers of these files' tables `metrics`.

    A file that cannot be read is as one that is not there: its column stays empty and is told as missing.
    """
    folder = run / "quant"
    found: dict[str, float] = {}
    for file in sorted([*folder.glob("*.json"), *folder.glob("*/results.json")]) if folder.is_dir() else ():
        try:
            metrics = json.loads(file.read_text())["metrics"]
            found.update({str(name): float(value) for name, value in metrics.items() if isinstance(value, int | float)})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return found
