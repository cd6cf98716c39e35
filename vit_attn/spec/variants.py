"""Names of ViT sizes, "S/16": width, depth, MLP width and heads, then the patch side in pixels."""

from typing import NamedTuple

from vit_attn.spec.errors import UserError, unknown


class Size(NamedTuple):
    width: int
    depth: int
    mlp_dim: int
    heads: int


# Ti to L: arXiv:2010.11929 and arXiv:2106.10270. H and g: arXiv:2106.04560. mu is big_vision's size for tests, nano is ours
# for the embedded images on a laptop.
SIZES = {
    "mu": Size(32, 1, 128, 2),
    "nano": Size(64, 3, 256, 4),
    "Ti": Size(192, 12, 768, 3),
    "S": Size(384, 12, 1536, 6),
    "B": Size(768, 12, 3072, 12),
    "L": Size(1024, 24, 4096, 16),
    "H": Size(1280, 32, 5120, 16),
    "g": Size(1408, 40, 6144, 16),
}


def parse_variant(variant: str) -> tuple[Size, int]:
    """ "S/16" -> (the sizes of S, 16). Raises UserError for another size or a patch that is not a positive integer."""
    name, _, patch = variant.partition("/")
    if name not in SIZES:
        raise unknown(f"config.model.variant={variant!r}: the size", name, SIZES)
    if not patch.isdecimal() or int(patch) < 1:
        raise UserError(f"config.model.variant={variant!r} needs a patch side in pixels behind the slash, as in '{name}/16'")
    return SIZES[name], int(patch)
