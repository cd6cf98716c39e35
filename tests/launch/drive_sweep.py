"""`python -m launch.sweep` as it stands, but for the program that its local backend starts: the stand-in worker."""

import sys
from pathlib import Path

from launch.backends.local import Local
from launch.sweep import main
from vit_attn.spec.errors import exit_code_of

WORKER = (sys.executable, str(Path(__file__).with_name("stand_in_worker.py")))

if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:], {"local": lambda max_parallel: Local(max_parallel, WORKER)})))
