"""config.init_from: a fresh run with the parameters of another one."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from vit_attn.models.posemb import resampled
from vit_attn.spec.errors import UserError
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import RunSpec
from vit_attn.store.paths import nested, paths_of
from vit_attn.store.place import absolute, is_step, place_of
from vit_attn.store.restore import BadCheckpointError, read_arrays, read_info
from vit_attn.store.tree_diff import described, shortened, tree_diff
from vit_attn.train.saved import abstract_state

_POSITIONS, _HEAD = "pos_embedding", ("head/kernel", "head/bias")


@dataclass(frozen=True)
class Source:
    """A checkpoint, and what becomes of its parameters: `fresh` ones are not taken, `resampled` has another patch count.

    `gates` are parameters that it has not, of gates that the run adds.
    """

    folder: epath.Path
    info: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]  # of what is read, as it was saved
    resampled: tuple[str, ...]
    fresh: tuple[str, ...]
    gates: tuple[str, ...]

    def line(self) -> str:
        """ "starts from ...: 150 arrays taken; ..." """
        taken = len(self.shapes) - len(self.resampled)
        parts = [f"{taken} arrays taken"]
        parts += [f"{path} resampled from {list(self.shapes[path])}" for path in self.resampled]
        parts += [f"fresh, for another number of classes: {', '.join(self.fresh)}"] if self.fresh else []
        parts += [f"{len(self.gates)} arrays of gates are fresh"] if self.gates else []
        return f"starts from {self.folder}: {'; '.join(parts)}"


def check_init_from(spec: RunSpec, doomed: Sequence[Any] = ()) -> None:
    """Raises UserError if the run cannot start from what config.init_from names, or if that lies in a directory of `doomed`,
    which are about to be deleted."""
    source = _source(spec, abstract_state(spec).params)
    for folder in doomed:
        if epath.Path(folder).resolve() in source.folder.resolve().parents:
            raise UserError(f"config.init_from={spec.init_from!r} lies in {folder}, which --overwrite deletes: copy it first")


def start_params(spec: RunSpec, params: Any) -> tuple[Any, str]:
    """(`params` with all that the source has in their places, a line that says so). All processes together."""
    source = _source(spec, params)
    leaves = paths_of(params)
    like = {
        path: jax.ShapeDtypeStruct(shape, leaves[path].dtype, sharding=_sharding(leaves[path], shape))
        for path, shape in source.shapes.items()
    }
    try:
        read = paths_of(read_arrays(source.folder, source.info, {"params": nested(like)})["params"])
    except BadCheckpointError as error:
        raise UserError(f"config.init_from={spec.init_from!r}: {error}; name an older one, .../checkpoints/STEP") from error
    for path in source.resampled:
        to = leaves[path]
        read[path] = jax.jit(partial(resampled, length=to.shape[1]), out_shardings=to.sharding)(read[path])
    new = [read.get(path, leaf) for path, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(params), new), source.line()


def _source(spec: RunSpec, params: Any) -> Source:
    """Raises UserError if there is no checkpoint, or if it has other parameters than the run."""
    assert spec.init_from is not None
    folder, info = _newest(spec.init_from)
    saved = {path.removeprefix("params/"): kind for path, (kind, _) in info["arrays"].items() if path.startswith("params/")}
    shapes = {path: _shape(kind) for path, kind in saved.items()}
    leaves = paths_of(params)
    other = [path for path in leaves if path in shapes and shapes[path] != leaves[path].shape]
    fresh = tuple(path for path in other if path in _HEAD and shapes[path][:-1] == leaves[path].shape[:-1])
    moved = tuple(path for path in other if path == _POSITIONS and _can_resample(shapes[path], leaves[path].shape))
    here = described(leaves)
    there = {path: here[path] if path in (*fresh, *moved) else kind for path, kind in saved.items()}
    gates = () if any(map(_of_gate, shapes)) else tuple(filter(_of_gate, leaves))
    there |= {path: here[path] for path in gates}
    if lines := tree_diff(there, here):
        raise UserError(
            f"config.init_from={spec.init_from!r}: the parameters of {folder} do not fit this model (another image size and "
            "another number of classes may be, and gates where there were none; these may not):",
            shortened(lines),
        )
    return Source(folder, info, {path: shape for path, shape in shapes.items() if path not in fresh}, moved, fresh, gates)


def _of_gate(path: str) -> bool:
    return "/gate/" in path


def _newest(init_from: str) -> tuple[epath.Path, dict[str, Any]]:
    """(the checkpoint that is meant, what it says of itself). Raises UserError."""
    path, key = absolute(init_from), f"config.init_from={init_from!r}"
    try:
        return _found(path, key)
    except (UserError, BadCheckpointError):
        raise
    except Exception as error:  # a bucket's errors are of many types
        raise UserError(f"{key} cannot be read: {' '.join(str(error).split())[:300]}") from error


def _found(path: epath.Path, key: str) -> tuple[epath.Path, dict[str, Any]]:
    if path.suffix in (".npz", ".safetensors"):
        raise UserError(f"{key} is a file: make a run of it (python -m vit_attn.interop import --from {path} --workdir DIR)")
    if not path.exists():
        raise UserError(f"{key} does not exist; a run's directory is needed, or one of its checkpoints/STEP")
    folders = [path] if is_step(path) and (path / "info").exists() else _checkpoints(path, key)
    reasons = []
    for folder in folders:
        try:
            return folder, read_info(folder)
        except BadCheckpointError as error:
            reasons.append(str(error))
    raise UserError(f"{key} has no checkpoint{' that can be read: ' + '; '.join(reasons) if reasons else ' yet'}")


def _checkpoints(path: epath.Path, key: str) -> list[epath.Path]:
    """Of the run in a directory, the newest first."""
    if not (path / "config.json").exists():
        members = sorted(entry.name for entry in path.iterdir() if (entry / "config.json").exists()) if path.is_dir() else []
        hint = f"; it is a directory of runs: take one of {', '.join(members)} in it" if members else ""
        raise UserError(f"{key} is neither a run's directory (it has no config.json) nor one of its checkpoints/STEP{hint}")
    try:
        spec = resolve(json.loads((path / "config.json").read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"{key}: its config.json cannot be read: {error}") from error
    place = place_of(path, spec.loop)
    return [place.path(step) for step in reversed(place.steps())]


def _can_resample(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    squares = all(math.isqrt(length) ** 2 == length for length in (shape[1], to[1]))
    return squares and (shape[0], shape[2:]) == (to[0], to[2:])


def _sharding(to: Any, shape: tuple[int, ...]) -> Any:
    """Where an array goes; one that will be resampled, onto every device."""
    same = shape == to.shape or not isinstance(to.sharding, NamedSharding)
    return to.sharding if same else NamedSharding(to.sharding.mesh, PartitionSpec())


def _shape(kind: str) -> tuple[int, ...]:
    return tuple(json.loads(kind[kind.index("[") :]))
