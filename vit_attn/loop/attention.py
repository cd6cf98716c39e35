"""How this run's attention will be computed: checked before any time is spent, and said at the start."""

from jax.sharding import Mesh

from vit_attn.ops.choice import Sizes, choose_impl, why_not_pallas
from vit_attn.ops.nonlinearity import ROWWISE
from vit_attn.parallel.sequence.attention import choose_layout
from vit_attn.spec.errors import UserError
from vit_attn.spec.model import ModelSpec


def attention_line(model: ModelSpec, mesh: Mesh) -> str:
    """ "attention: relu, L 197, blockwise", and how tokens are spread if they are.

    Raises UserError for an implementation that these devices or heads lack.
    """
    spec, platform = model.attention, mesh.devices.flat[0].platform
    shared = mesh.shape.get("model", 1)
    heads = model.heads if model.heads % shared else model.heads // shared  # on one device
    sizes = Sizes(model.length, heads, model.width // model.heads, model.dtype)
    if spec.impl == "pallas":
        reason = why_not_pallas(sizes) if platform == "tpu" else f"its kernels are for TPUs, and this is a {platform}"
        if reason:
            raise UserError(
                f"config.model.attention.impl='pallas' is not possible: {reason}; take impl from auto, dense, blockwise"
            )
    impl = choose_impl(spec.impl, platform, spec.dropout, sizes)
    layout = choose_layout(spec.seq_layout, spec.h)
    if mesh.shape["seq"] > 1 and spec.h in ROWWISE and layout != "gather":
        impl = "blockwise"  # shares of a softmax are merged, and only it gives them
    parts = [spec.h, f"L {model.length}", impl]
    if spec.gate != "none":
        parts.append(f"gate {spec.gate}")
    if mesh.shape["seq"] > 1:
        parts.append(f"tokens over {mesh.shape['seq']} devices ({layout})")
    return f"attention: {', '.join(parts)}"
