"""What a model is. Every default lives here, once. `knob=True`: see spec.run."""

from dataclasses import dataclass

from vit_attn.ops.nonlinearity import NONLINEARITY
from vit_attn.spec.setting import setting


@dataclass(frozen=True)
class AttentionSpec:
    """Attention weights L^-alpha * h(q.k/sqrt(d)) (arXiv:2309.08586, section 3), softmax or a relative; a gate behind them.

    sigmoid_bias is sigmoid(z - log L), softmax1 a softmax with one more logit that is 0, and clipped_softmax
    clip((zeta - gamma) softmax(z) + gamma, 0, 1) (arXiv:2306.12929, section 4.1). gelu is the tanh approximation.
    """

    h: str = setting("softmax", choices=NONLINEARITY)
    alpha: float | None = setting(None, knob=True)  # None: 1 for the pointwise h of the paper; the others have no alpha
    alpha_learned: str = setting("none", choices=("none", "layer", "head"))  # one parameter each, which starts at alpha
    gamma: float | None = setting(None, knob=True, at_most=0)  # of clipped_softmax; None: -0.003 (table 7), or gamma_per_length
    gamma_per_length: float | None = setting(None, knob=True, at_least=0)  # c: gamma = -c / L
    zeta: float | None = setting(None, knob=True, at_least=1)  # of clipped_softmax; None: 1
    qk_norm: str = setting("head", choices=("none", "head", "width"))  # LayerNorm of q and k over the head's d or all H * d
    qk_norm_scale: bool = True  # flax's normalize_qk has a learned scale and no bias; the paper does not say
    qk_norm_bias: bool = False
    gate: str = setting("none", choices=("none", "gau", "linear", "mlp", "all_heads"))  # see ops.gate
    gate_activation: str | None = setting(None, choices=("silu", "gelu", "relu", "sigmoid", "identity"))  # of gau; None: silu
    n_hid: int | None = setting(None, at_least=1)  # of mlp; None: 4 (the paper's number; its code has d/4)
    pi_init: float | None = setting(None, knob=True, above=0, below=1)  # of linear, mlp, all_heads; None: 0.5
    gate_std: float | None = setting(None, at_least=0)  # of the initial weights of those gates (of mlp: its last), normal;
    # None: uniform as PyTorch's. The paper's code fine-tunes with 0.01 and 0.001
    gate_rescale: bool = False  # those gates' output over pi_init: a gate at pi_init changes nothing (fine-tuning, B.6)
    dropout: float = setting(0.0, at_least=0, below=1)  # of the attention weights
    impl: str = setting("auto", free=True, choices=("auto", "dense", "blockwise", "pallas"))  # see ops.choice
    block: int | None = setting(None, free=True, at_least=1)  # keys that blockwise takes at a time; None: 512, on CPU all
    seq_layout: str = setting("auto", free=True, choices=("auto", "gather", "queries", "ring"))  # see parallel.sequence


# jax.checkpoint_policies by name: keep nothing but a block's input; matrix products; those of weights, not of attention
REMAT = ("nothing_saveable", "dots_saveable", "dots_with_no_batch_dims_saveable")


@dataclass(frozen=True)
class ModelSpec:
    """A Vision Transformer, as big_vision's. Sizes left at 0 come from `variant`."""

    variant: str = "S/16"
    width: int = setting(0, at_least=0)
    depth: int = setting(0, at_least=0)
    mlp_dim: int = setting(0, at_least=0)
    heads: int = setting(0, at_least=0)
    patch: int = setting(0, at_least=0)  # pixels a side
    image_size: int = setting(224, at_least=1)  # pixels a side
    num_classes: int = setting(1000, at_least=1)
    posemb: str = setting("learn", choices=("learn", "sincos2d"))
    pool: str = setting("gap", choices=("gap", "tok", "map"))
    rep_size: bool = False  # a Dense(width) + tanh layer before the head ("pre_logits")
    head_bias: float = 0.0  # initial bias of the head: -10 for i21k, -6.9 for i1k with the sigmoid loss
    patch_norm: str = setting("none", choices=("none", "patches", "tokens"))  # LayerNorm of the embedded patches, before or
    # after positions and CLS (arXiv:2306.12929, table 7, does not say which)
    layer_scale: float | None = setting(None, above=0)  # initial value of a factor a channel on each residual branch
    drop_path: float = setting(0.0, at_least=0, below=1)  # probability that the last block's branches are left out for an image
    # in training; it grows linearly from 0 in the first block (arXiv:1603.09382, as timm)
    dtype: str = setting("float32", choices=("float32", "bfloat16"))  # of the computation; parameters are float32
    scan_layers: bool = setting(False, free=True)  # blocks as a loop: compiles in the time of one, and runs somewhat slower
    remat: str = setting("auto", free=True, choices=("auto", "none", *REMAT))  # what blocks keep for the backward and do not
    # compute again; none: everything; auto: that too, but of scanned layers matrix products and the attention's output
    attention: AttentionSpec = AttentionSpec()

    @property
    def length(self) -> int:
        """L: the tokens that the encoder attends over, a CLS token included."""
        return (self.image_size // self.patch) ** 2 + (self.pool == "tok")


MODEL = ModelSpec()  # ViT-S/16 with softmax and qk-layernorm
