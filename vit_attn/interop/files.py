"""Files of named arrays: .npz (numpy, never pickled objects) and .safetensors."""

import os
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float

from vit_attn.spec.errors import UserError

Arrays = dict[str, np.ndarray]


def read_arrays(path: Path) -> dict[str, Float[np.ndarray, "..."]]:
    """Every array of the file that holds real numbers, in float32. UserError for a file that is not what its suffix says.

    float16 and bfloat16 become float32 without loss; float64 is refused. Integers (a step count) and text are left out.
    """
    if not path.is_file():
        raise UserError(f"--from={path}: there is no such file")
    try:
        arrays = _read_npz(path) if path.suffix == ".npz" else safetensors.numpy.load_file(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--from={path} cannot be read as a {path.suffix} file: {reason}") from error
    arrays = {name: _half(value) for name, value in arrays.items()}
    if wide := [name for name, value in arrays.items() if value.dtype in (np.float64, np.complex64, np.complex128)]:
        raise UserError(f"--from={path}: {wide[0]} is {arrays[wide[0]].dtype}, and parameters are float32 here: convert it")
    halves = (np.float32, np.float16, ml_dtypes.bfloat16)
    return {name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items() if value.dtype in halves}


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(part, "wb") as handle:
            if path.suffix == ".npz":
                np.savez(handle, **arrays)  # type: ignore[arg-type]
            else:
                handle.write(safetensors.numpy.save({name: np.ascontiguousarray(x) for name, x in arrays.items()}))
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"--to={path}: {error.strerror or error}") from error


def _read_npz(path: Path) -> Arrays:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        raise ValueError("it holds one array without a name")
    with loaded:
        return dict(loaded)


def _half(value: np.ndarray) -> np.ndarray:
    """numpy's files call bfloat16 two bytes of anything."""
    return value.view(ml_dtypes.bfloat16) if value.dtype == np.dtype("V2") else value
