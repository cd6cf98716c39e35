"""Calibration images: of the training split, as evaluation sees them, never of the validation split."""

from collections.abc import Iterator
from contextlib import closing

import numpy as np
from jaxtyping import UInt8

from vit_attn.data.passes import Pass
from vit_attn.data.pipeline import pass_batches
from vit_attn.data.sources.open import open_source
from vit_attn.data.sources.source import Source
from vit_attn.data.workers import Workers
from vit_attn.spec.errors import UserError
from vit_attn.spec.quant import QuantSpec
from vit_attn.spec.run import RunSpec


def calibration_source(run: RunSpec, quant: QuantSpec, validation: Source) -> Source:
    """Raises UserError for a split that is not there, or one that has an image of the validation split."""
    data, split = run.data, quant.split or run.data.train_split
    source = open_source(
        data.split(split),
        run.model.num_classes,
        stream_window=data.stream_window,
        timeout_seconds=data.timeout_seconds,
        where="config.split: config.data",
    )
    if len(source) < (wanted := quant.batches * quant.batch_images):
        raise UserError(
            f"config.split={split!r} has {len(source)} images, and config.batches={quant.batches} x config.batch_images="
            f"{quant.batch_images} are {wanted}: take a larger split, or fewer"
        )
    theirs = {validation.identity(index) for index in range(len(validation))}
    if common := sum(source.identity(index) in theirs for index in range(len(source))):
        raise UserError(
            f"config.split={split!r} has {common} of the {len(theirs)} images of the validation split {run.eval.split!r}: "
            f"calibrate on others, as {run.data.train_split!r}, or the accuracy would be worth less"
        )
    return source


def calibration_batches(
    run: RunSpec, quant: QuantSpec, source: Source, view: Pass, repeat: int, workers: Workers
) -> Iterator[UInt8[np.ndarray, "B Y X 3"]]:
    """The first batches of the training order that quant.seed + repeat draws: the same images at any time."""
    wanted = range(quant.batches * quant.batch_images)
    indices = [source.order(position, quant.seed + repeat)[1] for position in wanted]
    one = Pass(source, view.view, quant.batch_images, indices, view.max_labels, run.model.num_classes)
    with closing(pass_batches(run.data, one, workers)) as batches:
        for batch in batches:
            yield batch["image"]
