"""A folder of image files, SPLIT/CLASS/NAME.jpg, local or in a bucket."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import TypeVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from vit_attn.data.sources.faults import is_missing, persistent
from vit_attn.data.sources.features import check_classes
from vit_attn.data.sources.order import example_at, key, shuffled
from vit_attn.data.sources.source import Example
from vit_attn.spec.data import SetSpec
from vit_attn.spec.errors import UserError

T, R = TypeVar("T"), TypeVar("R")

SUFFIXES = (".jpg", ".jpeg", ".png")
SLICE_KEY = key(20011309)  # of the permutation that slices are taken of; any number will do, but it must stay
LISTINGS = 32  # at once, in a bucket


class Folder:
    """See `Source`. Examples are sorted by class and name; labels number the sorted names of the class folders of all splits.

    A slice as in "train[:99%]" is taken of a fixed pseudo-random permutation of the files, as one of the sorted files would cut
    classes off; "train[:99%]" and "train[99%:]" have no file in common. Within a slice, files are sorted again.
    """

    def __init__(
        self, root: str, split: str, label_names: list[str], files: "Files", rows: np.ndarray | None, timeout_seconds: float
    ) -> None:
        """`rows`: which of the files; None: all."""
        self.name, self.split, self.label_names = root, split, label_names
        self._files, self._rows, self._timeout_seconds = files, rows, timeout_seconds

    def __len__(self) -> int:
        return len(self._files) if self._rows is None else len(self._rows)

    def __getitem__(self, index: int) -> Example:
        path, label = self._file(index)
        image = persistent(lambda: _read(path), path, self._timeout_seconds)
        return {"image": image, "labels": [label]}

    def where(self, index: int) -> str:
        return f"example {index} of split {self.split!r} of the folder {self.name!r} ({self.identity(index)})"

    def identity(self, index: int) -> str:
        return f"the file {self._file(index)[0]!r}"

    def order(self, position: int, seed: int) -> tuple[int, int]:
        return example_at(position, seed, len(self))

    def _file(self, index: int) -> tuple[str, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"{index} of {len(self)} examples")
        folder, name, label = self._files[index if self._rows is None else int(self._rows[index])]
        return f"{self.name}/{folder}/{self.label_names[label]}/{name}", label


class Files:
    """(split, name, label) of many files: in few objects, so that a million of them can be pickled quickly."""

    def __init__(self, groups: Iterable[tuple[str, int, list[str]]]) -> None:
        """`groups`: (split, label, names)."""
        groups = list(groups)
        self._folders = [(split, label) for split, label, _ in groups]
        self._ends = np.cumsum([len(names) for _, _, names in groups])
        names = [os.fsencode(name) for _, _, group in groups for name in group]
        self._names, self._name_ends = b"".join(names), np.cumsum([len(name) for name in names])

    def __len__(self) -> int:
        return len(self._name_ends)

    def __getitem__(self, index: int) -> tuple[str, str, int]:
        split, label = self._folders[int(np.searchsorted(self._ends, index, side="right"))]
        start = self._name_ends[index - 1] if index else 0
        return split, os.fsdecode(self._names[start : self._name_ends[index]]), label


def open_folder(data: SetSpec, num_classes: int | None, timeout_seconds: float, where: str) -> Folder:
    """Raises UserError for a folder or split that is not there, one without images, and too many classes."""
    root, split = epath.Path(str(data.name)).expanduser(), str(data.split)
    splits = _splits(root, data, where)
    wanted = [name for name in splits if name in re.findall(r"[\w.-]+", split)]

    def listed(work: Callable[[epath.Path], list[str]], folder: epath.Path) -> list[str]:
        return persistent(lambda: work(folder), str(folder), timeout_seconds)

    folders = {name: set(listed(_folders, root / name)) for name in splits}
    classes = sorted(set().union(*folders.values()))
    found = {}
    for name in wanted:
        here = [label for label, folder in enumerate(classes) if folder in folders[name]]
        names = _at_once(partial(listed, _images), [root / name / classes[label] for label in here])
        found[name] = [(name, label, group) for label, group in zip(here, names, strict=True)]
    rows = _rows(split, {name: sum(len(group[2]) for group in groups) for name, groups in found.items()}, root, splits)
    check_classes(len(classes), num_classes, f"the folder {str(root)!r}")
    return Folder(str(root), split, classes, Files(chain.from_iterable(found.values())), rows, timeout_seconds)


def _splits(root: epath.Path, data: SetSpec, where: str) -> list[str]:
    """The names of the sub-folders. Raises UserError where there are none."""
    try:
        splits = _folders(root)
    except Exception as error:
        if is_missing(error):
            raise UserError(f"{where}.name={data.name!r}: there is no such folder") from None
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{where}.name={data.name!r} cannot be read: {reason}") from error
    if not splits:
        raise UserError(f"{where}.name={data.name!r} has no sub-folders; expected SPLIT/CLASS/NAME.jpg in it")
    return splits


def _rows(split: str, sizes: dict[str, int], root: epath.Path, splits: Sequence[str]) -> np.ndarray | None:
    """Which of the files of the splits in `sizes`, one split after the other, belong to a split or to a sum of slices."""
    infos = {name: tfds.core.SplitInfo(name=name, shard_lengths=[size], num_bytes=0) for name, size in sizes.items()}
    try:
        slices = tfds.core.ReadInstruction.from_spec(split).to_absolute(infos)
    except (ValueError, NotImplementedError) as error:
        known = ", ".join(f"{name} ({sizes[name]} images)" if name in sizes else name for name in splits)
        raise UserError(
            f"split {split!r} of the folder {str(root)!r} is none of its sub-folders {known}, nor a slice of one, as in "
            "'train[:99%]'"
        ) from error
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    parts = []
    for each in slices:
        size, name = sizes[each.splitname], each.splitname
        if not size:
            raise UserError(
                f"split {name!r} of the folder {str(root)!r} has no images ({', '.join(SUFFIXES)}) in class folders"
            )
        start, stop = each.from_ or 0, size if each.to is None else each.to
        places = range(size) if (start, stop) == (0, size) else sorted(_permuted(range(start, stop), size))
        parts.append(starts[name] + np.array(places, np.int64))
    rows = np.concatenate(parts)
    if not len(rows):
        raise UserError(f"split {split!r} of the folder {str(root)!r} is empty")
    return None if split in sizes else rows


def _permuted(places: Iterable[int], size: int) -> Iterable[int]:
    return (shuffled(place, size, SLICE_KEY) for place in places)


def _folders(folder: epath.Path) -> list[str]:
    """The names of the visible folders in a folder, sorted."""
    if _is_local(folder):
        with os.scandir(folder) as found:
            return sorted(entry.name for entry in found if entry.is_dir() and not entry.name.startswith("."))
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(path.name for path, is_folder in zip(entries, _at_once(_is_dir, entries), strict=True) if is_folder)


def _images(folder: epath.Path) -> list[str]:
    """The names of the image files in a folder, sorted."""
    names = os.listdir(folder) if _is_local(folder) else [path.name for path in folder.iterdir()]  # noqa: PTH208
    return sorted(name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith("."))


def _is_dir(path: epath.Path) -> bool:
    return path.is_dir()


def _is_local(path: epath.Path) -> bool:
    return "://" not in str(path)


def _at_once(work: Callable[[T], R], each: Sequence[T]) -> list[R]:
    """`work` of each, many at a time: a bucket answers each listing after a while."""
    with ThreadPoolExecutor(LISTINGS) as pool:
        return list(pool.map(work, each))


def _read(path: str) -> bytes:
    with epath.Path(path).open("rb") as file:
        return file.read()
