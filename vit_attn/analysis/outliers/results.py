"""What was found in one run."""

from dataclasses import dataclass

from vit_attn.analysis.outliers.measure import Statistics
from vit_attn.analysis.outliers.metrics import Heads


@dataclass(frozen=True)
class Results:
    """Of one run. `step` is its checkpoint's, `split` what the images are of."""

    step: int
    split: str
    statistics: Statistics
    heads: Heads
    metrics: dict[str, float]

    @property
    def line(self) -> str:
        """ "step 250, 512 images of 'validation': max inf norm 31.2, kurtosis 5.1 (block); ..."."""
        of = {name.partition("/")[2]: value for name, value in self.metrics.items()}
        found = (
            f"dimension {of['top_dim']:.0f} has {of['top_dim_share']:.0%} of them" if of["top_dim"] >= 0 else "there are none"
        )
        return (
            f"step {self.step}, {self.statistics.images} images of {self.split!r}: max inf norm {of['max_inf_norm']:.4g}, "
            f"kurtosis {of['kurtosis']:.4g} (of the MLP: {of['ffn_max_inf_norm']:.4g}, {of['ffn_kurtosis']:.4g}); "
            f"outliers {of['share']:.2g} of all numbers, {found}"
        )
