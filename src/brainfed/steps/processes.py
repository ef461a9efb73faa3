"""Work on cases in other processes, a few at a time, as they come."""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call"

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.errors import ResourceError

Task = TypeVar("Task")
Result = TypeVar("Result")


def each(
    work: Callable[[Task], Result], tasks: Iterable[Task], *, jobs: int
) -> Generator[Result, None, None]:
    """Do the same for all tasks, and give each result as it is there, in any order.

    A task is drawn only when its turn comes, so that no more than `jobs` and one exist at a time.

    Args:
        work: What is to be done; a function of a module, since other processes must find it.
        tasks: What it is done with.
        jobs: Processes; 1 works in this one.

    Raises:
        ResourceError: A process died; and whatever `work` or `tasks` raises.
    """
    if jobs <= 1:
        yield from map(work, tasks)
        return
    executor = _executor(jobs)
    try:
        pending: set[Future[Result]] = set()
        for task in tasks:
            if len(pending) >= jobs:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
            pending.add(executor.submit(work, task))
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except BrokenProcessPool as error:
        raise ResourceError(
            "A process at work on cases died",
            hint="the memory may be too small for so many: run again with fewer --jobs; "
            "finished cases are kept",
        ) from error
    finally:
        # After Ctrl-C the cases in hand are finished, no further one is begun.
        executor.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def workers(jobs: int) -> Iterator[Executor]:
    """Processes for work that may be killed at any moment and done again.

    Args:
        jobs: How many.

    Raises:
        ResourceError: A process died.
    """
    executor = _executor(jobs)
    try:
        yield executor
    except BrokenProcessPool as error:
        raise ResourceError(
            "A process at work died",
            hint="the memory may be too small for so many: run again with fewer --jobs; what was "
            "finished is kept",
        ) from error
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _executor(jobs: int) -> ProcessPoolExecutor:
    # Spawn: a forked child would inherit the threads of SimpleITK and torch in an unknown state.
    return ProcessPoolExecutor(
        jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_begin
    )


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Leave no orphan behind when the parent is killed: the pool's own pipes don't tell."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
