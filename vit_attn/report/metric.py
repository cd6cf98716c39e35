"""The metric that figures show: how it is named, in which unit, and which direction is better."""

from collections.abc import Sequence
from dataclasses import dataclass

from vit_attn.report.collect import Row
from vit_attn.spec.errors import unknown

SHARES = ("accuracy", "top5", "shot")  # ends of names of metrics that are shares of images, shown in percent
WORDS = {
    "val/accuracy": "validation accuracy",
    "val/loss": "validation loss",
    "i1k/accuracy": "ImageNet-1k accuracy",
    "fewshot/mean_10shot": "10-shot linear transfer",
}


@dataclass(frozen=True)
class Metric:
    """An evaluated metric by its name in metrics.jsonl, at the end of training."""

    name: str = "val/accuracy"

    @property
    def is_share(self) -> bool:
        return self.name.endswith(SHARES)

    @property
    def higher_is_better(self) -> bool:
        return self.is_share

    @property
    def label(self) -> str:
        return WORDS.get(self.name, self.name) + (" (%)" if self.is_share else "")

    def of(self, row: Row) -> float | None:
        """In percent if it is a share; None unless the run is done and has it."""
        value = row.metrics.get(self.name) if row.state == "done" else None
        return None if value is None else 100.0 * value if self.is_share else value

    def error(self, value: float) -> float:
        """What falls with compute: 100 - accuracy, or the loss itself."""
        return 100.0 - value if self.is_share else value


def check_metric(metric: Metric, rows: Sequence[Row]) -> None:
    """Raises UserError if runs are done and none has the metric."""
    known = sorted({name for row in rows if row.state == "done" for name in row.metrics})
    if known and metric.name not in known:
        raise unknown("--metric: the metric", metric.name, known)
