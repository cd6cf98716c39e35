"""Statistics of images -> flat metrics, by the conventions of arXiv:2306.12929 (section 5 and its released code).

The paper's x is "the output of an attention layer", by which it means a whole block. Which tensor that is differs in its code,
and of its ViT there is none; so both are given, and two more kurtoses. All are means over images first, then max or mean over
layers; x is one image's L x D numbers, a CLS token among them; kurtosis is Pearson's (Gaussian: 3).

    outliers/max_inf_norm, kurtosis            x = a block's output, the residual stream (OPT's norm; by Fig. 9, the ViT's)
    outliers/ffn_max_inf_norm, ffn_kurtosis    x = its MLP's output, before the sum (BERT's norm)
    outliers/ffn_norm_kurtosis                 x = this, and the output of the LayerNorm behind the block (BERT's kurtosis)
    outliers/all_max_inf_norm, all_kurtosis    x = outputs of blocks, MLPs, attentions and all LayerNorms (OPT's kurtosis)
    outliers/[WORD_]max_kurtosis               the largest of these kurtoses, where [WORD_]kurtosis is their mean
    outliers/FAMILY_inf_norm/layer_00, ...     of each tensor: see analysis.outliers.measure for the families

    outliers/share, share/layer_00, ...        of the numbers of the blocks' outputs, those further than 6 std from the mean
    outliers/top_dim, top_dim_share            the dimension with the most outliers (-1: there are none), and its share of them
    outliers/top10_dims_share                  ; and top_token, top_token_share, top10_tokens_share: a CLS token is position 0
    outliers/FAMILY_share, ...                 all of these of the other families
    outliers/images

    outliers/heads_layer, heads_dim            the block of `choose_heads`, and the dimension its rule went by
    outliers/ROLE_head, ROLE_mass, ...         of its owner and reader, or focused head: see `measure._of_heads`; over images
                                               that have outliers there, the focus over all
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from vit_attn.analysis.outliers.measure import EVERY_HEAD, LAST, Statistics
from vit_attn.evals.attention_stats import TOP, Outliers, top_share

PREFIX = "outliers"


@dataclass(frozen=True)
class Heads:
    """Heads of one block, by what they are to the outliers. Layers, heads and dimensions count from 0."""

    layer: int
    dim: int  # of the outliers; -1 where there were none
    by_role: dict[str, int]  # owner and reader (one head may be both), or where there were no outliers: focused

    @property
    def numbers(self) -> list[int]:
        """Each once, in the order of the roles."""
        return list(dict.fromkeys(self.by_role.values()))

    def roles(self, head: int) -> list[str]:
        return [role for role, number in self.by_role.items() if number == head]

    @property
    def rule(self) -> str:
        if self.dim < 0:
            return "no outliers before a block: the head that gives the largest share of its attention to one token"
        return (
            f"block {self.layer - 1} has the most outliers, most of them in dimension {self.dim}; of the next block's heads, "
            "the owner is the one among whose channels that dimension is, the reader the one with the largest share of "
            "attention on the tokens that have outliers"
        )


def choose_heads(statistics: Statistics) -> Heads:
    """Of the blocks but the last, the one whose output has the most outliers; in the next, where they are read, two heads.

    The owner is the head among whose channels, of all heads' one behind the other, their top dimension is: the heads that
    arXiv:2306.12929 shows (section 3 and appendix A). The reader attends to the tokens with outliers most, by mean share of
    attention over the images that have some; in the paper it is the owner. Without any: head and layer of the largest focus.
    """
    counts = statistics.outliers["block"].by_dim[:-1]
    if not counts.any():
        focus = _means(statistics.heads["focus"])
        layer, head = np.unravel_index(np.argmax(focus), focus.shape)
        return Heads(int(layer), -1, {"focused": int(head)})
    before = int(np.argmax(counts.sum(axis=1)))
    with_outliers = statistics.has_outliers[:, before]
    mass = _means(statistics.heads["mass"][with_outliers, before])
    dim, (_, width) = int(np.argmax(counts[before])), counts.shape
    return Heads(before + 1, dim, {"owner": dim // (width // len(mass)), "reader": int(np.argmax(mass))})


def metrics_of(statistics: Statistics, heads: Heads) -> dict[str, float]:
    found: dict[str, float] = {}
    norms = {family: _means(values) for family, values in statistics.norms.items()}
    kurtoses = {family: _means(values) for family, values in statistics.kurtoses.items()}
    of_bert = np.concatenate([kurtoses["ffn"], kurtoses["norm_0"][1:], kurtoses[LAST]])  # a LayerNorm behind each block
    of_all = np.concatenate(list(kurtoses.values()))
    for word, of in (("", kurtoses["block"]), ("ffn_", kurtoses["ffn"]), ("ffn_norm_", of_bert), ("all_", of_all)):
        found |= {f"{word}kurtosis": float(of.mean()), f"{word}max_kurtosis": float(of.max())}
    for family in ("block", "ffn"):
        found[f"{word_of(family)}max_inf_norm"] = norms[family].max()
    found["all_max_inf_norm"] = max(values.max() for values in norms.values())
    for quantity, values in (("inf_norm", norms), ("kurtosis", kurtoses)):
        for family, layers in values.items():
            names = [f"{family}_{quantity}" + ("" if family == LAST else f"/layer_{layer:02d}") for layer in range(len(layers))]
            found |= dict(zip(names, layers, strict=True))
    for family, outliers in statistics.outliers.items():
        found |= {f"{word_of(family)}{name}": value for name, value in _outliers(outliers, family != LAST).items()}
    found |= {**_of_heads(statistics, heads), "images": statistics.images}
    return {f"{PREFIX}/{name}": float(value) for name, value in found.items()}


def word_of(family: str) -> str:
    """What the metrics of outliers of a family begin with."""
    return "" if family == "block" else f"{family}_"


def _outliers(outliers: Outliers, by_layer: bool) -> dict[str, float]:
    by_dim, by_token, images = outliers
    numbers = max(images, 1) * by_dim.shape[1] * by_token.shape[1]
    layers = range(len(by_dim) if by_layer else 0)
    found = {f"share/layer_{layer:02d}": int(by_dim[layer].sum()) / numbers for layer in layers}
    found["share"] = int(by_dim.sum()) / (numbers * len(by_dim))
    for key, counts in (("dim", by_dim.sum(axis=0)), ("token", by_token.sum(axis=0))):
        found[f"top_{key}"] = float(np.argmax(counts)) if counts.any() else -1.0
        found[f"top_{key}_share"] = top_share(counts, 1)
        found[f"top{TOP}_{key}s_share"] = top_share(counts)
    return found


def _of_heads(statistics: Statistics, heads: Heads) -> dict[str, float]:
    found: dict[str, float] = {"heads_layer": heads.layer, "heads_dim": heads.dim}
    for role, head in heads.by_role.items():
        found[f"{role}_head"] = head
        for name in EVERY_HEAD:
            if name == "focus":
                found[f"{role}_focus"] = float(_means(statistics.heads[name])[heads.layer, head])
            elif heads.dim >= 0:
                with_outliers: Bool[np.ndarray, "N"] = statistics.has_outliers[:, heads.layer - 1]
                found[f"{role}_{name}"] = float(_means(statistics.heads[name][with_outliers, heads.layer - 1])[head])
    return found


def _means(images: Float[np.ndarray, "N ..."]) -> Float[np.ndarray, "..."]:
    """Over images, exactly rounded in float64: in which batches they came does not matter."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    return np.array([math.fsum(column) / max(len(column), 1) for column in flat.T]).reshape(images.shape[1:])
