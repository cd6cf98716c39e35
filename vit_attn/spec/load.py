"""Config files and command-line overrides -> plain values for `resolve`. Here, and only here, ml_collections comes in."""

import ast
import importlib.util
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from vit_attn.spec.errors import UserError
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import RunSpec


def load_run(config: str, overrides: Mapping[str, Any]) -> RunSpec:
    """ "configs/x.py:key=value,..." and {"train.peak_lr": 3e-4} -> the run. Raises UserError for any mistake in either."""
    values = load_config(config)
    for key, value in overrides.items():
        override(values, key, value)
    return resolve(values)


def load_config(config: str) -> dict[str, Any]:
    """Calls `get_config(arg)` of "path.py:arg" and returns its ConfigDict as plain nested dictionaries."""
    loaded = call_config(config, "get_config")
    if not isinstance(loaded, ConfigDict):
        raise UserError(
            f"get_config of {config!r} returned a {type(loaded).__name__}, but an ml_collections.ConfigDict is needed"
        )
    return loaded.to_dict()


def call_config(config: str, function: str) -> Any:
    """Calls `function(arg)` of the Python file in "path.py:arg". An error in there becomes a UserError that says where."""
    path, _, arg = config.partition(":")
    module = _import(Path(path))
    if not callable(getattr(module, function, None)):
        raise UserError(f"config file {path!r} does not define {function}(arg)")
    try:
        return getattr(module, function)(arg)
    except (Exception, SystemExit) as error:
        raise _failed(path, error) from error


def override(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets the dotted `key` in nested dictionaries. Whether the key and the value make sense, `resolve` judges."""
    *sections, last = key.split(".")
    for depth, section in enumerate(sections):
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UserError(f"config.{key}: config.{'.'.join(sections[: depth + 1])}={inner!r} is a value, not a section")
        values = inner
    values[last] = value


def split_overrides(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Takes `--config.a.b=c` and `--config.a.b c` out of a command line: (the rest, {"a.b": c})."""
    rest: list[str] = []
    found: dict[str, Any] = {}
    words = iter(argv)
    for word in words:
        if not word.startswith("--config."):
            rest.append(word)
            continue
        key, equals, text = word.removeprefix("--config.").partition("=")
        if not equals:
            text = next(words, "")
            if not text:
                raise UserError(f"--config.{key} needs a value: --config.{key}=VALUE")
        found[key] = literal(text)
    return rest, found


def literal(text: str) -> Any:
    """ "3e-4" -> 0.0003, "true" -> True, "none" -> None, "relu" -> "relu"."""
    words = {
        "true": True,
        "false": False,
        "none": None,
        "null": None,
        "nan": float("nan"),
        "inf": float("inf"),
        "-inf": -float("inf"),
    }
    if text.lower() in words:
        return words[text.lower()]
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def _import(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"config file {str(path)!r} does not exist")
    root = next((folder.parent for folder in path.resolve().parents if folder.name == "configs"), path.resolve().parent)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))  # so that a config can import configs.common
    found = importlib.util.spec_from_file_location(path.stem, path)
    if found is None or found.loader is None:
        raise UserError(f"config file {str(path)!r} is not a Python file (its name must end in .py)")
    module = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _failed(str(path), error) from error
    return module


def _failed(path: str, error: BaseException) -> UserError:
    if isinstance(error, UserError | ValueError) and not isinstance(error, SyntaxError):
        return UserError(f"config file {path!r}: {error}")
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == Path(path)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else "?"
    return UserError(f"config file {path!r}, line {line}: {type(error).__name__}: {error}")
