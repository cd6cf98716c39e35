"""Reading one checkpoint: first what it says of itself, then its arrays, straight to where they belong; each verified.

Several processes read it together, each the parts of its own devices, and agree: what one of them finds bad, all refuse.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from etils import epath

from vit_attn.parallel.processes import any_of
from vit_attn.spec.errors import UserError
from vit_attn.store.fingerprint import fingerprints
from vit_attn.store.paths import paths_of
from vit_attn.store.tree_diff import described, shortened, tree_diff

Found = TypeVar("Found")


class BadCheckpointError(Exception):
    """A checkpoint that is truncated, altered, or another run's. The message says where it is and what is wrong."""


class OtherTreeError(UserError):
    """A checkpoint that is whole, but has not the arrays that this program has. `details` says which."""


def sealed(info: Mapping[str, Any]) -> dict[str, Any]:
    """With a checksum of all of it, so that a flipped bit in a number is seen."""
    return {**info, "checksum": _checksum(info)}


def unsealed(folder: epath.Path, item: str) -> dict[str, Any]:
    """What was `sealed` and saved as `item`, read by this process alone. Raises BadCheckpointError if it was altered."""
    values = ocp.JsonCheckpointHandler().restore(folder / item)
    if not isinstance(values, dict) or values.pop("checksum", None) != _checksum(values):
        raise BadCheckpointError(f"checkpoint {folder} is not what was saved: its {item}/ was altered")
    return values


def read_info(folder: epath.Path) -> dict[str, Any]:
    """What a checkpoint says of itself: config, step, and of each array, by path, its type with shape, and fingerprint.

    Raises BadCheckpointError, in all processes if it does in one.
    """
    return _attempt(folder, lambda: unsealed(folder, "info"))


def read_rows(folder: epath.Path) -> list[dict[str, float]]:
    """The metrics that were saved with it. Raises BadCheckpointError, as above."""
    return _attempt(folder, lambda: unsealed(folder, "metrics"))["rows"]


def check_tree(folder: epath.Path, info: Mapping[str, Any], like: Any) -> None:
    """Raises OtherTreeError unless the checkpoint has the arrays of `like`: a state's, or its {"params": ...} alone."""
    wanted = described(paths_of(like))
    parts = {path.partition("/")[0] for path in wanted}
    saved = {path: kind for path, (kind, _) in info["arrays"].items() if "step" in parts or path.partition("/")[0] in parts}
    if lines := tree_diff(saved, wanted):
        raise OtherTreeError(
            f"checkpoint {folder} is whole, but not of this program: its arrays differ as below. Nothing was changed. Take the "
            "code and config that wrote it; or, to train, start over (--overwrite), or from its weights in another --workdir "
            f"(--config.init_from={folder})",
            shortened(lines),
        )


def read_arrays(folder: epath.Path, info: Mapping[str, Any], like: Any) -> Any:
    """The arrays of `like` (shapes with shardings; part of what was saved, or all), placed as it says.

    Raises BadCheckpointError, in all processes if it does in one.
    """

    def read() -> Any:
        places = jax.tree.map(lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding, global_shape=x.shape, dtype=x.dtype), like)
        args = ocp.args.PyTreeRestore(item=like, restore_args=places, partial_restore=True)
        return jax.block_until_ready(ocp.PyTreeCheckpointHandler().restore(folder / "state", args=args))

    state = _attempt(folder, read)
    found, disagree = fingerprints(state)
    altered = [path for path, number in found.items() if number != info["arrays"][path][1] or path in disagree]
    if altered:
        raise BadCheckpointError(f"checkpoint {folder} is not what was saved: {', '.join(shortened(altered))} were altered")
    return state


def _attempt(folder: epath.Path, read: Callable[[], Found]) -> Found:
    """What `read` returns, or BadCheckpointError in all processes if it raises in one. `read` must not wait for others."""
    reason, found = None, None
    try:
        found = read()
    except Exception as error:  # orbax and tensorstore raise many types for a file that is not as it was written
        reason = error
    if any_of(reason is not None):
        if isinstance(reason, BadCheckpointError):
            raise reason
        words = " ".join(str(reason).split())[:300] if reason else "another process could not"
        raise BadCheckpointError(f"checkpoint {folder} cannot be read: {words}") from reason
    return found  # type: ignore[return-value]


def _checksum(values: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())
