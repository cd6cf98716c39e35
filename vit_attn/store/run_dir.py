"""The directory of one member: everything that is known about it, as plain files. No jax in here.

config.json      the resolved run           metrics.jsonl    one row a logged step
env.json         versions, devices, host    events.out.*     the same for TensorBoard
status.json      state, step, last metrics  checkpoints/     orbax, one folder a saved step (or apart: see store.place)
histograms.jsonl of parameters, on request  plugins/profile/ of a few steps, on request
"""

import dataclasses
import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vit_attn.spec.errors import UserError
from vit_attn.spec.resolve import resolve
from vit_attn.spec.run import LoopSpec, RunSpec, flat, free_settings
from vit_attn.store.place import Place, place_of
from vit_attn.store.writable import check_writable

STATES = ("waiting", "running", "stopped", "paused", "done", "diverged", "halved", "failed")
FINISHED = ("done", "diverged", "halved")  # halved: given up for better members of its sweep, see launch.halving


@dataclass(frozen=True)
class Status:
    """Where a member stands. `metrics` are the newest ones; `seconds_left` is an estimate; `message` explains the state."""

    state: str = "waiting"
    step: int = 0
    steps: int = 0
    message: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    seconds_left: float | None = None
    pid: int = 0
    host: str = ""
    updated: float = 0.0  # unix seconds

    def alive(self) -> bool:
        """Whether a member that calls itself running really is: its process exists, as far as this host can tell."""
        if self.state != "running":
            return False
        if self.host != socket.gethostname():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    def over(self, until: int | None) -> bool:
        """Whether nothing is left to do: finished, or paused where config.loop.until still says so."""
        return self.state in FINISHED or (self.state == "paused" and until is not None and self.step >= until)

    def seen_state(self) -> str:
        """The state as a visitor finds it: `interrupted` where a member calls itself running and its process is gone."""
        return "interrupted" if self.state == "running" and not self.alive() else self.state


