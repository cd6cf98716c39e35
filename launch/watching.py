"""A second launcher on one sweep: it shows what the first one does, and touches nothing."""

import time

from rich.console import Console

from launch.display import display
from launch.launcher import DONE, FAILED, SHOW_SECONDS, STOPPED
from launch.progress import Watch
from launch.sweep_dir import SweepDir
from vit_attn.store.run_dir import FINISHED


def watch_other(sweep: SweepDir, console: Console) -> int:
    """Until the other launcher has ended, or Ctrl-C. Exit code: 0 all is finished, 1 a member failed, 3 there is more to do."""
    try:
        with display(console) as shown:
            shown.say(f"another launcher is at work in {sweep.path}; this one watches it (Ctrl-C ends the watching only)")
            watch = None
            while sweep.at_work():
                if (watch is None or not watch.complete) and sweep.file.exists():
                    watch = Watch(sweep.path)
                shown.show(watch.look() if watch else [])
                time.sleep(SHOW_SECONDS)
            members = Watch(sweep.path).look()
            shown.show(members)
    except KeyboardInterrupt:
        return STOPPED
    if all(member.state in FINISHED for member in members):
        return DONE
    console.print("The other launcher has ended. Run the same command to go on.", highlight=False)
    return FAILED if any(member.state == "failed" for member in members) else STOPPED
