"""What the values of config.evals must be, beyond their types."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vit_attn.spec.errors import UserError, unknown
from vit_attn.spec.evals import FEWSHOT_SETS, FewshotSpec, LabelSubsetSpec
from vit_attn.spec.run import RunSpec


def check_evals(spec: RunSpec) -> None:
    """Raises UserError, naming config.evals.NAME.KEY, for a value that cannot be."""
    for name, own in spec.evals.items():
        if isinstance(own, FewshotSpec):
            _check_fewshot(f"config.evals.{name}", own, spec.model.image_size)


def check_id_files(spec: RunSpec) -> None:
    """Raises UserError for a file of ids that is not there. For runs that are to be made: one that is read again, as by a
    report on another machine, does not need its files.
    """
    for name, own in spec.evals.items():
        if isinstance(own, LabelSubsetSpec):
            _check_file(f"config.evals.{name}.head_ids", own.head_ids)
            _check_file(f"config.evals.{name}.set_ids", own.set_ids)


def _check_fewshot(where: str, own: FewshotSpec, image_size: int) -> None:
    for key in ("sets", "shots", "seeds", "l2"):
        _check_list(f"{where}.{key}", getattr(own, key))
    for one in own.sets:
        if one not in FEWSHOT_SETS:
            raise unknown(f"{where}.sets: the data set", one, FEWSHOT_SETS)
    _check_values(f"{where}.shots", own.shots, 1, "at least 1")
    _check_values(f"{where}.seeds", own.seeds, 0, "at least 0")
    for value in own.l2:
        if not 0 < value < math.inf:
            raise UserError(f"{where}.l2={list(own.l2)}: {value} is not a finite number above 0")
    if 0 < own.resize_pixels < image_size:
        raise UserError(
            f"{where}.resize_pixels={own.resize_pixels} is less than config.model.image_size={image_size}, which is cut out of "
            "it: take at least that, or 0 for 256/224 of it"
        )


def _check_list(where: str, values: Sequence[Any]) -> None:
    if not values:
        raise UserError(f"{where} is empty: give at least one, or leave the setting out for its default")
    if len(set(values)) < len(values):
        raise UserError(f"{where}={list(values)} has a value more than once")


def _check_values(where: str, values: Sequence[int], least: int, rule: str) -> None:
    for value in values:
        if value < least:
            raise UserError(f"{where}={list(values)}: {value} must be {rule}")


def _check_file(where: str, file: str | None) -> None:
    """A file of this machine must be there. What is in a bucket shows when it is opened."""
    if file is not None and "://" not in file and not Path(file).expanduser().is_file():
        raise UserError(f"{where}={file!r} is not there: give a file with one WordNet id a line, in the order of the labels")
