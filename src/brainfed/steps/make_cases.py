"""The work on all cases, in this process or in several; each is done on one thread."""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call"

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol, TypeVar

import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core.progress import Progress
from brainfed.errors import ScanError
from brainfed.formats import atomic, dataset
from brainfed.formats.dataset import CaseEntry
from brainfed.formats.found_case import FoundCase
from brainfed.formats.scan_folder import printable
from brainfed.steps import processes
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
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    results: dict[int, Result] = {}
    found = processes.each(partial(_numbered, work), enumerate(tasks), jobs=min(jobs, len(tasks)))
    with contextlib.closing(found):
        for number, result in found:
            results[number] = result
            progress("cases", len(results), len(tasks), printable(tasks[number].found.name))
    return [results[number] for number in range(len(tasks))]


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


def _numbered(work: Callable[[Work], Result], numbered: tuple[int, Work]) -> tuple[int, Result]:
    return numbered[0], work(numbered[1])
