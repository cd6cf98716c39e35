"""The evaluators, by the name of their type in config.evals."""

from collections.abc import Callable
from typing import Any

from vit_attn.evals.attention_stats import attention_stats
from vit_attn.evals.classification import classification, validation
from vit_attn.evals.evaluator import Evaluator
from vit_attn.evals.fewshot import fewshot
from vit_attn.evals.label_subset import label_subset
from vit_attn.spec.run import RunSpec

EVALUATORS: dict[str, Callable[[RunSpec, str, Any], Evaluator]] = {
    "classification": classification,
    "label_subset": label_subset,
    "fewshot": fewshot,
    "attention_stats": attention_stats,
}


def open_evaluators(spec: RunSpec) -> list[Evaluator]:
    """The validation split, then config.evals. Opens their data, and raises UserError for what is not there."""
    return [validation(spec), *(EVALUATORS[own.type](spec, prefix, own) for prefix, own in spec.evals.items())]
