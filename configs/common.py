"""What config files share: their arguments."""

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


ATTENTION: dict[str, Any] = {  # arguments that every config takes: settings of config.model.attention, with their defaults
    "h": "softmax",
    "alpha": None,
    "gamma": None,
    "gamma_per_length": None,
    "zeta": None,
    "gate": "none",
    "pi_init": None,
    "qk_norm": "head",
}


def attention(a: dict[str, Any]) -> dict[str, Any]:
    """config.model.attention, of the arguments."""
    return {name: a[name] for name in ATTENTION}
