"""How many parameters a model has, and how many bytes a run's checkpoints take: by formula, so that a launcher can ask."""

from vit_attn.spec.model import ModelSpec
from vit_attn.spec.run import RunSpec

_BYTES = {"float32": 4, "bfloat16": 2}


def checkpoint_bytes(spec: RunSpec) -> int:
    """One checkpoint of one member: parameters in float32, Adam's first moments in config.train.adam_mu_dtype, its second ones
    in float32. Before compression, and without a few kilobytes of text."""
    return parameter_count(spec.model) * (4 + _BYTES[spec.train.adam_mu_dtype] + 4)


def parameter_count(model: ModelSpec) -> int:
    """Of models.vit.ViT: embedding, positions, encoder, pooling and head."""
    L, D, M = model.length, model.width, model.mlp_dim
    patches = L - (model.pool == "tok")
    embedding = 3 * model.patch**2 * D + D + (patches * D if model.posemb == "learn" else 0) + (D if model.pool == "tok" else 0)
    norms = 2 * D * (1 + (model.patch_norm != "none"))  # of the encoder's output, and of the patches
    mlp = D * M + M + M * D + D
    projections = 4 * (D * D + D)
    scales = 0 if model.layer_scale is None else 2 * D
    block = 2 * 2 * D + projections + _own(model) + mlp + scales
    pooling = D + projections + 2 * D + mlp if model.pool == "map" else 0
    head = (D * D + D) * model.rep_size + D * model.num_classes + model.num_classes
    return embedding + norms + model.depth * block + pooling + head


def _own(model: ModelSpec) -> int:
    """What a layer's attention has besides its projections: qk-layernorm, a gate, a learned alpha."""
    D, H, a = model.width, model.heads, model.attention
    hidden = a.n_hid or 0
    norm = {"none": 0, "head": D // H, "width": D}[a.qk_norm] * 2 * (a.qk_norm_scale + a.qk_norm_bias)
    mlp = D * hidden + H * hidden + H * hidden + H
    gates = {"none": 0, "gau": D * D + D, "all_heads": D * H + H, "linear": D + H, "mlp": mlp}
    learned = {"none": 0, "layer": 1, "head": H}[a.alpha_learned]
    return norm + gates[a.gate] + learned
