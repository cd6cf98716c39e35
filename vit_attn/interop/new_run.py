"""A file of parameters -> the directory of a run that has not taken a step."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_attn.interop import formats
from vit_attn.interop.flat import Flat, fitted
from vit_attn.interop.guess import model_values
from vit_attn.spec.errors import UserError
from vit_attn.spec.load import load_config, override
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import RunSpec
from vit_attn.store.checkpoint import Checkpoints
from vit_attn.store.paths import nested
from vit_attn.store.run_dir import RunDir
from vit_attn.train.health import healthy
from vit_attn.train.saved import abstract_state
from vit_attn.train.state import State


def import_run(
    source: Path, workdir: Path, config: str | None = None, overrides: Mapping[str, Any] | None = None, form: str | None = None
) -> RunSpec:
    """Makes `workdir` a run whose checkpoint of step 0 has the file's parameters, and says what it is.

    The model is what the file's names and shapes say, over the defaults; with `config` it is the config's, and the file has
    to fit. `overrides`: {"model.heads": 3}. UserError, before anything is created, if that cannot be.
    """
    run_dir = RunDir(workdir)
    if run_dir.spec() is not None:
        raise UserError(f"--workdir={workdir} holds a run already: take another one")
    run_dir.check_place()
    values: dict[str, Any] = load_config(config) if config else {}
    for key, value in (overrides or {}).items():
        override(values, key, value)
    if config:
        spec = resolve(values)
        flat = formats.read(source, form, spec.model.heads)
    else:
        model = values.get("model", {})
        flat = formats.read(source, form, model.get("heads") if isinstance(model, dict) else None)
        spec = resolve({**values, "model": _over(model_values(flat, f"--from={source}"), model)})
    save_run(run_dir, spec, fitted(spec, flat, f"--from={source}"), str(source))
    return spec


def _over(below: dict[str, Any], above: Any) -> Any:
    """Nested dictionaries, one over the other. What is no dictionary, `resolve` refuses."""
    if not isinstance(above, dict):
        return above
    return below | {key: _over(below[key], x) if isinstance(below.get(key), dict) else x for key, x in above.items()}


def save_run(run_dir: RunDir, spec: RunSpec, flat: Flat, source: str) -> None:
    """The directory of a run with these parameters at step 0, Adam's moments at 0. `source` goes into its status."""
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract_state(spec))
    state = State(nested(flat), empty.moments, step=jnp.int32(0), health=healthy())
    info = {"config": asdict(spec), "step": 0, "examples": 0, "train_seconds": 0.0, "bad_images": 0}
    run_dir.create(spec)
    run_dir.place(spec).claim(spec)
    with run_dir.locked(), closing(Checkpoints(run_dir, spec.loop)) as checkpoints:
        checkpoints.save(0, state, info)
        checkpoints.wait()
    run_dir.write_status("stopped", step=0, steps=spec.train.steps, message=f"imported from {source}")
