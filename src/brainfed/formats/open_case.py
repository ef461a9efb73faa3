"""Case files read slice by slice, for a training set that is larger than the memory.

A file is opened when it is first needed and few are open at a time. Before every reading it must
still be the file that was checked: by its inode, size and time of change, since hashing it again
each time would cost more than training.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from brainfed.errors import ScanError

MOST_OPEN = 64
"""Files open at a time; an operating system allows a process a few hundred."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What tells a file from another of its name, and from itself after a change."""

    inode: int
    n_bytes: int
    changed_ns: int


def mark_of(path: Path) -> Mark | None:
    """The mark of a file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Mark(found.st_ino, found.st_size, found.st_mtime_ns)


class OpenCases:
    """Case files of which the latest few stay open.

    Files are read by one process alone: HDF5 files must not be shared by a fork.
    """

    def __init__(self, most: int = MOST_OPEN) -> None:
        self._most = most
        self._open: OrderedDict[Path, tuple[h5py.File, dict[str, h5py.Dataset]]] = OrderedDict()

    def read(self, path: Path, mark: Mark, name: str, index: Any) -> NDArray[Any]:
        """Part of an array of a case file.

        Args:
            path: The case file.
            mark: What it had when it was checked.
            name: `image` or `label`.
            index: As of an array; one slice is one chunk of the file.

        Raises:
            ScanError: The file is gone, or not the one that was checked, or can't be read.
        """
        if mark_of(path) != mark:
            raise _changed(path)
        try:
            part: NDArray[Any] = self._arrays(path)[name][index]
        except (OSError, KeyError, RuntimeError) as error:
            raise ScanError(
                "A case file can't be read",
                found=error,
                where=path,
                hint="run `brainfed train-round` again; if it stays, run `brainfed preprocess`",
            ) from error
        return part

    def _arrays(self, path: Path) -> dict[str, h5py.Dataset]:
        """The arrays of a file by name, kept since to look one up takes as long as to read it."""
        there = self._open.pop(path, None)
        if there is None:
            # No lock: a case file is replaced, never written to, and some network disks have none.
            file = h5py.File(path, "r", locking=False)
            there = file, {name: file[name] for name in ("image", "label")}
        self._open[path] = there
        if len(self._open) > self._most:
            self._open.popitem(last=False)[1][0].close()
        return there[1]

    def close(self) -> None:
        """Close all files; a later reading opens its own again."""
        while self._open:
            self._open.popitem()[1][0].close()


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array of a case file that is read where it is indexed."""

    files: OpenCases
    path: Path
    mark: Mark
    name: str
    shape: tuple[int, ...]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        return self.files.read(self.path, self.mark, self.name, index)


def _changed(path: Path) -> ScanError:
    there = path.exists()
    return ScanError(
        "The case was changed in the middle of a round",
        expected="the file that was checked when the round began",
        found="another" if there else "none",
        where=path,
        hint="let no `brainfed preprocess` or `exclude` run beside the training; "
        "run `brainfed train-round` again",
    )
