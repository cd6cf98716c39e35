"""Where files can be written: asked before any time is spent."""

import os
import re
import tempfile
from pathlib import Path

from vit_attn.spec.errors import UserError


def check_local(path: Path, named: str) -> None:
    """Raises UserError, which calls it `named`, for a bucket."""
    if path.parts and re.fullmatch(r"[a-z][a-z0-9]+:", path.parts[0]):
        raise UserError(
            f"{named} is in a bucket: runs lie on a file system, where their checkpoints alone may be in a bucket "
            "(config.loop.ckpt_dir)"
        )


def check_writable(path: Path, key: str = "--workdir") -> None:
    """Raises UserError unless `path` is, or could be made, a directory that takes new files. Leaves nothing behind."""
    check_local(path, f"{key}={path}")
    try:
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists() or folder.is_symlink())
        readonly = os.statvfs(there).f_flag & os.ST_RDONLY
    except OSError as error:
        raise UserError(f"{key}={path} cannot be used: {error.strerror}") from error
    if not there.is_dir():
        raise UserError(f"{key}={path}: {there} is a file, not a directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{key}={path}: no permission to write in {there}; take another {key}")
    if readonly:
        raise UserError(f"{key}={path}: {there} is on a read-only file system; take another {key}")
    if there != path.absolute():
        try:  # some file systems say yes to root, and mean no
            with tempfile.TemporaryDirectory(dir=there, prefix=".try_"):
                pass
        except OSError as error:
            raise UserError(f"{key}={path}: nothing can be made in {there}: {error.strerror}; take another {key}") from error
