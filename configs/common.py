"""What config files share: their arguments, and the grid language of sweeps."""

import itertools
from collections.abc import Iterable
from typing import Any


def parse_arg(arg: str, **defaults: Any) -> dict[str, Any]:
    """ "h=relu,alpha=1" -> {**defaults, "h": "relu", "alpha": 1.0}: the arguments of `get_config`, as big_vision's.

    A value takes the type of its default; a default of None stands for an optional float. Raises ValueError for a key that
    has no default, or a value that is not of its type.
    """
    values = dict(defaults)
    for item in filter(None, arg.split(",")):
        key, equals, text = item.partition("=")
        if key not in defaults or not equals:
            raise ValueError(f"argument {item!r} is not one of {', '.join(f'{k}={v}' for k, v in defaults.items())}")
        values[key] = _as_type_of(defaults[key], key, text)
    return values


def _as_type_of(default: Any, key: str, text: str) -> Any:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"argument {key}={text!r} must be true or false")
        return text.lower() == "true"
    kind = float if default is None else type(default)
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"argument {key}={text!r} is not of type {kind.__name__}") from error


def product(**axes: Iterable[Any]) -> list[dict[str, Any]]:
    """Every combination of the axes, the last one fastest: product(h=["relu"], alpha=[0, 1]) has two points.

    An axis is named after an argument of the base config (`h`), or after a setting, with its dots ("train.peak_lr", given as
    product(**{"train.peak_lr": [...]})).
    """
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
