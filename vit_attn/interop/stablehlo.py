"""A run's model as a program that needs nothing of this framework: StableHLO, serialised by jax.export.

from jax import export
model = export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
logits = model.call(images)
"""

import os
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export

from vit_attn.interop.run import LoadedRun, forward
from vit_attn.spec.errors import UserError

PLATFORMS = ("cpu", "cuda", "tpu")
IMAGES = {"uint8": jnp.uint8, "float32": jnp.float32}  # bytes, or numbers in [-1, 1]


def serialized(run: LoadedRun, images: str = "uint8") -> bytes:
    """images [b, Y, X, 3] -> logits [b, classes] for any b, with the parameters inside, for PLATFORMS.

    Attention is blockwise where the run's config says so, and dense else: pallas is one platform's.
    """
    impl = "blockwise" if run.spec.model.attention.impl == "blockwise" else "dense"
    return serialized_function(lambda x: forward(run.spec, run.params, x, impl), run.spec.model.image_size, images)


def serialized_function(function: Callable[[jax.Array], jax.Array], side: int, images: str = "uint8") -> bytes:
    """`function` of images [b, side, side, 3], for any b and for PLATFORMS, with all that it closes over inside."""
    (batch,) = export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((batch, side, side, 3), IMAGES[images])

    def one(image: jax.Array) -> jax.Array:  # mapped, so that nothing in the model asks how many there are
        return function(image[None])[0]

    compiled = jax.jit(jax.vmap(one))
    return bytes(export.export(compiled, platforms=PLATFORMS)(shape).serialize())


def write_stablehlo(path: Path, run: LoadedRun, images: str = "uint8") -> None:
    write_program(path, serialized(run, images))


def write_program(path: Path, program: bytes) -> None:
    """Whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(program)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"--to={path}: {error.strerror or error}") from error
