"""One run, looked into: from its checkpoint to the files in its place."""

from contextlib import closing
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from vit_attn.analysis.outliers.files import write
from vit_attn.analysis.outliers.logged import logged_outliers
from vit_attn.analysis.outliers.measure import measure
from vit_attn.analysis.outliers.members import Member
from vit_attn.analysis.outliers.metrics import choose_heads, metrics_of
from vit_attn.analysis.outliers.results import Results
from vit_attn.analysis.outliers.sample import Sample, sample_of, shown_images
from vit_attn.data.passes import Pass
from vit_attn.data.pipeline import pass_batches
from vit_attn.data.sources.open import open_source
from vit_attn.data.sources.source import Source
from vit_attn.data.workers import Workers
from vit_attn.evals.evaluator import whole_pass
from vit_attn.spec.errors import UserError
from vit_attn.train.saved import saved_params


def open_split(member: Member, split: str | None) -> Source:
    """Raises UserError for a split, or data, that are not there."""
    data = member.spec.data
    return open_source(
        data.split(split or member.spec.eval.split),
        member.spec.model.num_classes,
        stream_window=data.stream_window,
        timeout_seconds=data.timeout_seconds,
        where="config.data" if split is None else "--split and config.data",
    )


def look_into(member: Member, source: Source, images: int, batch_images: int) -> Results:
    """Raises UserError, naming the run, for activations that are not finite."""
    spec, data = member.spec, member.spec.data
    step, params = saved_params(member.run_dir, spec)
    one = replace(whole_pass(spec, source, data.max_labels, None, images), batch_images=min(batch_images, images, len(source)))
    with closing(Workers(0, data.threads)) as workers, closing(pass_batches(data, one, workers)) as batches:
        try:
            statistics = measure(spec, params, batches)
        except UserError as error:
            raise UserError(f"{member.run_dir.path}, step {step}: {error}") from error
    heads = choose_heads(statistics)
    results = Results(step, source.split, statistics, heads, metrics_of(statistics, heads))
    indices = shown_images(statistics, heads)
    sample = sample_of(spec, params, heads, indices, _pixels(member, replace(one, indices=indices, batch_images=len(indices))))
    _write(member, results, sample)
    return results


def _pixels(member: Member, one: Pass) -> UInt8[np.ndarray, "n Y X 3"]:
    data = member.spec.data
    with closing(Workers(0, data.threads)) as workers, closing(pass_batches(data, one, workers)) as batches:
        return next(batches)["image"]


def _write(member: Member, results: Results, sample: Sample) -> None:
    from vit_attn.analysis.outliers.figures import draw_all  # matplotlib takes its time

    logged = logged_outliers(member.run_dir.metrics())
    member.out.mkdir(parents=True, exist_ok=True)
    draw_all(member.out, f"{member.name}, step {results.step}", results, sample, logged)
    write(member.out, member.run_dir.path, member.spec, results, sample)
