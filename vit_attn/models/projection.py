"""A Dense whose input or output axes are several: flax's DenseGeneral, computed on flat axes."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_attn.models.points import product_at


class Projection(nn.Module):
    """[B, L, prod(takes)] -> [B, L, prod(gives)], with a kernel of shape takes + gives and a bias of shape gives.

    Parameters are flax DenseGeneral's, start values included. The product is flat because a TPU lays out [.., 384] without
    padding, and [.., 6, 64] with half of it.
    """

    takes: tuple[int, ...]
    gives: tuple[int, ...]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L E"]:
        rows, columns = math.prod(self.takes), math.prod(self.gives)

        def start(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
            return nn.initializers.xavier_uniform()(key, (rows, columns), jnp.float32).reshape(shape)

        kernel = self.param("kernel", start, (*self.takes, *self.gives)).reshape(rows, columns)
        bias = self.param("bias", nn.initializers.zeros, self.gives).reshape(1, 1, columns)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return product_at(self, "product", jax.lax.dot_general)(x, kernel, (((2,), (0,)), ((), ()))) + bias
