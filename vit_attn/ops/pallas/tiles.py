"""How the attention of a batch is divided among the programs of a kernel."""

from dataclasses import dataclass

SUBLANES = 16  # rows of a tile of bfloat16; of float32 8
MOST_QUERIES = 1024  # of a query block
WHOLE_KEYS = 1024  # that a program takes at once: with as many queries a head's float32 logits have 4 MiB
LOOPED_KEYS = 512  # that it takes at a time if there are more: keys, values and their gradients fill vector memory too
ROWS_OF_IMAGES = 1024  # that the images of one program have together


@dataclass(frozen=True)
class Tiles:
    """Images of one program, query rows of one program, key rows that it takes at a time."""

    images: int
    queries: int
    keys: int


def choose(batch: int, queries: int, keys: int, rows: int = ROWS_OF_IMAGES) -> Tiles:
    """Several images a program, with so many `rows` at most, where they are short; one and a block of its queries where they
    are long."""
    most = max(1, rows // max(queries, keys))
    images = next(n for n in range(min(most, batch), 0, -1) if batch % n == 0)
    return Tiles(images, query_block(queries), keys if keys <= WHOLE_KEYS else LOOPED_KEYS)


def query_block(queries: int) -> int:
    """All queries, or the least number, a multiple of SUBLANES, that makes as few blocks as MOST_QUERIES allows."""
    if queries <= MOST_QUERIES:
        return queries
    blocks = -(-queries // MOST_QUERIES)
    return -(-queries // (blocks * SUBLANES)) * SUBLANES
