"""Trains one run, or a pack of runs. The same command goes on with a run that was interrupted.

    python -m vit_attn.main --config configs/quickstart.py --workdir runs/one
    python -m vit_attn.main --config configs/quickstart.py:h=relu2,alpha=1 --config.train.peak_lr=3e-4 --workdir runs/two
    python -m vit_attn.main --run runs/one runs/two

--config.KEY=VALUE overrides any setting; --print-spec lists them all. Exit codes: 0 finished (a member that diverged is a
result), 1 failed, 2 bad input, 3 stopped by a signal and saved. The same command in each of several processes trains one run:
they find each other under Slurm (srun), Open MPI (mpirun), on TPU pods and in Kubernetes, or by three flags.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vit_attn.parallel.cluster import Place, find_place
from vit_attn.parallel.host_memory import keep_freed_memory
from vit_attn.spec.errors import UserError, exit_code_of
from vit_attn.spec.flags import Flags
from vit_attn.spec.load import load_run, split_overrides
from vit_attn.spec.run import RunSpec, flat, free_settings
from vit_attn.store.run_dir import FINISHED, RunDir


def main(argv: Sequence[str]) -> int:
    """Flags -> spec -> loop. Returns the exit code; raises UserError for bad input."""
    words, overrides = split_overrides(argv)
    flags = _parser().parse_args(words)
    _check_processes(flags)
    if flags.devices is not None and not (flags.dry_run and flags.devices > 0):
        raise UserError(f"--devices={flags.devices} must be at least 1, and goes with --dry-run only; a run takes all devices")
    if flags.dry_run_json is not None and not flags.dry_run:
        raise UserError(f"--dry-run-json={flags.dry_run_json} goes with --dry-run only")
    runs = _runs(flags, overrides)
    if flags.print_spec:
        print("\n".join(json.dumps(asdict(spec), indent=1) for spec in runs.values()))
        return 0
    as_it_is = not flags.overwrite and not flags.dry_run
    if as_it_is and all(run_dir.status().over(spec.loop.until) for run_dir, spec in runs.items()):
        for run_dir in runs:
            status = run_dir.status()
            whole = "complete" if status.state in FINISHED else "as far as config.loop.until says"
            print(f"{run_dir.path} is {whole} ({status.message or status.state}, step {status.step}): nothing to do")
        return 0
    _use_compilation_cache()
    if flags.dry_run:
        return _dry_run(list(runs.values()), flags.devices, flags.dry_run_json)
    keep_freed_memory()
    from vit_attn.loop.run import Request, run_pack  # here, so that --help and mistakes do not wait for jax
    from vit_attn.parallel.processes import run_together

    request = Request(runs, flags.overwrite, flags.stop_with_parent, 600.0 if flags.run else 0.0, flags.profile)
    place = _place(flags)
    if place is None:
        return run_pack(request)
    print(place, flush=True)
    what = json.dumps([_of_all_processes(spec) for spec in runs.values()])
    return run_together(place, what, flags.join_seconds, flags.peer_seconds, lambda: run_pack(request))


def _parser() -> argparse.ArgumentParser:
    parser = Flags("vit_attn.main", __doc__)
    parser.add_argument("--config", metavar="FILE[:KEY=VALUE,...]", help="config file, with arguments for its get_config")
    parser.add_argument("--workdir", metavar="DIR", help="the run's directory; a run that is there is resumed")
    parser.add_argument(
        "--run", metavar="DIR", nargs="+", help="instead of both: existing run directories, trained as one pack"
    )
    parser.add_argument("--overwrite", action="store_true", help="delete the run in --workdir and start over")
    parser.add_argument("--print-spec", action="store_true", help="print the resolved run and end")
    parser.add_argument("--dry-run", action="store_true", help="print parameters, memory, FLOPs, steps, and end: needs no data")
    parser.add_argument("--devices", metavar="N", type=int, help="with --dry-run: for N devices, which need not be here")
    parser.add_argument("--dry-run-json", metavar="FILE", type=Path, help="with --dry-run: its numbers, and compiled memory")
    parser.add_argument("--profile", action="store_true", help="record steps 11 to 20 of this start for TensorBoard's profiler")
    parser.add_argument("--processes", metavar="N", type=int, help="train in N processes together; start this one N times")
    parser.add_argument(
        "--process", metavar="I", type=int, help="which of them this one is: 0 to N - 1; 0 writes all but the checkpoints"
    )
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="where they meet: an address of process 0")
    parser.add_argument("--join-seconds", metavar="S", type=float, default=300.0, help="how long to wait for the others (300)")
    parser.add_argument(
        "--peer-seconds", metavar="S", type=float, default=40.0, help="a process silent for so long is gone (40)"
    )
    parser.add_argument("--alone", action="store_true", help="train in this process alone, whatever a cluster says")
    parser.add_argument("--stop-with-parent", metavar="PID", type=int, help="save and stop when this parent process is gone")
    return parser


def _check_processes(flags: argparse.Namespace) -> None:
    given = {name: getattr(flags, name) for name in ("processes", "process", "coordinator")}
    for name in ("join_seconds", "peer_seconds"):
        if not 1 <= getattr(flags, name) <= 86400:
            raise UserError(f"--{name.replace('_', '-')}={getattr(flags, name):g} must be from 1 to 86400 (a day)")
    if all(value is None for value in given.values()):
        return
    if flags.alone:
        raise UserError("--alone goes with none of --processes, --process, --coordinator")
    if missing := [f"--{name}" for name, value in given.items() if value is None]:
        raise UserError(f"--processes, --process and --coordinator go together: {', '.join(missing)} is missing")
    if not 0 <= flags.process < flags.processes:
        raise UserError(f"--process={flags.process} must be one of 0 to {flags.processes - 1} (--processes={flags.processes})")


def _place(flags: argparse.Namespace) -> Place | None:
    """Which of several processes this is; None: it is alone. What the flags say comes before what a cluster says."""
    if flags.processes is not None:
        found = Place(flags.processes, flags.process, flags.coordinator, "flags")
        return found if flags.processes > 1 else None
    return None if flags.alone else find_place()


def _of_all_processes(spec: RunSpec) -> dict[str, object]:
    """The settings in which processes that train together must agree: all but how each of them reads."""
    own = {key for key in free_settings() if key.startswith("data.")}
    return {key: value for key, value in flat(spec).items() if key not in own and not key.endswith(".data_dir")}


def _runs(flags: argparse.Namespace, overrides: dict[str, object]) -> dict[RunDir, RunSpec]:
    """The run directories and what each is to hold. Raises UserError if a directory holds something else."""
    if flags.run:
        if flags.config or flags.workdir or overrides or flags.overwrite:
            raise UserError("--run takes runs as they are: it goes with none of --config, --config.*, --workdir, --overwrite")
        return {run_dir: _existing(run_dir) for run_dir in (RunDir(Path(path)) for path in flags.run)}
    if not flags.config:
        raise UserError("--config=FILE is needed, for example --config configs/quickstart.py (or --run DIR of an existing run)")
    if not flags.workdir and not (flags.print_spec or flags.dry_run):
        raise UserError("--workdir=DIR is needed: where the run is to live, for example --workdir runs/one")
    run_dir, spec = RunDir(Path(flags.workdir or ".")), load_run(flags.config, overrides)
    if flags.overwrite:
        run_dir.check_overwrite(spec)
    elif flags.workdir and not flags.print_spec:
        run_dir.check(spec)
    return {run_dir: spec}


def _dry_run(specs: list[RunSpec], devices: int | None, json: Path | None) -> int:
    if devices is not None:
        os.environ["JAX_PLATFORMS"] = "cpu"  # the devices of this machine may be busy
    from vit_attn.loop.dry_run import dry_run

    return dry_run(specs, devices, json)


def _existing(run_dir: RunDir) -> RunSpec:
    try:
        spec = run_dir.spec()
    except UserError as error:
        raise UserError(f"--run={run_dir.path}: {error}") from error
    if spec is None:
        raise UserError(f"--run={run_dir.path} holds no run (there is no config.json); start one with --config and --workdir")
    run_dir.check(spec)
    return spec


def _use_compilation_cache() -> None:
    """Compiled programs are kept between runs, in $JAX_COMPILATION_CACHE_DIR or ~/.cache/vit_attn/jax."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(home / "vit_attn" / "jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # tensorflow computes nothing here: it only writes event files


if __name__ == "__main__":
    code = exit_code_of(lambda: main(sys.argv[1:]))
    if code == 1:  # said in one line, which is to be the last: what is still being written would complain
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
