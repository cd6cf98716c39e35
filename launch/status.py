"""Shows where every member of a sweep stands, from the sweep's files alone.

python -m launch.status runs/grid           # a live table, until Ctrl-C or until all members are finished
python -m launch.status runs/grid --once    # the table once; also where the output is not a terminal
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.live import Live

from launch.progress import Watch
from launch.table import overview
from vit_attn.report.table import wide_console
from vit_attn.spec.errors import exit_code_of
from vit_attn.spec.flags import Flags

REFRESH_SECONDS = 0.5


def main(argv: Sequence[str]) -> int:
    """The command line. Raises UserError if no sweep lives in the directory."""
    parser = Flags("launch.status", __doc__)
    parser.add_argument("workdir", type=Path, help="the --workdir of python -m launch.sweep")
    parser.add_argument("--once", action="store_true", help="print the table once and end")
    flags = parser.parse_args(argv)
    watch, console = Watch(flags.workdir), wide_console()
    members = watch.look()
    if flags.once or not console.is_terminal:
        console.print(overview(members))
        return 0
    with Live(overview(members, height=console.height), console=console, auto_refresh=False) as live:
        while any(member.steps_left for member in members):
            time.sleep(REFRESH_SECONDS)
            members = watch.look()
            live.update(overview(members, height=console.height), refresh=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(exit_code_of(lambda: main(sys.argv[1:])))
    except KeyboardInterrupt:
        sys.exit(0)
