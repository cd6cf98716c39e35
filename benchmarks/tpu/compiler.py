"""libtpu's compiler, ahead of time: programs for a TPU that is not there.

Needs the library libtpu, no TPU. It is looked for in the environment variable TPU_LIBRARY_PATH, as an installed package, and
in .tpu/ at the root of the repository (`make tpu-compiler`), so that jax's own packages stay without it: where the package is
installed, jax looks for TPUs at every start.
"""

import atexit
import importlib.util
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.tpu.chip import V5E, Chip
from benchmarks.tpu.cost import Cost, cost
from benchmarks.tpu.hlo import Module, parse
from benchmarks.tpu.schedule import Schedule, read

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {  # read by libtpu when it is loaded; it must not look for a TPU, nor keep other processes from compiling
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
DUMP = "--xla_jf_dump_to={} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=final_bundles"


class NoCompiler(Exception):  # noqa: N818  it is a state of the machine
    """There is no TPU compiler here, or not in this process; the message is one line that says what to do."""


@dataclass(frozen=True)
class Program:
    """A program compiled for one kind of chip."""

    text: str  # HLO
    schedules: dict[str, Schedule]
    temp_bytes: int
    kept_bytes: int  # of arguments and results; a result that takes an argument's memory counts once
    chip: Chip

    @property
    def peak_bytes(self) -> int:
        """Of HBM on one device, the program itself left out."""
        return self.kept_bytes + self.temp_bytes

    @property
    def module(self) -> Module:
        return parse(self.text)

    def cost(self) -> Cost:
        return cost(self.module, self.schedules, self.temp_bytes, self.chip)


def library() -> Path:
    """libtpu.so; NoCompiler if there is none."""
    if named := os.environ.get("TPU_LIBRARY_PATH"):
        if Path(named).is_file():
            return Path(named)
        raise NoCompiler(f"TPU_LIBRARY_PATH names no file: {named}")
    package = importlib.util.find_spec("libtpu")
    installed = (package.submodule_search_locations if package else None) or []
    for place in (*map(Path, installed), ROOT / ".tpu" / "libtpu"):
        if (place / "libtpu.so").is_file():
            return place / "libtpu.so"
    raise NoCompiler("no TPU compiler: run `make tpu-compiler`, or set TPU_LIBRARY_PATH to libtpu.so")


@cache
def _dumps() -> Path:
    """Loads the library with its dumps going to a directory of this process, which is removed at its end."""
    path = library()
    if jax.default_backend() != "cpu":
        raise NoCompiler(f"jax runs on {jax.default_backend()}: set JAX_PLATFORMS=cpu to compile for a TPU that is not there")
    directory = Path(tempfile.mkdtemp(prefix="tpu_schedules_"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["TPU_LIBRARY_PATH"] = str(path)
    os.environ["LIBTPU_INIT_ARGS"] = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {DUMP.format(directory)}".strip()
    return directory


@cache
def devices(topology: str) -> list[Any]:
    """The devices of a slice; once a process, since those of another call are others."""
    _dumps()
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except RuntimeError as error:
        raise NoCompiler(f"the TPU compiler does not start: {str(error).splitlines()[0]}") from error


def mesh(chip: Chip = V5E, shape: tuple[int, ...] = (1,), axes: tuple[str, ...] = ("data",)) -> Mesh:
    """A mesh of `shape` over devices of chip.topology; NoCompiler if they cannot be made."""
    return Mesh(np.array(devices(chip.topology)[: math.prod(shape)]).reshape(shape), axes)


def replicated(tree: Any, chip: Chip = V5E, rows: bool = False) -> Any:
    """Shapes, as jax.eval_shape makes them, on one device of the chip.

    rows: with the last axis fastest in memory, as a chain of operations would leave them. A TPU's own default for arguments is
    another order if that takes less room, [256, 196, 384] for instance, and then programs begin and end with copies.
    """
    sharding = NamedSharding(mesh(chip), PartitionSpec())

    def struct(leaf: Any) -> jax.ShapeDtypeStruct:
        layout = Format(Layout(tuple(range(leaf.ndim))), sharding) if rows else sharding
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout)

    return jax.tree.map(struct, tree)


def compiled(
    function: Callable[..., Any], *arguments: Any, results: Any = None, donate: Sequence[int] = (), chip: Chip = V5E
) -> Program:
    """`function` for arguments as made by `replicated`; its results lie in memory as those of the tree `results`, if given.

    donate: the numbers of the arguments whose memory results may take.
    """
    directory = _dumps()
    for path in directory.iterdir():
        path.unlink()
    out = None if results is None else jax.tree.map(lambda leaf: leaf.format if leaf.format.layout else leaf.sharding, results)
    program = jax.jit(function, out_shardings=out, donate_argnums=donate).lower(*arguments).compile()
    schedules = read(directory)
    if not any(directory.iterdir()):
        raise NoCompiler("the compiler wrote no schedules: libtpu was loaded before, or jax took the program from its cache")
    memory = program.memory_analysis()
    assert memory is not None
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Program(program.as_text() or "", schedules, memory.temp_size_in_bytes, kept, chip)
