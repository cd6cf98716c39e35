"""`python -m launch.worker` as it stands, but for the program that it starts: the stand-in worker."""

import sys
from pathlib import Path

from launch.worker import Worker

if __name__ == "__main__":
    sweep, pack, _, submission = sys.argv[1:]
    Worker(Path(sweep), pack, submission, (str(Path(__file__).with_name("stand_in_worker.py")),))()
