"""`python -m launch.retry` as it stands, but for the program that its backends start: the stand-in worker."""

import sys

from drive_sweep import BACKENDS

from launch.retry import main
from vit_attn.spec.errors import exit_code_of

if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:], BACKENDS)))
