"""Outliers of trained runs: which dimensions and patches they sit in, and what the heads that own and read them do with them.

    python -m vit_attn.analysis.outliers runs/one
    python -m vit_attn.analysis.outliers runs/grid --images 2000            # every member that is done, and a table of them
    python -m vit_attn.analysis.outliers runs/grid runs/seed1 --workdir runs/both_outliers

Takes the newest checkpoint of a run and the first images of its validation split. An outlier is a number further than 6 std
from the mean of its tensor (one image's L x D numbers): arXiv:2306.12929, section 3. Writes into RUN/outliers, or --workdir
(of several runs, each into a directory of its own in there):

    outliers.json            max infinity norm and kurtosis of each tensor, outliers, heads: see analysis/outliers/metrics.py
    layers.csv               infinity norm and kurtosis by tensor and layer
    by_dim.csv by_token.csv  how many outliers, by tensor, layer and hidden dimension or position; what is not listed has none
    heads.csv                by token of a few images: attention received, norms of values and updates; of the head among whose
                             channels the top dimension is, and of the head that attends to the outliers most
    figures, .png and .svg   outliers (Fig. 9 of the paper), by_token, by_dim, heads (Fig. 3), heads_matrices (Figs 2 and 8);
                             over_steps, where an evaluator attention_stats has logged norms, kurtosis and shares of outliers

and into --workdir, or outliers/ of the first path, summary.csv and summary.json: mean and std over seeds of accuracy, infinity
norm and kurtosis, and of the accuracies of quantized forms where RUN/quant/*/results.json is there (Table 7 of the paper).
Results of another checkpoint, or of other settings than the first member's of that name, are left out of it, and named.
The same command goes on where it was interrupted: a member whose outliers.json is there, for the same checkpoint and
images, is not looked into again. One that cannot be looked into is named at the end; the others go on. Exit codes: 0 written,
1 a member failed, 2 bad input.
"""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from vit_attn.analysis.outliers.members import Member, members_of, summary_folder
from vit_attn.analysis.outliers.quantized import alike, quantized_of
from vit_attn.spec.errors import UserError, exit_code_of, one_line
from vit_attn.spec.flags import Flags


def main(argv: Sequence[str]) -> int:
    """The command line. Raises UserError for bad input, before anything is created."""
    flags = _flags().parse_args(argv)
    images, batch_images = _number("--images", flags.images), _number("--batch-images", flags.batch_images)
    members = members_of(flags.run, flags.workdir)
    folder = summary_folder(flags.run, flags.workdir)

    from vit_attn.analysis.outliers.files import read_metrics  # here, so that --help and mistakes do not wait for jax
    from vit_attn.analysis.outliers.look import look_into, open_split
    from vit_attn.analysis.outliers.summary import summary_of, write_summary

    quantized = alike({member: quantized_of(member.run_dir.path, member.newest) for member in members})
    sources = [open_split(member, flags.split) for member in members]
    found: dict[Member, dict[str, float]] = {}
    failed: dict[Member, Exception] = {}
    for number, (member, source) in enumerate(zip(members, sources, strict=True), 1):
        try:
            there = read_metrics(member.out, member.spec, member.newest, source.split, min(images, len(source)))
            if there is None:
                results = look_into(member, source, images, batch_images)
                found[member], line = results.metrics, results.line
            else:
                found[member], line = there, f"complete (step {member.newest}): nothing to do"
            print(f"{member.out} ({number} of {len(members)}): {line}", flush=True)
        except Exception as error:  # whatever it is: the others do not depend on it
            if not isinstance(error, UserError) and len(members) > 1:
                traceback.print_exc()
            failed[member] = error
    if not found:
        raise next(iter(failed.values()))
    how = {name: one for member in found for name, one in quantized[member].items()}
    print(write_summary(folder, summary_of(found, quantized), how))
    for member, why in failed.items():
        print(f"failed: {member.name}: {one_line(why) or type(why).__name__}", file=sys.stderr)
    return 1 if failed else 0


def _flags() -> Flags:
    parser = Flags("vit_attn.analysis.outliers", __doc__)
    parser.add_argument("run", nargs="+", type=Path, metavar="RUN", help="a run that has saved a checkpoint, or a sweep")
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="where results go; default: RUN/outliers")
    parser.add_argument("--split", metavar="SPLIT", help="of the run's data set; default: its config.eval.split")
    parser.add_argument("--images", default="512", metavar="N", help="from the start of the split; default: %(default)s")
    parser.add_argument("--batch-images", default="32", metavar="N", help="at a time; default: %(default)s")
    return parser


def _number(flag: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{flag}: {text!r} is not a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:])))
