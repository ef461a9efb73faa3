"""The work on all cases, in this process or in several; each is done on one thread."""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call"

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeVar

import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core.progress import Progress
from brainfed.errors import ResourceError, ScanError
from brainfed.formats import atomic, dataset
from brainfed.formats.dataset import CaseEntry
from brainfed.formats.found_case import FoundCase
from brainfed.formats.scan_folder import printable
from brainfed.steps.make_case import Made, Task, make_case


class Named(Protocol):
    """Work on one case."""

    @property
    def found(self) -> FoundCase:
        """The case."""
        ...


SAME_IMAGE = "The same image is in another case too"

Work = TypeVar("Work", bound=Named)
Result = TypeVar("Result")


def each(
    work: Callable[[Work], Result], tasks: Sequence[Work], *, jobs: int, progress: Progress
) -> list[Result]:
    """Do the same for all cases, each on one thread, so that the bits don't depend on `jobs`.

    Args:
        work: What is to be done; a function of a module, since other processes must find it.
        tasks: The cases.
        jobs: Processes; 1 works in this one.
        progress: Told of each case as it is finished.

    Raises:
        ResourceError: A process died; and whatever `work` raises.
    """
    if jobs <= 1 or len(tasks) <= 1:
        _one_thread()
        results = []
        for done, task in enumerate(tasks, start=1):
            results.append(work(task))
            progress("cases", done, len(tasks), printable(task.found.name))
        return results
    return _in_processes(work, tasks, min(jobs, len(tasks)), progress)


def make_cases(tasks: list[Task], *, jobs: int, progress: Progress) -> list[Made | ScanError]:
    """Make the cases that are missing or have changed.

    Args:
        tasks: The cases.
        jobs: Processes; 1 works in this one.
        progress: Told of each case as it is finished.

    Returns:
        For each task the case, or what is wrong with its scans.

    Raises:
        NotReadyError: A package is not installed.
        ResourceError: Disk or memory ran out.
    """
    return each(make_case, tasks, jobs=jobs, progress=progress)


def refuse_duplicates(
    tasks: list[Task], outcomes: list[Made | ScanError], old: Iterable[CaseEntry]
) -> list[Made | ScanError]:
    """Refuse cases that share an image: one of the two names must be wrong, nobody knows which.

    Args:
        tasks: The cases of this command.
        outcomes: What became of them.
        old: Cases of earlier commands, which stay as they are.

    Returns:
        The outcomes, an error in the place of each case that shares an image.
    """
    here = {task.case_id for task in tasks}
    uses = Counter(
        digest
        for entry in (
            *(outcome.entry for outcome in outcomes if isinstance(outcome, Made)),
            *(entry for entry in old if entry.id not in here),
        )
        for digest in set(entry.scan_digests)
    )
    checked: list[Made | ScanError] = []
    for task, outcome in zip(tasks, outcomes, strict=True):
        if isinstance(outcome, Made) and any(uses[d] > 1 for d in outcome.entry.scan_digests):
            atomic.remove(dataset.case_path(task.data_folder, task.case_id))
            checked.append(
                ScanError(
                    SAME_IMAGE,
                    hint="find out whose image it is, and remove the other case",
                )
            )
        else:
            checked.append(outcome)
    return checked


def _in_processes(
    work: Callable[[Work], Result], tasks: Sequence[Work], n: int, progress: Progress
) -> list[Result]:
    # Spawn: a forked child would inherit the threads of SimpleITK in an unknown state.
    executor = ProcessPoolExecutor(
        n, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        futures: dict[Future[Result], int] = {
            executor.submit(work, task): number for number, task in enumerate(tasks)
        }
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()  # raises here what must end the command
            name = printable(tasks[futures[future]].found.name)
            progress("cases", done, len(tasks), name)
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise ResourceError(
            "A process that made cases died",
            hint="the memory may be too small for so many: run again with fewer --jobs; "
            "finished cases are kept",
        ) from error
    finally:
        # After Ctrl-C the cases in hand are finished, no further one is begun.
        executor.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _one_thread()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _one_thread() -> None:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _end_with_parent() -> None:
    """Leave no orphan behind when the parent is killed: the pool's own pipes don't tell."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
