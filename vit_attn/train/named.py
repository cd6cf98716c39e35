"""The leaves of a tree by their paths."""

from typing import Any

import jax


def named(tree: Any) -> dict[str, Any]:
    """{"Transformer/encoder_norm/scale": leaf, ...}, in the order of jax.tree.leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
