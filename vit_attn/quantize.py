"""Post-training quantization of a trained run, simulated: calibrates, evaluates, writes ranges and results.

    python -m vit_attn.quantize --run runs/one --config configs/quant/w8a8.py
    python -m vit_attn.quantize --run runs/grid --config configs/quant/w8a8.py:estimators=all --workdir runs/grid_w8a8

--run is a run's directory, or a sweep's: then every member that is done. Results go to RUN/quant/w8a8, or into --workdir (for
a sweep, a directory a member in it). --config.KEY=VALUE overrides any setting of vit_attn/spec/quant.py. The same command goes
on where it was interrupted: a member whose results are there is not measured again. A member of a sweep that cannot be
quantized is named at the end; the others go on. Exit codes: 0 finished, 1 a member failed, 2 bad input.

--int8 writes int8/ beside the results: the member of the best estimator with kernels in int8 and products of integers, and
its accuracy; --export besides writes int8/model.stablehlo, which runs without this package.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_attn.spec.errors import RunError, UserError, exit_code_of, one_line
from vit_attn.spec.flags import Flags
from vit_attn.spec.load import load_config, override, split_overrides
from vit_attn.spec.quant import QuantSpec, check_int8, resolve_quant
from vit_attn.store.finished import done_members
from vit_attn.store.run_dir import RunDir

if TYPE_CHECKING:
    from vit_attn.quant.member import Member


def main(argv: Sequence[str]) -> int:
    """Flags -> settings -> members, one by one. Raises UserError for bad input, before anything is created."""
    words, overrides = split_overrides(argv)
    parser = Flags("vit_attn.quantize", __doc__)
    parser.add_argument("--run", required=True, type=Path, metavar="DIR", help="a run's directory, or a sweep's")
    parser.add_argument("--config", required=True, metavar="FILE[:KEY=VALUE,...]", help="for example configs/quant/w8a8.py")
    parser.add_argument(
        "--workdir", type=Path, metavar="DIR", help="where results go; default: quant/w8a8 in the run's directory"
    )
    parser.add_argument("--int8", action="store_true", help="also the member in integers: kernels, ranges, accuracy")
    parser.add_argument("--export", action="store_true", help="the same, and as a StableHLO program")
    flags = parser.parse_args(words)
    quant, int8 = _settings(flags.config, overrides), flags.int8 or flags.export
    if int8:
        check_int8(quant)
    places = _places(flags.run, flags.workdir, quant)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # tensorflow computes nothing here: it only writes event files

    from vit_attn.quant.member import Member  # here, so that --help and mistakes do not wait for jax
    from vit_attn.quant.table import results_table
    from vit_attn.report.table import wide_console

    members = [Member(run_dir, out) for run_dir, out in places.items()]
    for member in members:
        member.check(quant)
    found, failed = _quantized(members, quant, int8, flags.export)
    if found:
        wide_console().print(results_table(found, quant))
    for name, why in failed.items():
        print(f"failed: {name}: {why}", file=sys.stderr)
    return 1 if failed else 0


def _quantized(
    members: "Sequence[Member]", quant: QuantSpec, int8: bool, program: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """(results, reasons of those that have none), by name. Raises UserError where all members say the same one."""
    from vit_attn.quant.member import quantize_member
    from vit_attn.quant.progress import Progress
    from vit_attn.quant.table import results_line

    found: dict[str, Any] = {}
    errors: dict[str, Exception] = {}
    progress = Progress(len(members), quant)
    for number, member in enumerate(members, 1):
        name = member.run_dir.path.resolve().name
        try:
            found[name] = quantize_member(member, quant, progress, int8, program)
            print(f"{member.out} ({number} of {len(members)}): {results_line(found[name], quant)}", flush=True)
        except Exception as error:  # whatever it is: the others do not depend on it
            if not isinstance(error, UserError | RunError):
                traceback.print_exc()
            errors[name] = error
        progress.member_over()
    reasons = {name: one_line(error) or type(error).__name__ for name, error in errors.items()}
    if not found and len({*reasons.values()}) == 1:
        raise next(iter(errors.values()))
    return found, reasons


def _settings(config: str, overrides: dict[str, object]) -> QuantSpec:
    values = load_config(config)
    for key, value in overrides.items():
        override(values, key, value)
    return resolve_quant(values)


def _places(path: Path, workdir: Path | None, quant: QuantSpec) -> dict[RunDir, Path]:
    """The runs, and where the results of each go. Raises UserError where there is none to quantize."""
    if (path / "config.json").exists():
        if (state := RunDir(path).status().seen_state()) != "done":
            print(f"note: {path} is {state}: its newest checkpoint is quantized", file=sys.stderr)
        return {RunDir(path): workdir or path / "quant" / quant.name}
    done = done_members(path, f"--run={path}")
    return {run: (workdir / run.name if workdir else run.path / "quant" / quant.name) for run in done}


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: main(sys.argv[1:])))
