"""Which file is whose: the two formats of parameters, by the suffix, or by name."""

from pathlib import Path

from vit_attn.interop import big_vision, files, timm
from vit_attn.interop.flat import Flat
from vit_attn.spec.errors import UserError, unknown
from vit_attn.spec.model import ModelSpec

FORMATS = {".npz": "big_vision", ".safetensors": "timm"}  # what each suffix holds unless --format says otherwise


def format_of(path: Path, given: str | None, flag: str) -> str:
    """UserError for another suffix, or a format that does not exist."""
    if path.suffix not in FORMATS:
        raise UserError(f"{flag}={path}: the name must end in {' or '.join(FORMATS)}")
    if given is not None and given not in FORMATS.values():
        raise unknown("--format: the value", given, FORMATS.values())
    return given or FORMATS[path.suffix]


def read(path: Path, given: str | None, heads: int | None) -> Flat:
    """Parameters by our paths, in float32."""
    chosen = format_of(path, given, "--from")
    arrays, source = files.read_arrays(path), f"--from={path}"
    if chosen == "timm":
        return timm.from_timm(arrays, heads, source)
    return big_vision.from_big_vision(arrays, source)


def write(path: Path, given: str | None, model: ModelSpec, flat: Flat) -> None:
    chosen, source = format_of(path, given, "--to"), f"--to={path}"
    change = timm.to_timm if chosen == "timm" else big_vision.to_big_vision
    files.write_arrays(path, change(model, flat, source))
