"""Which runs are looked into, and where what is found of each goes. No jax in here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vit_attn.spec.errors import UserError
from vit_attn.spec.run import RunSpec
from vit_attn.store.finished import done_members
from vit_attn.store.run_dir import RunDir
from vit_attn.store.writable import check_writable

FOLDER = "outliers"


@dataclass(frozen=True)
class Member:
    run_dir: RunDir
    spec: RunSpec
    out: Path

    @property
    def newest(self) -> int:
        """The step that is looked at."""
        return self.run_dir.place(self.spec).steps()[-1]

    @property
    def name(self) -> str:
        return self.run_dir.path.resolve().name


def members_of(paths: Sequence[Path], workdir: Path | None) -> list[Member]:
    """The runs that `paths` are, and the finished ones of those that are sweeps, each once.

    Raises UserError for a path without a run, a sweep of which nothing is finished, a run that has no checkpoint, and a place
    that takes no files. Creates nothing.
    """
    runs = {run.path.resolve(): run for path in paths for run in _runs_in(path)}
    members = [_member(run, _out(run, paths, workdir)) for run in runs.values()]
    names = [member.name for member in members]
    if twice := sorted({name for name in names if names.count(name) > 1}) if workdir else []:
        raise UserError(f"--workdir={workdir} cannot hold the results of two runs of one name, {twice[0]}: leave it out")
    for member in members:
        check_writable(member.out)
    return members


def summary_folder(paths: Sequence[Path], workdir: Path | None) -> Path:
    """Where the table of all runs goes."""
    return workdir or paths[0] / FOLDER


def _runs_in(path: Path) -> list[RunDir]:
    if _is_run(path):
        return [RunDir(path)]
    return done_members(path, str(path))


def _is_run(path: Path) -> bool:
    return (path / "config.json").exists()


def _out(run: RunDir, paths: Sequence[Path], workdir: Path | None) -> Path:
    if workdir is None:
        return run.path / FOLDER
    alone = len(paths) == 1 and _is_run(paths[0])
    return workdir if alone else workdir / run.path.resolve().name


def _member(run: RunDir, out: Path) -> Member:
    try:
        spec = run.spec()
    except UserError as error:
        raise UserError(f"{run.path / 'config.json'}: {error}") from error
    if spec is None:
        raise UserError(f"{run.path / 'config.json'} has just gone")
    place = run.place(spec)
    if not place.checkpoints.exists() or not place.steps():
        raise UserError(f"{run.path} has no checkpoint yet: there is none in {place.checkpoints}")
    return Member(run, spec, out)
