"""One run from its directory to its results, once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_attn.parallel.processes import say
from vit_attn.quant.files import check_run, check_same, read_results, results_of, with_int8, write
from vit_attn.quant.int8 import is_written, write_int8
from vit_attn.quant.measure import measure, prepare
from vit_attn.quant.progress import Progress
from vit_attn.spec.errors import UserError
from vit_attn.spec.quant import QuantSpec
from vit_attn.store.run_dir import RunDir, file_lock
from vit_attn.store.writable import check_writable
from vit_attn.train.saved import saved_params


@dataclass(frozen=True)
class Member:
    run_dir: RunDir
    out: Path

    def check(self, quant: QuantSpec) -> None:
        """Raises UserError if the results could not be written, or are there for other settings."""
        check_writable(self.out)
        if RunDir(self.out).spec() is not None:  # whose metrics.jsonl and event files would be replaced
            raise UserError(
                f"--workdir: {self.out} is the directory of a run: leave --workdir out, and results go to quant/ in there, or "
                "take another one"
            )
        if (results := read_results(self.out)) is not None:
            check_same(self.out, results, quant)
            if (spec := self.run_dir.spec()) is not None:
                check_run(self.out, results, spec)


def quantize_member(
    member: Member, quant: QuantSpec, progress: Progress, int8: bool = False, program: bool = False
) -> dict[str, Any]:
    """Its results; those that are there already, if the run has not gone on since.

    int8: writes the INT8 member too, and program: as StableHLO besides.
    """
    spec = member.run_dir.spec()
    if spec is None:
        raise UserError(f"{member.run_dir.path} holds no run: it has no config.json")
    step, params = saved_params(member.run_dir, spec)

    def in_int8(results: dict[str, Any]) -> dict[str, Any]:
        found = write_int8(member.out, spec, step, params, quant, results, program)
        return with_int8(member.out, results, quant, found)

    results = read_results(member.out)
    if results is not None and results["step"] == step:
        say(f"{member.out} is complete (step {step}): nothing to do")
        if int8 and not is_written(member.out, results, program):
            with file_lock(member.out / ".lock", f"{member.out} is being written by another process"):
                results = in_int8(results)
        return results
    ready = prepare(spec, params, quant)
    member.out.mkdir(parents=True, exist_ok=True)
    with file_lock(member.out / ".lock", f"{member.out} is being written by another process"):
        say(f"{member.run_dir.path}: step {step}, {quant.name}")
        found = measure(ready, progress)
        results = results_of(member.run_dir.path, spec, step, quant, ready.calibration.split, found)
        write(member.out, results, quant, found)
        if int8:
            results = in_int8(results)
    return results
