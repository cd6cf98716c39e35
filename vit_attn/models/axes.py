"""The logical axes of every parameter of the network, by its path."""

import re

from vit_attn.parallel.rules import Logical

# The end of a path, and the axes. Vectors along the width stay whole: they are small, and to gather each costs a collective.
_AXES: list[tuple[str, Logical]] = [
    (r"embedding/kernel", (None, None, None, "embed")),
    (r"pos_embedding", (None, None, "embed")),
    (r"(query|key|value)/kernel", ("embed", "heads", None)),
    (r"(query|key|value)/bias", ("heads", None)),
    (r"out/kernel", ("heads", None, "embed")),
    (r"gau/dense/kernel", ("embed", "heads", None)),
    (r"gau/dense/bias", ("heads", None)),
    (r"all_heads/dense/kernel", (None, "embed", "heads")),
    (r"all_heads/dense/bias", (None, "heads")),
    (r"(linear|mlp)/(dense|hidden)/kernel", ("heads", None, None)),
    (r"(linear|mlp)/(dense|hidden)/bias", ("heads", None)),
    (r"MultiHeadDotProductAttention_0/alpha", ("heads",)),
    (r"Dense_0/kernel", ("embed", "mlp")),
    (r"Dense_0/bias", ("mlp",)),
    (r"Dense_1/kernel", ("mlp", "embed")),
    (r"pre_logits/kernel", ("embed", None)),
    (r"head/kernel", ("embed", "classes")),
    (r"head/bias", ("classes",)),
]


def logical_axes(path: str, ndim: int, gate: str) -> Logical:
    """Of the parameter at this path ("Transformer/.../kernel"), or of its moments. `gate`: its kind, which tells what its
    kernel is."""
    name = re.sub(r"(^|/)gate/", rf"\1{gate}/", path)
    for pattern, axes in _AXES:
        if len(axes) == ndim and re.search(rf"(^|/){pattern}$", name):
            return axes
    return (None,) * ndim
