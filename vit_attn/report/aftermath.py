"""What was measured of a finished run: quantized (RUN/quant/NAME/results.json or RUN/quant/NAME.json) and its outliers
(RUN/outliers/outliers.json), as metrics."""

import json
from pathlib import Path
from typing import Any


def aftermath(run: Path, step: int) -> dict[str, float]:
    """{"quant/w8a8/accuracy": ..., "outliers/kurtosis": ...}: the numbers of these files' tables `metrics`.

    What lies in RUN/quant/NAME is called NAME, which need not be the widths: two results of W6A6 are told apart. A file that
    cannot be read, or is of another step than the run is at, is as one that is not there: its column stays empty and is told
    as missing.
    """
    folder = run / "quant"
    found: dict[str, float] = {}
    for file in sorted([*folder.glob("*.json"), *folder.glob("*/results.json")]) if folder.is_dir() else []:
        name = file.parent.name if file.name == "results.json" else file.stem
        found |= _renamed(name, *_read(file, step))
    return found | _read(run / "outliers" / "outliers.json", step)[0]


def _read(file: Path, step: int) -> tuple[dict[str, float], str]:
    """(metrics, what those of quantization begin with: "quant/w8a8/")."""
    try:
        values: dict[str, Any] = json.loads(file.read_text())
        if values.get("step", step) != step:
            return {}, ""
        config = values.get("config", {})
        own = f"quant/w{config['weight_bits']}a{config['activation_bits']}/" if config else ""
        return {str(key): float(value) for key, value in values["metrics"].items() if isinstance(value, int | float)}, own
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, ""


def _renamed(name: str, metrics: dict[str, float], own: str) -> dict[str, float]:
    return {
        f"quant/{name}/{key.removeprefix(own)}" if own and key.startswith(own) else key: value for key, value in metrics.items()
    }
