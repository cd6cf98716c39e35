"""Tables and figures from run directories; also while the runs are still being trained.

python -m vit_attn.report runs/grid               # a sweep's directory, a run's, or one that holds run directories
python -m vit_attn.report runs/grid runs/seed1    # several together; the files go into report/ of the first
python -m vit_attn.report runs/grid --figure fig1,fig4 --metric i1k/accuracy

Without --figure: the overview, and each figure that the runs are for. fig1 to fig4 are those of arXiv:2309.08586, table7 and
table8 those of arXiv:2306.12929; outliers has their columns for any form; init is the scale of attention weights at the start.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from vit_attn.report.figures import ALL, FIGURES
from vit_attn.report.metric import Metric
from vit_attn.report.publish import publish
from vit_attn.report.table import wide_console
from vit_attn.spec.errors import exit_code_of, unknown
from vit_attn.spec.flags import Flags


def main(argv: Sequence[str]) -> int:
    """The command line. Raises UserError for a directory without a run, an unknown figure or metric."""
    parser = Flags("vit_attn.report", __doc__)
    parser.add_argument("workdir", nargs="+", type=Path, help="a sweep's directory, a run's, or one of run directories")
    choices = ", ".join([*FIGURES, ALL])
    parser.add_argument("--figure", default="", metavar="NAMES", help=f"{choices}; several with commas between them")
    parser.add_argument("--metric", default=Metric().name, help="what the figures show (default: %(default)s)")
    flags = parser.parse_args(argv)
    names = [name for name in flags.figure.split(",") if name]
    for name in names:
        if name not in (*FIGURES, ALL):
            raise unknown("--figure: the figure", name, [*FIGURES, ALL])
    publish(flags.workdir, wide_console(), names, Metric(flags.metric))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:])))
