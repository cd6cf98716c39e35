"""`python -m launch.sweep` as it stands, but for the program that its backends start: the stand-in worker."""

import sys
from pathlib import Path

from launch import backends
from launch.backends.gke import Gke
from launch.backends.local import Local
from launch.backends.options import options
from launch.backends.slurm import Slurm, SlurmOptions
from launch.backends.tpu_vm import TpuVm
from launch.sweep import main
from vit_attn.spec.errors import exit_code_of

WORKER = str(Path(__file__).with_name("stand_in_worker.py"))
Slurm.look_seconds = TpuVm.look_seconds = Gke.look_seconds = 0.5
BACKENDS = {
    **backends.BACKENDS,
    "local": lambda site: Local(site.slots, (sys.executable, WORKER)),
    "slurm": lambda site: Slurm(site.sweep, site.max_parallel, options(SlurmOptions, "slurm", site.pairs), (WORKER,)),
}

if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:], BACKENDS)))
