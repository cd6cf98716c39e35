"""Python -> machine code, by numba, for the loops over bits and blocks. They do not hold the lock of the interpreter."""

from collections.abc import Callable
from typing import Any

from numba import njit, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, compiled when it is first called, and kept on the disk for the next process where there is a place for it.

    What is kept is renewed when the file of `function` changes, but not when that of a function it calls does: so functions
    that call each other belong into one file.
    """
    try:
        return njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # neither __pycache__ nor the home directory can be written to
        return njit(**OPTIONS)(function)


@intrinsic
def _pointer(typing: Any, array: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return make_array(array)(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), build


# In compiled functions only: the address of an array's first number, indexed flat. The array must live on meanwhile.
# Handing an array from function to function counts its references, which takes longer than reading a block.
pointer: Any = _pointer