@dataclass(frozen=True)
class RunDir:
    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def histograms_file(self) -> Path:
        return self.path / "histograms.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Where they are unless config.loop.ckpt_dir says otherwise."""
        return self.path / "checkpoints"

    def place(self, spec: RunSpec) -> Place:
        return place_of(self.path, spec.loop)

    def spec(self) -> RunSpec | None:
        """The run that lives here; None where there is none. Raises UserError, with the file's name, if it is damaged."""
        file = self.path / "config.json"
        if (values := read_json(file)) is None:
            return None
        try:
            return resolve(values)
        except UserError as error:
            raise UserError(f"{file} is not the config of a run: {error}") from error

    def status(self) -> Status:
        """The newest status; `waiting` where nothing was written yet."""
        values = read_json(self.path / "status.json")
        known = {f.name for f in dataclasses.fields(Status)}
        read: dict[str, Any] = {key: value for key, value in (values or {}).items() if key in known}
        return Status(**read)

    def check(self, spec: RunSpec) -> None:
        """Raises UserError, with the differing keys, if another run lives here, or if nothing could be written here."""
        values = read_json(self.path / "config.json")
        if values is not None and (different := differences(values, dataclasses.asdict(spec))):
            raise UserError(
                f"{self.path} holds another run, which differs in {'; '.join(different)}: take another --workdir, "
                "or delete that run with --overwrite"
            )
        self.check_place()
        check_apart(self.place(spec), spec)
        if (old := self.spec()) is not None:
            _check_moved(self.place(old), self.place(spec))

    def check_overwrite(self, spec: RunSpec) -> None:
        """Raises UserError if --overwrite could not start over here, or would delete what is not this run's."""
        self.check_place()
        if self.place(spec) not in self._places():
            check_apart(self.place(spec), spec)

    def check_place(self) -> None:
        """Raises UserError if no run can live here at all: a sweep's directory, or one that takes no files."""
        check_writable(self.path)
        if (self.path / "sweep.json").exists():
            raise UserError(f"--workdir={self.path} is the directory of a sweep; take another --workdir for a run")

    def create(self, spec: RunSpec) -> None:
        """Makes the directory and its config.json. One that is there takes over what a restart may change."""
        self.path.mkdir(parents=True, exist_ok=True)
        if self.spec() != spec:
            write_json(self.path / "config.json", dataclasses.asdict(spec))

    def clear(self, spec: RunSpec) -> None:
        """Deletes the run that lives here, and what `spec` would find in a place of its own (--overwrite): nothing else."""
        (self.path / "status.json").unlink(missing_ok=True)  # first: what is half gone is not complete
        for place in {*self._places(), self.place(spec)}:
            place.clear()
        for folder in ("plugins/profile", "quant", "outliers"):  # what was found out about it goes with it
            shutil.rmtree(self.path / folder, ignore_errors=True)
        files = ("events.out.tfevents*", "metrics.jsonl", "histograms.jsonl", "env.json", "config.json")
        for name in files:  # what it is, last
            for file in self.path.glob(name):
                file.unlink()

    def _places(self) -> list[Place]:
        """Where checkpoints of the run that lives here may be."""
        places = [Place(place_of(self.path, LoopSpec()).root, apart=False)]
        with suppress(UserError):  # what cannot be read says nothing
            if (old := self.spec()) is not None:
                places.append(self.place(old))
        return places

    def write_status(self, state: str, **values: Any) -> None:
        mine: dict[str, Any] = {"pid": os.getpid(), "host": socket.gethostname(), "updated": time.time()}
        status = Status(state=state, **values, **mine)
        write_json(self.path / "status.json", dataclasses.asdict(status), durable=state != "running")

    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.jsonl; a last line that a kill cut short is left out."""
        return read_rows(self.metrics_file)

    @contextmanager
    def locked(self, wait_seconds: float = 0.0) -> Iterator[None]:
        """Keeps a second process from training here at the same time. Raises UserError if it does not get its turn."""
        with file_lock(self.path / ".lock", f"{self.path} is being trained by another process", wait_seconds):
            yield


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A file of rows anew, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    part.replace(path)


def read_rows(file: Path) -> list[dict[str, Any]]:
    """One JSON object a line; a last line that a kill cut short is left out. No file, no rows."""
    rows = []
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


@contextmanager
def file_lock(path: Path, held: str, wait_seconds: float = 0.0) -> Iterator[None]:
    """An exclusive lock that the operating system drops with the process. UserError(`held`...) if it stays taken."""
    with open(path, "a") as handle:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(f"{held}: wait for it, or stop it (it holds {path})") from None
                time.sleep(0.1)
        yield


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """ "config.seed: 0 there, 1 here" for every setting in which two runs differ, but for those that a restart may change.

    A setting that there was not yet had its default.
    """
    default, here = (flat(json.loads(json.dumps(one))) for one in (dataclasses.asdict(RunSpec()), new))  # lists, as in a file
    there, free = {**default, **flat(old)}, free_settings()
    changed = (key for key in {**there, **here} if there.get(key) != here.get(key))
    keys = [key for key in changed if key not in free and not key.startswith("evals.")]  # what is measured besides
    return [f"config.{key}: {there.get(key)!r} there, {here.get(key)!r} here" for key in keys]


def check_apart(place: Place, spec: RunSpec) -> None:
    """Raises UserError if config.loop.ckpt_dir is another run's, or takes no files."""
    if not place.apart:
        return
    there = place.config()
    if there is not None and (different := differences(there, dataclasses.asdict(spec))):
        raise UserError(
            f"config.loop.ckpt_dir: {place.root} holds another run's checkpoints, which differs in {'; '.join(different)}: "
            "take another one ({name} in it becomes the name of the run's directory)"
        )
    if not place.remote:
        check_writable(Path(place.root), "config.loop.ckpt_dir")


def _check_moved(old: Place, new: Place) -> None:
    """Raises UserError if a run would no longer find what it has saved."""
    try:
        lost = old != new and not new.steps()
        steps = old.steps() if lost else []
    except Exception as error:  # a bucket's errors are of many types
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"config.loop.ckpt_dir: it was {old.root} and is {new.root} now; one cannot be read: {reason}"
        ) from error
    if steps:
        raise UserError(
            f"config.loop.ckpt_dir: the run's checkpoints (steps {', '.join(map(str, steps))}) are in {old.root}, and "
            f"{new.root} has none: copy {old.checkpoints} there, or leave the setting as it was"
        )


def write_json(path: Path, values: Any, durable: bool = True) -> None:
    """Whole or not at all: a reader, or a kill at any moment, never sees half a file. `durable`: nor after a power cut."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(part, "w") as handle:
            json.dump(values, handle, indent=1)
            if durable:
                handle.flush()
                os.fsync(handle.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)  # of a full disk
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """None where there is no file. Raises UserError for one that does not hold a dictionary."""
    try:
        values = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not one of ours: it holds a {type(values).__name__}")
    return values
