"""The parameters that a run has saved, for whoever looks into it."""

import sys
from dataclasses import replace
from typing import Any

import jax

from vit_attn.spec.errors import UserError
from vit_attn.spec.run import RunSpec, knobs_of
from vit_attn.store.restore import BadCheckpointError, check_tree, read_arrays, read_info
from vit_attn.store.run_dir import RunDir
from vit_attn.train.state import State, init_state


def abstract_state(spec: RunSpec) -> State:
    """Shapes and types of a run's state, on a machine that need not be the one it was trained on; nothing is computed."""
    attention = replace(spec.model.attention, impl="dense")  # pallas checks shapes
    spec = replace(spec, model=replace(spec.model, attention=attention))
    return jax.eval_shape(lambda: init_state(spec, knobs_of(spec)))


def saved_params(run_dir: RunDir, spec: RunSpec, step: int | None = None) -> tuple[int, Any]:
    """(step, parameters) of the newest checkpoint that can be read, or of the one asked for. Raises UserError."""
    place = run_dir.place(spec)
    if not place.checkpoints.exists():
        folder = place.checkpoints if place.apart else "checkpoints/"
        raise UserError(f"{run_dir.path} has no checkpoint yet: there is no folder {folder}")
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    params = abstract_state(spec).params
    like = {"params": jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), params)}
    steps, reasons = place.steps(), []
    if step is not None and step not in steps:
        raise UserError(f"{run_dir.path} has no checkpoint of step {step}; it has {', '.join(map(str, steps)) or 'none'}")
    for one in reversed(steps if step is None else [step]):
        folder = place.path(one)
        try:
            info = read_info(folder)
            check_tree(folder, info, like)
            return one, read_arrays(folder, info, like)["params"]
        except BadCheckpointError as error:
            reasons.append(str(error))
            print(f"refused: {error}", file=sys.stderr)
    raise UserError(f"{run_dir.path} has no checkpoint that can be read{': ' + '; '.join(reasons) if reasons else ' yet'}")
