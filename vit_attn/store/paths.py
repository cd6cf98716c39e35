"""Trees of arrays by the paths of their leaves: {"Transformer/encoder_norm/scale": array, ...} and back."""

from collections.abc import Mapping
from typing import Any

import jax


def paths_of(tree: Any) -> dict[str, Any]:
    """The leaves of any tree, by path, in its order."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def nested(flat: Mapping[str, Any]) -> Any:
    """By path -> nested dictionaries."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree
