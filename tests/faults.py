"""A disk that fails, and a process that is killed, at every single call that changes something.

The calls are those of `os` and `io` that `formats/atomic` makes; whatever else in Python writes
makes them too. Native writers (HDF5, SimpleITK) don't, and have `tests/steps/test_strace.py`.
"""

import errno
import io
import json
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from brainfed.errors import BrainfedError

KILLED, A_BUG, OURS = 9, 70, 100
"""Exit codes of a child; one of our errors adds its own code to the last."""
_NEEDS_ROOM = {"create", "write", "mkdir", "link"}


class Fault(StrEnum):
    """What happens at a call."""

    KILL_BEFORE = "killed before"
    KILL_HALF_WAY = "killed in the middle of"  # of a write alone
    KILL_AFTER = "killed after"
    FULL = "no room at"  # nor at any call after it that needs some
    BROKEN = "input/output error at"


KILLS = (Fault.KILL_BEFORE, Fault.KILL_HALF_WAY, Fault.KILL_AFTER)
FAILURES = (Fault.FULL, Fault.BROKEN)


@dataclass(frozen=True)
class Point:
    """A call, by its number, and what happens there."""

    number: int
    call: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.fault} call {self.number}, {self.call}"


@dataclass(frozen=True)
class Ended:
    """How a command ended that ran in a process of its own."""

    code: int
    calls: tuple[str, ...]
    """The calls that it made, such as `fsync`; empty where it was killed."""


def points(calls: Sequence[str], faults: Sequence[Fault] = tuple(Fault)) -> list[Point]:
    """All that can happen at these calls."""
    return [
        Point(number, call, fault)
        for number, call in enumerate(calls)
        for fault in faults
        if fault is not Fault.KILL_HALF_WAY or call == "write"
    ]


def thin_out(them: Sequence[Point], at_most: int | None) -> list[Point]:
    """Evenly spread points, all of them where there is no limit."""
    if at_most is None or len(them) <= at_most:
        return list(them)
    return [them[(2 * i + 1) * len(them) // (2 * at_most)] for i in range(at_most)]


def run_apart(command: Callable[[], object], point: Point | None = None) -> Ended:
    """Run a command in a forked process, whose disk fails or which is killed at a point.

    The kill is real: the process ends at once, without clean-up.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # numpy's threads sleep while we fork, and the child computes nothing with them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = A_BUG
        try:
            disk = _Disk(point)
            disk.put_in_place()
            command()
            code = 0
        except BrainfedError as error:
            code = OURS + error.exit_code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os.write(writing, json.dumps(disk.calls).encode())
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        calls = json.loads(stream.read() or b"[]")
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), tuple(calls))


def disturbed(
    before: Path, work: Path, command: Callable[[Path], object], them: Sequence[Point]
) -> Iterator[tuple[Point, int, Path]]:
    """Run a command on copies of a folder, disturbed at each point.

    Gives the point, how the command ended, and the folder as it was left.
    """
    for index, point in enumerate(them):
        root = work / f"disturbed-{index}"
        shutil.copytree(before, root)
        ended = run_apart(lambda root=root: command(root), point)
        assert ended.code != A_BUG, f"{point}: no error of ours"
        yield point, ended.code, root
        shutil.rmtree(root)


def killed_everywhere(
    before: Path, work: Path, command: Callable[[Path], object], *, step: int = 1
) -> Iterator[tuple[Point, Path]]:
    """Run a command on copies of a folder, killed before its first, second ... call.

    Gives the point and the folder as it was left.
    """
    shutil.copytree(before, work / "undisturbed")
    ended = run_apart(lambda: command(work / "undisturbed"))
    assert ended.code == 0
    for point, code, root in disturbed(
        before, work, command, points(ended.calls, (Fault.KILL_BEFORE,))[::step]
    ):
        assert code == KILLED
        yield point, root


def check_whole(
    point: object, found: dict[str, str], old: dict[str, str], new: dict[str, str]
) -> None:
    """Every file is an old one or a new one, and none is lost that stays as it is."""
    for path, digest in found.items():
        if not Path(path).name.startswith(".tmp-"):
            assert digest in {old.get(path), new.get(path)}, f"{point}: {path}"
    for path in old.keys() & new.keys():
        # The outbox is emptied and filled again, and holds nothing that isn't elsewhere too.
        if old[path] == new[path] and not path.startswith("outbox/"):
            assert path in found, f"{point}: {path} is lost"


class _Disk:
    """Counts the calls of this process, and lets one of them fail or be the last."""

    def __init__(self, point: Point | None) -> None:
        self.calls: list[str] = []
        self._point = point

    def put_in_place(self) -> None:
        for name in ("replace", "rename", "unlink", "rmdir", "mkdir", "link", "chmod", "fsync"):
            setattr(os, name, self._counted(name, getattr(os, name)))
        self._os_open, self._io_open = os.open, io.open
        os.open = self._open_descriptor
        io.open = self._open_stream

    def at(self, name: str, call: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        """Carry out a call, or what is to happen in its place."""
        number = len(self.calls)
        self.calls.append(name)
        point = self._point
        if point is None or number < point.number:
            return call()
        if number > point.number:
            if point.fault is Fault.FULL and name in _NEEDS_ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call()
        if point.fault is Fault.KILL_BEFORE:
            os._exit(KILLED)
        if half is not None and point.fault is Fault.FULL:
            return half()  # the system says how much it could take, and fails the next time
        if half is not None and point.fault is Fault.KILL_HALF_WAY:
            half()
        if point.fault in FAILURES:
            reason = errno.ENOSPC if point.fault is Fault.FULL else errno.EIO
            raise OSError(reason, os.strerror(reason))
        try:
            if point.fault is Fault.KILL_AFTER:
                call()
        finally:  # also after a call that found nothing to do, such as to unlink
            os._exit(KILLED)

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            return self.at(name, lambda: call(*arguments, **options))

        return counted

    def _open_descriptor(self, path: Any, flags: int, *more: Any, **options: Any) -> int:
        def call() -> int:
            return self._os_open(path, flags, *more, **options)

        if flags & os.O_CREAT:
            return self.at("create", call)
        if flags & (os.O_WRONLY | os.O_RDWR):
            return self.at("open", call)
        return self.at("open folder", call) if Path(path).is_dir() else call()

    def _open_stream(self, file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        is_new = any(letter in mode for letter in "wax")
        if "b" not in mode or not (is_new or "+" in mode):
            return self._io_open(file, mode, *more, **options)

        def call() -> Any:
            raw = _Raw(os.fspath(file) if isinstance(file, Path) else file, mode.replace("b", ""))
            raw.disk = self
            return (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)

        if isinstance(file, int):
            return call()
        return self.at("create" if is_new else "open", call)


class _Raw(io.FileIO):
    """A file whose writes go through the disk; Python's own buffer is above it."""

    disk: _Disk

    def write(self, data: Any) -> int:
        half = memoryview(data)[: len(data) // 2]
        whole = super().write
        return self.disk.at("write", lambda: whole(data), lambda: whole(half))

    def truncate(self, size: int | None = None) -> int:
        whole = super().truncate
        return self.disk.at("truncate", lambda: whole(size))
