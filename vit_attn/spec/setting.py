"""One setting of a spec: a dataclass field that knows its own bounds, and the strict reading of plain values into it."""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from vit_attn.spec.errors import UserError, unknown

Spec = TypeVar("Spec")
FLOAT32_MAX = 3.4028234e38


def setting(
    default: Any,
    *,
    knob: bool = False,
    free: bool = False,
    choices: Iterable[str] = (),
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A field of a spec.

    `knob=True` marks a number that enters the compiled step as an argument (never recompiles), `free=True` what may change
    when a run is resumed: where and how fast things happen, not what comes out.
    """
    limits = {"at_least": at_least, "at_most": at_most, "above": above, "below": below}
    bounds = {"knob": knob, "free": free, "choices": tuple(choices), **limits}
    return dataclasses.field(default=default, metadata=bounds)


def build(cls: type[Spec], values: Mapping[str, Any], path: str = "config") -> Spec:
    """Makes the frozen dataclass `cls` from plain values, recursively.

    Raises UserError, naming the key, the value and the choices, for an unknown key, a wrong type or a value out of bounds.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = _hints(cls)  # type: ignore[arg-type]  # of a cached function: a class is hashable
    for key in values:
        if key not in fields:
            raise unknown(f"{path}.{key}: the key", key, fields)
    read = {}
    for key, value in values.items():
        where, hint = f"{path}.{key}", hints[key]
        if hasattr(hint, "__dataclass_fields__"):
            read[key] = build(hint, _section(where, value, _names(hint)), where)
        elif "kind" in fields[key].metadata:
            read[key] = _named(where, value, fields[key].metadata["kind"])
        else:
            if value is None and "none" in fields[key].metadata.get("choices", ()):
                value = "none"  # a choice of that name: the command line reads the word as None
            read[key] = _checked(where, _typed(where, hint, value), fields[key].metadata)
    return cls(**read)


@functools.cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    """Evaluated once: who looks at a sweep resolves a thousand runs."""
    return typing.get_type_hints(cls)


def _named(where: str, value: Any, kind: Callable[[Any, str], type[Any]]) -> dict[str, Any]:
    """A section of sections under free names, each of the dataclass that `kind` sees in it. None in place of one: not there."""
    sections = _section(where, value, ("a name of your own",))
    read = {}
    for name, inner in sections.items():
        if inner is not None:
            path = f"{where}.{name}"
            read[name] = build(kind(_section(path, inner, ("type",)), path), inner, path)
    return read


def _section(where: str, value: Any, keys: Iterable[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}={value!r} must be a section with the keys {', '.join(keys)}")
    return value


def _names(cls: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(cls)]


def _typed(where: str, hint: Any, value: Any) -> Any:
    """`value` as the type that the annotation asks for; int becomes float, and a list a tuple."""
    if typing.get_origin(hint) is tuple:
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}={value!r} is of type {type(value).__name__}, but a list is needed")
        return tuple(_typed(f"{where}[{i}]", typing.get_args(hint)[0], item) for i, item in enumerate(value))
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and types.NoneType in options:
        return None
    if float in options and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) <= FLOAT32_MAX else math.copysign(math.inf, value)
    if not any(type(value) is option for option in options):
        wanted = " or ".join(option.__name__ for option in options)
        raise UserError(f"{where}={value!r} is of type {type(value).__name__}, but {wanted} is needed")
    return value


def _checked(where: str, value: Any, bounds: Mapping[str, Any]) -> Any:
    if isinstance(value, float) and not abs(value) <= FLOAT32_MAX:
        raise UserError(f"{where}={value} is not a finite number (in float32)")
    for one in value if isinstance(value, tuple) else (value,):
        if bounds.get("choices") and one is not None and one not in bounds["choices"]:
            raise unknown(f"{where}: the value", str(one), bounds["choices"])
    rules = (
        ("at_least", ">=", lambda bound: value >= bound),
        ("at_most", "<=", lambda bound: value <= bound),
        ("above", ">", lambda bound: value > bound),
        ("below", "<", lambda bound: value < bound),
    )
    for name, sign, holds in rules:
        bound = bounds.get(name)
        if bound is not None and value is not None and not holds(bound):
            raise UserError(f"{where}={value!r} must be {sign} {bound}")
    return value
