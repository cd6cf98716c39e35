"""How many devices lie along each axis of the mesh, and which axes of arrays are split over them."""

from dataclasses import dataclass, fields

from vit_attn.spec.errors import UserError
from vit_attn.spec.setting import setting

AXES = ("data", "fsdp", "seq", "model")
# Logical axes that occur in one array: none of them may share a mesh axis.
TOGETHER = (
    ("embed", "heads"),
    ("embed", "mlp"),
    ("embed", "classes"),
    ("batch", "tokens", "heads"),
    ("batch", "tokens", "mlp"),
    ("batch", "classes"),
)


@dataclass(frozen=True)
class MeshSpec:
    """Devices along each axis. One of them may be -1: what is left."""

    data: int = setting(-1, free=True, at_least=-1)  # images
    fsdp: int = setting(1, free=True, at_least=-1)  # images too, and the parameters with their moments
    seq: int = setting(1, free=True, at_least=-1)  # tokens of an image; see model.attention.seq_layout
    model: int = setting(1, free=True, at_least=-1)  # heads, channels of the MLP, classes


@dataclass(frozen=True)
class RulesSpec:
    """The mesh axes over which each logical axis of an array is split; (): it stays whole.

    Parameters and their moments have `embed` (the width, where it is an axis of a matrix), `heads`, `mlp` (the MLP's hidden
    channels) and `classes`; activations have `batch`, `tokens`, and the last three.
    """

    batch: tuple[str, ...] = setting(("data", "fsdp"), free=True, choices=AXES)
    tokens: tuple[str, ...] = setting(("seq",), free=True, choices=("seq",))
    embed: tuple[str, ...] = setting(("fsdp",), free=True, choices=AXES)
    heads: tuple[str, ...] = setting(("model",), free=True, choices=AXES)
    mlp: tuple[str, ...] = setting(("model",), free=True, choices=AXES)
    classes: tuple[str, ...] = setting(("model",), free=True, choices=AXES)


MESH, RULES = MeshSpec(), RulesSpec()


def check_mesh(mesh: MeshSpec, rules: RulesSpec) -> None:
    """Raises UserError for sizes that cannot be, and for rules that put two axes of an array on one mesh axis."""
    sizes = {field.name: getattr(mesh, field.name) for field in fields(mesh)}
    if 0 in sizes.values() or list(sizes.values()).count(-1) > 1:
        given = ", ".join(f"config.mesh.{name}={size}" for name, size in sizes.items())
        raise UserError(f"{given}: each must be at least 1, and one of them may be -1 (the devices that are left)")
    for name in (field.name for field in fields(rules)):
        if len(set(getattr(rules, name))) < len(getattr(rules, name)):
            raise UserError(f"config.rules.{name}={getattr(rules, name)} names an axis twice: name it once")
    for logical in TOGETHER:
        taken: dict[str, str] = {}
        for name in logical:
            for axis in getattr(rules, name):
                if axis in taken:
                    raise UserError(
                        f"config.rules.{name}={getattr(rules, name)} and config.rules.{taken[axis]}="
                        f"{getattr(rules, taken[axis])} put two axes of one array on mesh axis "
                        f"{axis!r}: take it out of one of them"
                    )
                taken[axis] = name
