"""The parameters that a run has saved, for whoever looks into it."""

import sys
from contextlib import closing
from dataclasses import replace
from typing import Any

import jax

from vit_attn.spec.errors import UserError
from vit_attn.spec.run import RunSpec, knobs_of
from vit_attn.store.checkpoint import BadCheckpointError, Checkpoints
from vit_attn.store.run_dir import RunDir
from vit_attn.train.state import State, init_state


def abstract_state(spec: RunSpec) -> State:
    """Shapes and types of a run's state, on a machine that need not be the one it was trained on; nothing is computed."""
    attention = replace(spec.model.attention, impl="dense")  # pallas checks shapes
    spec = replace(spec, model=replace(spec.model, attention=attention))
    return jax.eval_shape(lambda: init_state(spec, knobs_of(spec)))


def saved_params(run_dir: RunDir, spec: RunSpec, step: int | None = None) -> tuple[int, Any]:
    """(step, parameters) of the newest checkpoint that can be read, or of the one asked for. Raises UserError."""
    if not run_dir.checkpoints.is_dir():
        raise UserError(f"{run_dir.path} has no checkpoint yet: it has no folder checkpoints/")
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), abstract_state(spec))
    reasons = []
    with closing(Checkpoints(run_dir, spec.loop.ckpt_keep)) as checkpoints:
        steps = checkpoints.steps()
        if step is not None and step not in steps:
            raise UserError(f"{run_dir.path} has no checkpoint of step {step}; it has {', '.join(map(str, steps)) or 'none'}")
        for one in reversed(steps if step is None else [step]):
            try:
                return one, checkpoints.restore(one, like)[0].params
            except BadCheckpointError as error:
                reasons.append(str(error))
                print(f"refused: {error}", file=sys.stderr)
    raise UserError(f"{run_dir.path} has no checkpoint that can be read{': ' + '; '.join(reasons) if reasons else ' yet'}")
