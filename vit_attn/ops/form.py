"""What one attention computes, apart from its numbers and arrays."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """Static: it shapes the program."""

    h: str = "softmax"  # a name of ops.nonlinearity.NONLINEARITY
    qk_norm: str = "none"  # none | head | width: what the LayerNorm of queries and keys goes over
    causal: bool = False  # a key is hidden from the queries before it
    dropout: float = 0.0  # of the attention weights, while training
    block: int = 512  # blockwise: keys that it takes at a time
    tile_logits: int | None = None  # blockwise: logits in memory at a time, so that they stay in a CPU's cache; None: any
    length: int | None = None  # L, where it is not the number of keys given: they may be a part of all

    def keys(self, given: int) -> int:
        """L: the number of keys that a query attends over."""
        return given if self.length is None else self.length
