"""--backend slurm:partition=gpu,nodes=2 -> the name of a backend and its settings, a frozen dataclass."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

from vit_attn.spec.errors import UserError, unknown

T = TypeVar("T")
KINDS = {int: "a whole number", bool: "true or false", str: "a word"}


def split(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The name, and its KEY=VALUE pairs. Raises UserError for a pair without =."""
    name, _, arguments = text.partition(":")
    pairs = []
    for item in filter(None, arguments.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"--backend={text}: {item!r} must be KEY=VALUE, for example {name}:{key}=...")
        pairs.append((key, value))
    return name, pairs


def options(kind: type[T], name: str, pairs: Sequence[tuple[str, str]]) -> T:
    """`kind` with the pairs in the types of its fields. UserError for what it does not have, or needs and did not get."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, text in pairs:
        if key not in fields:
            raise unknown(f"--backend={name}: the setting", key, fields)
        values[key] = _typed(name, key, text, fields[key].type)
    needed = [key for key, field in fields.items() if field.default is dataclasses.MISSING and key not in values]
    if needed:
        raise UserError(f"--backend={name}: {', '.join(needed)} is missing: --backend {name}:{needed[0]}=VALUE,...")
    return kind(**values)


def _typed(name: str, key: str, text: str, kind: Any) -> Any:
    words = {"true": True, "false": False}
    try:
        value = words[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise UserError(f"--backend={name}: {key}={text!r} must be {KINDS[kind]}") from None
    if kind is int and value < 0:
        raise UserError(f"--backend={name}: {key}={value} must be at least 0")
    return value
