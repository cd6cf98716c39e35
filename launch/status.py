"""Shows where every member of a sweep stands, from the sweep's files alone.

python -m launch.status runs/grid           # a live table, until Ctrl-C or until all members are finished
python -m launch.status runs/grid --once    # the table once; also where the output is not a terminal
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live

from launch.failure import last_lines
from launch.progress import Progress, Watch, seconds_left_now
from launch.table import overview
from vit_attn.report.table import wide_console
from vit_attn.spec.errors import exit_code_of
from vit_attn.spec.flags import Flags

REFRESH_SECONDS = 0.5
PACKS_SHOWN, LINES_SHOWN = 3, 5


def main(argv: Sequence[str]) -> int:
    """The command line. Raises UserError if no sweep lives in the directory."""
    parser = Flags("launch.status", __doc__)
    parser.add_argument("workdir", type=Path, help="the --workdir of python -m launch.sweep")
    parser.add_argument("--once", action="store_true", help="print the table once and end")
    flags = parser.parse_args(argv)
    watch, console = Watch(flags.workdir), wide_console()
    members = watch.look()
    if flags.once or not console.is_terminal:
        console.print(overview(members, left=seconds_left_now(members)))
        _print_logs(watch, members, console)
        return 0
    with Live(overview(members, height=console.height), console=console, auto_refresh=False) as live:
        while not all(member.finished for member in members):
            time.sleep(REFRESH_SECONDS)
            members = watch.look()
            live.update(overview(members, left=seconds_left_now(members), height=console.height), refresh=True)
    return 0


def _print_logs(watch: Watch, members: Sequence[Progress], console: Console) -> None:
    """The last lines of what failed packs have printed."""
    failed = {member.name for member in members if member.state == "failed"}
    packs = [pack for pack, names in watch.sweep.packs_at_work().items() if failed & {*names}]
    for pack in packs[:PACKS_SHOWN]:
        if lines := last_lines(watch.sweep.log(pack), LINES_SHOWN):
            text = "\n  ".join([f"pack {pack}, end of {watch.sweep.log(pack)}:", *lines])
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    if len(packs) > PACKS_SHOWN:
        console.print(f"... and {len(packs) - PACKS_SHOWN} packs more have failed")


if __name__ == "__main__":
    try:
        sys.exit(exit_code_of(lambda: main(sys.argv[1:])))
    except KeyboardInterrupt:
        sys.exit(0)
