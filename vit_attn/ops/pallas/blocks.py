"""The keys and values of one image, a block at a time."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from vit_attn.ops.pallas.geometry import Geometry
from vit_attn.ops.pallas.layernorm import KEY, Normalized, normalized, scaled


class KeyBlock(NamedTuple):
    """`normal`: keys before the LayerNorm's scale and bias; `keys` and `values`: operands of matrix products."""

    normal: Normalized
    keys: Float[Array, "rows lanes"]
    values: Float[Array, "rows lanes"]


@dataclass
class KeyBlocks:
    """Reads blocks from the references k and v, once each where blocks are not taken in a loop: whoever scans the keys
    and then goes over them again has the same arrays twice, and the compiler sees that the logits are the same."""

    geometry: Geometry
    affine: Any
    k: Any
    v: Any
    image: Any
    read: dict[int, KeyBlock] = field(default_factory=dict)

    def at(self, part: Any) -> KeyBlock:
        """The block of the rows `part`."""
        if isinstance(part.start, int) and part.start in self.read:
            return self.read[part.start]
        n = normalized(self.geometry, self.k[self.image, part])
        block = KeyBlock(n, scaled(self.geometry, n, self.affine, KEY), self.v[self.image, part].astype(self.geometry.dtype))
        if isinstance(part.start, int):
            self.read[part.start] = block
        return block
