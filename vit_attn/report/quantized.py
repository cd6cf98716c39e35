"""What post-training quantization measured of a run: RUN/quant/*.json and RUN/quant/*/*.json, as metrics."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def quantized_metrics(run: Path) -> dict[str, float]:
    """{"quant/w8a8/accuracy": ...}: every number in these files, by its keys joined with a slash, below `quant` or `metrics`.

    A file that cannot be read is as one that is not there: its column stays empty and is told as missing.
    """
    folder = run / "quant"
    found: dict[str, float] = {}
    for file in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]) if folder.is_dir() else ():
        try:
            found.update(_leaves(json.loads(file.read_text())))
        except (OSError, ValueError):
            continue
    return found


def _leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _leaves(value, prefix if key == "metrics" and not prefix else f"{prefix}/{key}" if prefix else str(key))
    elif isinstance(values, int | float) and not isinstance(values, bool) and prefix:
        yield prefix, float(values)
