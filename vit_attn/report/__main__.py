"""Tables and figures from run directories; also while the runs are still being trained.

python -m vit_attn.report runs/grid            # a sweep's directory, a run's, or one that holds run directories
python -m vit_attn.report runs/grid runs/seed1 # several together; the files go into report/ of the first
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from vit_attn.report.publish import publish
from vit_attn.report.table import wide_console
from vit_attn.spec.errors import exit_code_of
from vit_attn.spec.flags import Flags


def main(argv: Sequence[str]) -> int:
    """The command line. Raises UserError for a directory without a run."""
    parser = Flags("vit_attn.report", __doc__)
    parser.add_argument("workdir", nargs="+", type=Path, help="a sweep's directory, a run's, or one of run directories")
    publish(parser.parse_args(argv).workdir, wide_console())
    return 0


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:])))
