"""A sweep's config file -> its members, each a resolved run with a readable name, grouped into packs."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.names import name_of, pack_name_of, varied_keys
from vit_attn.spec.errors import UserError
from vit_attn.spec.load import call_config, load_run
from vit_attn.spec.run import RunSpec, static_of

Point = dict[str, Any]


@dataclass(frozen=True)
class Member:
    """One run of a sweep: `config` and `overrides` are what `python -m vit_attn.main` takes, `spec` what they resolve to."""

    name: str
    config: str
    overrides: dict[str, Any]
    spec: RunSpec


@dataclass(frozen=True)
class Pack:
    """Members that differ in knobs only, so that one process trains them with one compiled program."""

    name: str
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Grid:
    """A whole sweep. `config` and `overrides` are as given on the command line."""

    config: str
    overrides: dict[str, Any]
    packs: tuple[Pack, ...]

    @property
    def members(self) -> list[Member]:
        return [member for pack in self.packs for member in pack.members]


def load_grid(config: str, overrides: dict[str, Any]) -> Grid:
    """ "configs/sweeps/x.py:arg" and the overrides that hold for all members -> the sweep, every member resolved.

    Raises UserError for a file without get_sweep, points that are no points, an axis that the base does not know, an
    impossible member, and members that are the same run.
    """
    points = _read(config)
    varied = varied_keys(points)
    members = [_member(config, points, index, overrides, varied) for index in range(len(points))]
    _check_distinct(config, members)
    return Grid(config, overrides, tuple(_packs(members, points, varied)))


def _read(config: str) -> list[Point]:
    """What get_sweep returns, checked: the points, each with its base config as "base"."""
    loaded = call_config(config, "get_sweep")
    if not isinstance(loaded, dict) or not {"points"} <= set(loaded) <= {"base", "points"}:
        got = (
            f"the keys {', '.join(map(str, loaded)) or '(none)'}" if isinstance(loaded, dict) else f"a {type(loaded).__name__}"
        )
        raise UserError(f'get_sweep of {config!r} must return {{"base": "configs/x.py", "points": [...]}}, not {got}')
    points = loaded["points"]
    if not isinstance(points, list | tuple):
        raise UserError(f"get_sweep of {config!r}: points must be a list of dictionaries, not a {type(points).__name__}")
    if not points:
        raise UserError(f"get_sweep of {config!r}: the grid is empty (points has no entry, or one of its axes has no value)")
    plain = [_point(config, index, point) for index, point in enumerate(points)]
    return [{**point, "base": _base(config, index, point.get("base", loaded.get("base")))} for index, point in enumerate(plain)]


def _base(config: str, index: int, base: Any) -> str:
    """The base's path: as seen from here, or else from the project that the sweep file lies in."""
    if not isinstance(base, str):
        where = f"get_sweep of {config!r}: point {index}"
        raise UserError(f"{where}: base={base!r} must be the path of a config file, such as 'configs/x.py'")
    path, colon, arg = base.partition(":")
    sweep = Path(config.partition(":")[0]).absolute()
    found = next((folder / path for folder in sweep.parents if (folder / path).is_file()), None)
    if Path(path).is_file() or found is None:
        return base
    return f"{found}{colon}{arg}"


def _point(config: str, index: int, point: Any) -> Point:
    where = f"get_sweep of {config!r}: point {index}"
    if not isinstance(point, dict):
        raise UserError(
            f"{where} is a {type(point).__name__}, but a dictionary such as {{'h': 'relu', 'alpha': 1.0}} is needed"
        )
    plain = {key: value.item() if hasattr(value, "item") else value for key, value in point.items()}  # numpy's scalars
    for key, value in plain.items():
        if not isinstance(key, str):
            raise UserError(f"{where}: the axis {key!r} must be a string")
        if value is not None and not isinstance(value, str | int | float):
            raise UserError(f"{where}: {key}={value!r} must be a single number, word or None, not a {type(value).__name__}")
    return plain


def _member(config: str, points: list[Point], index: int, overrides: dict[str, Any], varied: list[str]) -> Member:
    point = points[index]
    base, axes = point["base"], {key: value for key, value in point.items() if key != "base"}
    arguments = ",".join(f"{key}={value}" for key, value in axes.items() if "." not in key and value is not None)
    joint = "," if ":" in base else ":"
    member_config = f"{base}{joint}{arguments}" if arguments else base
    settings = {**{key: value for key, value in axes.items() if "." in key}, **overrides}
    try:
        spec = load_run(member_config, settings)
    except UserError as error:
        raise UserError(f"sweep {config!r}, point {index} {axes}: {error}") from error
    return Member(name_of(spec, point, varied), member_config, settings, spec)


def _check_distinct(config: str, members: list[Member]) -> None:
    for what, values in (("run", [member.spec for member in members]), ("name", [member.name for member in members])):
        value, count = Counter(values).most_common(1)[0]
        if count > 1:
            same = [index for index, other in enumerate(values) if other == value]
            raise UserError(
                f"sweep {config!r}: points {', '.join(map(str, same))} have the same {what}, {members[same[0]].name}: "
                "leave out all but one (an override on the command line holds for every point)"
            )


def _packs(members: list[Member], points: list[Point], varied: list[str]) -> list[Pack]:
    """Groups by equal static settings, in order of first appearance."""
    groups: dict[RunSpec, list[int]] = {}
    for index, member in enumerate(members):
        groups.setdefault(static_of(member.spec), []).append(index)
    packs: list[Pack] = []
    for group in groups.values():
        name = pack_name_of(members[group[0]].spec, [points[index] for index in group], varied)
        namesakes = sum(pack.name == name or pack.name.startswith(f"{name}.") for pack in packs)
        packs.append(Pack(f"{name}.{namesakes + 1}" if namesakes else name, tuple(members[index] for index in group)))
    return packs
