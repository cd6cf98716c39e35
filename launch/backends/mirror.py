"""The small files of a sweep in a bucket, for machines that do not see the launcher's disk."""

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from io import BytesIO
from pathlib import Path

from launch.backends.job import BusyError
from launch.backends.program import call
from launch.sweep_dir import SweepDir
from vit_attn.spec.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CODE = ("vit_attn", "launch", "configs", "pyproject.toml", "requirements.txt", "requirements-tpu.txt")
NOT_PULLED = (
    r"(^|/)(checkpoints|refused_checkpoints|submissions|slurm|report)/|^(sweep|launch)\.json$|^stop$|(^|/)config\.json$"
)


class Mirror:
    """`busy`: words of refusals that will pass."""

    def __init__(self, sweep: SweepDir, bucket: str, busy: str) -> None:
        self.sweep, self.bucket, self.busy = sweep, bucket.rstrip("/"), busy

    @property
    def url(self) -> str:
        """Of this sweep: no other one's results are ever there."""
        return f"{self.bucket}/{self.sweep.id}"

    @property
    def code_url(self) -> str:
        return f"{self.bucket}/code-{hashlib.sha256(self._code).hexdigest()[:12]}.tar"

    @cached_property
    def _code(self) -> bytes:
        """This package as an archive; the same bytes for the same files."""
        packed = BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for path in sorted(file for name in CODE for file in _files(ROOT / name)):
                info = archive.gettarinfo(path, str(path.relative_to(ROOT)))
                info.mtime = info.uid = info.gid = 0
                info.uname = info.gname = ""
                with open(path, "rb") as handle:
                    archive.addfile(info, handle)
        return packed.getvalue()

    def push(self, runs: Sequence[Path]) -> None:
        """What a machine needs to begin: the code, the sweep's file, and each run's settings. Raises BusyError, UserError."""
        with suppress(BusyError, UserError):  # there is none, most of the time
            self._call("rm", "--quiet", f"{self.url}/stop")
        with tempfile.TemporaryDirectory() as folder:
            stage = Path(folder, "sweep")
            for run in runs:
                (stage / run.name).mkdir(parents=True)
                shutil.copy(run / "config.json", stage / run.name)
            shutil.copy(self.sweep.file, stage)
            self._call("rsync", "--recursive", str(stage), self.url)
            code = Path(folder, "code.tar")
            code.write_bytes(self._code)
            self._call("cp", "--no-clobber", str(code), self.code_url)

    def pull(self) -> None:
        """What the machines have written since."""
        self._call("rsync", "--recursive", f"--exclude={NOT_PULLED}", self.url, str(self.sweep.path))

    def push_stop(self) -> None:
        with tempfile.NamedTemporaryFile() as empty:
            self._call("cp", empty.name, f"{self.url}/stop")

    def _call(self, *words: str) -> None:
        call(["gcloud", "storage", *words], self.busy)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
