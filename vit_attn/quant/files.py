"""What quantizing a run leaves in its directory.

results.json     settings, accuracy of each estimator with its spread, the best, and `metrics` for reports
ranges.json      by name: scales of weights, and ranges, scale and zero of activations, for each estimator and subset
metrics.jsonl    quant/w8a8/accuracy, quant/w8a8/ESTIMATOR/accuracy, quant/float32/accuracy ..., at the step of the checkpoint;
events.out.*     the same for TensorBoard
int8/            on demand: the member in integers, see quant.int8; its accuracy is in results.json too
"""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vit_attn.quant.measure import FLOAT, Learned, Measured
from vit_attn.quant.names import Names
from vit_attn.spec.errors import UserError
from vit_attn.spec.quant import QuantSpec, as_values
from vit_attn.spec.run import RunSpec
from vit_attn.store.metrics import MetricsLog
from vit_attn.store.run_dir import RunDir, differences, read_json, write_json

RESULTS, RANGES, INT8 = "results.json", "ranges.json", "int8"
SPREAD = ("accuracy", "top5", "loss")


def read_results(folder: Path) -> dict[str, Any] | None:
    """None where nothing is finished."""
    found = read_json(folder / RESULTS)
    if found is not None and (lost := [key for key in ("step", "config", FLOAT, "estimators", "best") if key not in found]):
        raise UserError(
            f"{folder / RESULTS} is not one of ours: it has no {', '.join(lost)}; take another --workdir, or delete it"
        )
    return found


def check_same(folder: Path, results: dict[str, Any], quant: QuantSpec) -> None:
    """Raises UserError, with the differing keys, if these are results of other settings."""
    here, there = as_values(quant), results["config"]
    if different := [key for key in here if here[key] != there.get(key)]:
        told = "; ".join(f"config.{key}: {there.get(key)!r} there, {here[key]!r} here" for key in different)
        raise UserError(f"{folder} holds other results, which differ in {told}: take another --workdir, or delete it")


def check_run(folder: Path, results: dict[str, Any], spec: RunSpec) -> None:
    """Raises UserError, with the differing settings, if these are results of another run."""
    if "run_config" in results and (different := differences(results["run_config"], asdict(spec))):
        raise UserError(
            f"{folder} holds the results of another run ({results['run']}), which differs in {'; '.join(different)}: "
            "take another --workdir, or delete it"
        )


def results_of(run: Path, spec: RunSpec, step: int, quant: QuantSpec, split: str, found: Measured) -> dict[str, Any]:
    estimators = {name: _with_spread(several) for name, several in found.quantized.items()}
    best = max(estimators, key=lambda name: estimators[name]["accuracy"])
    metrics = {f"quant/{FLOAT}/{key}": found.float32[key] for key in SPREAD}
    for prefix, name in ((f"quant/{quant.name}", best), *((f"quant/{quant.name}/{name}", name) for name in estimators)):
        metrics |= {f"{prefix}/{key}": value for key, value in estimators[name].items() if key != "repeats"}
    return {
        "run": str(run),
        "run_config": asdict(spec),
        "step": step,
        "config": as_values(quant),
        "calibration_split": split,
        "excluded": list(found.names.excluded),
        FLOAT: found.float32,
        "estimators": estimators,
        "best": best,
        "metrics": metrics,
    }


def _with_spread(several: list[dict[str, float]]) -> dict[str, Any]:
    """Means over the subsets, and their standard deviation (of n - 1; 0 of one)."""
    columns = {key: np.array([one[key] for one in several]) for key in SPREAD}
    means = {key: float(column.mean()) for key, column in columns.items()}
    spread = {f"{key}_std": float(column.std(ddof=1)) if len(column) > 1 else 0.0 for key, column in columns.items()}
    return {**means, **spread, "repeats": several}


def write(folder: Path, results: dict[str, Any], quant: QuantSpec, found: Measured) -> None:
    """results.json comes last: where it is, all is. An INT8 member that is there has other ranges, and goes."""
    shutil.rmtree(folder / INT8, ignore_errors=True)
    write_json(folder / RANGES, ranges_of(found))
    _log(folder, results["step"], quant, results["metrics"])
    write_json(folder / RESULTS, results)


def with_int8(folder: Path, results: dict[str, Any], quant: QuantSpec, found: dict[str, float]) -> dict[str, Any]:
    """The results with what the INT8 member has reached, written; its own metrics lie in int8/, beside its other files."""
    metrics = {f"quant/{quant.name}/{INT8}/{key}": found[key] for key in SPREAD}
    _log(folder / INT8, results["step"], quant, metrics)
    results = {**results, INT8: found, "metrics": {**results["metrics"], **metrics}}
    write_json(folder / RESULTS, results)
    return results


def _log(folder: Path, step: int, quant: QuantSpec, metrics: dict[str, float]) -> None:
    hparams = {key: value for key, value in as_values(quant).items() if isinstance(value, str | int | float)}
    log = MetricsLog(RunDir(folder), -1, hparams)
    log.write(step, metrics)
    log.close()


def ranges_of(found: Measured) -> dict[str, Any]:
    weights = {found.names.weights[path]: _numbers(grid.scale) for path, grid in found.weights.items()}
    activations = {name: [_of_points(found.names, learned) for learned in several] for name, several in found.ranges.items()}
    return {"weight_scales": weights, "activations": activations}


def _of_points(names: Names, learned: Learned) -> dict[str, dict[str, float]]:
    learned = jax.device_get(learned)
    rows = {}
    for path, name in names.points.items():
        if names.on(name):
            one, grid = learned[path], learned[path].grid
            rows[name] = {
                key: float(x)
                for key, x in zip(("low", "high", "scale", "zero"), (one.low, one.high, grid.scale, grid.zero), strict=True)
            }
    return rows


def _numbers(x: Any) -> Any:
    """A number where there is one, else lists of its shape."""
    x = np.asarray(x)
    return float(x.reshape(())) if x.size == 1 else x.tolist()
