"""The rooms: who may import whom. An arrow that points up, or a launcher that loads jax, fails here."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# From the bottom up. A module imports from its own room and from lower ones.
FLOORS = [
    ["ops"],
    ["spec"],
    ["data", "parallel"],
    ["store"],
    ["models", "report"],
    ["train"],
    ["evals", "interop"],
    ["analysis", "quant"],
    ["loop"],
    ["main", "quantize"],
]
RANK = {room: rank for rank, rooms in enumerate(FLOORS) for room in rooms}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def room(module):
    return module.split(".")[1] if module.startswith("vit_attn.") else None


FILES = sorted((ROOT / "vit_attn").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    here = path.relative_to(ROOT / "vit_attn").with_suffix("").parts[0]
    if here == "__init__":
        assert path.read_text() == ""
        return
    for module in imports(path):
        there = room(module)
        if there is not None and there != here:
            assert RANK[there] < RANK[here], f"{path.relative_to(ROOT)} imports {module}"
        assert not module.startswith(("launch", "configs", "tests", "benchmarks"))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_configs_import_next_to_nothing(path):
    allowed = ("typing", "collections", "itertools", "importlib", "json", "math", "pathlib", "ml_collections", "configs.")
    assert all(module.startswith(allowed) for module in imports(path))


def test_ml_collections_stops_at_the_door():
    users = [path for path in FILES if any(module.startswith("ml_collections") for module in imports(path))]
    assert users == [ROOT / "vit_attn" / "spec" / "load.py"]


@pytest.mark.parametrize(
    "program",
    [
        "vit_attn.main",
        "launch.sweep",
        "launch.status",
        "vit_attn.report",
        "vit_attn.analysis.init_scale",
        "vit_attn.analysis.attention_maps",
        "vit_attn.analysis.outliers",
        "vit_attn.interop",
        "vit_attn.quantize",
    ],
)
def test_help_loads_no_heavy_library(program):
    code = f"""
import runpy, sys
sys.argv = ["x", "--help"]
try:
    runpy.run_module({program!r}, run_name="__main__")
except SystemExit as end:
    assert end.code in (0, None), end.code
heavy = {{"jax", "flax", "tensorflow", "orbax", "grain", "tensorflow_datasets", "clu"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_no_file_is_a_town():
    """One noun a file: nothing over 300 lines, no utils."""
    for path in [*FILES, *(ROOT / "launch").rglob("*.py"), *(ROOT / "configs").rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 300, path
        assert "utils" not in path.name
