"""How this run's attention will be computed: checked before any time is spent, and said at the start."""

from jax.sharding import Mesh

from vit_attn.ops.choice import choose_impl, why_not_pallas
from vit_attn.ops.form import Form
from vit_attn.parallel.sequence.attention import choose_layout
from vit_attn.spec.errors import UserError
from vit_attn.spec.model import ModelSpec


def attention_line(model: ModelSpec, mesh: Mesh) -> str:
    """ "attention: relu, L 197, blockwise", and how tokens are spread if they are.

    Raises UserError for an implementation that these devices or heads lack.
    """
    spec, heads = model.attention, (model.heads, model.width // model.heads)
    platform = mesh.devices.flat[0].platform
    if spec.impl == "pallas":
        reason = why_not_pallas(*heads) if platform == "tpu" else f"its kernels are for TPUs, and this is a {platform}"
        if reason:
            raise UserError(
                f"config.model.attention.impl='pallas' is not possible: {reason}; take impl from auto, dense, blockwise"
            )
    form = Form(spec.h, dropout=spec.dropout)
    parts = [spec.h, f"L {model.length}", choose_impl(spec.impl, platform, form, model.length, *heads)]
    if spec.gate != "none":
        parts.append(f"gate {spec.gate}")
    if mesh.shape["seq"] > 1:
        parts.append(f"tokens over {mesh.shape['seq']} devices ({choose_layout(spec.seq_layout, spec.h)})")
    return f"attention: {', '.join(parts)}"
