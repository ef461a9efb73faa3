"""Work of a simulation on a Dask cluster that runs already: all that brainfed ever connects to.

Only `simulate --scheduler` comes here, with scans that lie in one place; nothing of a real
federation does. Which certificates, keys and ciphers a connection has is Dask's own configuration.
"""

# distributed has types for some of its calls only.
# mypy: disable-error-code="no-untyped-call"

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainfed.errors import BrainfedError, NotReadyError, ResourceError
from brainfed.formats import simulation

if TYPE_CHECKING:
    from distributed import Client

    from brainfed.steps.simulated_party import Call

CONNECT_SECONDS = 10
WATCH_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
"""How long no worker may be there: Dask starts one that died again, which takes seconds."""

GPU = "GPU"
"""The name of Dask's resource of which a worker has one for each GPU."""

KEPT = "what was finished is kept"


@dataclass(frozen=True, slots=True)
class View:
    """What a process sees of all that the bits of a result depend on."""

    versions: tuple[tuple[str, str], ...]
    n_threads: int
    folder: str | None
    """Digest of the folder's `simulation.json`; None where there is none."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Workers that are connected, each of which has shown that it sees what we see."""

    n_workers: int
    _folder: Path
    _expected: View
    _anywhere: Executor
    _computing: Executor

    def submit(self, call: "Call") -> "Future[tuple[Any, float]]":
        """Give a piece of work to a worker; training and scoring to one with a free GPU, if asked.

        A worker that dies has its work done again by another.
        """
        executor = self._computing if call.computes else self._anywhere
        return executor.submit(_worked, self._folder, self._expected, call)


@contextlib.contextmanager
def connected(address: str, folder: Path, *, uses_gpu: bool) -> Iterator[Cluster]:
    """Connect to a scheduler, and try each of its workers, before any work is given away.

    Work that nobody has begun is taken back at the end, however it comes.

    Args:
        address: `tls://HOST:PORT` or `tcp://HOST:PORT`.
        folder: The results folder, with its `simulation.json`.
        uses_gpu: Whether what trains or scores waits for a worker with a GPU.

    Raises:
        NotReadyError: The extra `cluster` isn't installed.
        ResourceError: The scheduler can't be reached, has no worker, or one that would work
            otherwise than this machine; the connection or all workers were lost.
    """
    folder = folder.absolute()
    client = _client(address)
    with contextlib.closing(client):  # the scheduler then forgets what nobody has begun
        expected = view(folder)
        n_workers = _tried(client, address, folder, expected, uses_gpu=uses_gpu)
        anywhere = client.get_executor(pure=False)
        computing = client.get_executor(pure=False, resources={GPU: 1} if uses_gpu else {})
        watch = _Watch(client, (anywhere, computing), uses_gpu=uses_gpu)
        watch.start()
        try:
            yield Cluster(n_workers, folder, expected, anywhere, computing)
        except Exception as error:
            lost = _lost(error, address, is_deserted=watch.is_deserted)
            if lost is None:
                raise
            raise lost from error
        finally:
            watch.end()


def view(folder: Path) -> View:
    """What this process sees, as one that does one thing at a time."""
    path = folder / simulation.NAME
    data = path.read_bytes() if path.is_file() else None
    return View(
        versions=tuple((name, version(name)) for name in ("brainfed", "numpy", "torch")),
        n_threads=1,
        folder=None if data is None else hashlib.sha256(data).hexdigest(),
    )


def _view_of_worker(folder: Path, dask_worker: Any) -> View:
    """The same at a worker, which Dask passes by that name."""
    return replace(view(folder), n_threads=dask_worker.state.nthreads)


def _worked(folder: Path, expected: View, call: "Call") -> tuple[Any, float]:
    """Do it, at a worker; it may have joined since the others were tried."""
    from distributed import get_worker

    from brainfed.steps import simulated_party

    worker = get_worker()
    _check(worker.address, _view_of_worker(folder, worker), expected, folder)
    return simulated_party.call(call)


def _client(address: str) -> "Client":
    try:
        from distributed import Client, Security
    except ModuleNotFoundError:
        raise NotReadyError(
            "A cluster needs a package that isn't installed",
            expected="distributed",
            hint="pip install 'brainfed[cluster]', or leave --scheduler out",
        ) from None
    try:
        if not address.startswith(("tls://", "tcp://")):
            raise ValueError("neither tls:// nor tcp:// at its beginning")
        security = Security()
        asyncio.run(_reached(address, security.get_connection_args("client")))
        return Client(address, timeout=CONNECT_SECONDS, security=security, set_as_default=False)
    except (ValueError, TypeError, OSError) as error:
        raise ResourceError(
            "The scheduler can't be reached",
            expected="tls://HOST:PORT or tcp://HOST:PORT, as the scheduler says at its start",
            found=str(error) or f"no answer within {CONNECT_SECONDS} seconds",
            where=address,
            hint="is it running, and do both sides have the same certificates? "
            "docs/how-to/cluster.md",
        ) from None


async def _reached(address: str, options: Mapping[str, Any]) -> None:
    """Try once, since a Client waits without end for an answer, and can't be closed before one."""
    from distributed.comm.core import connect

    trial = connect(address, timeout=CONNECT_SECONDS, **options)
    comm = await asyncio.wait_for(trial, CONNECT_SECONDS + 0.5)
    comm.abort()


def _workers(client: "Client", *, with_gpu: bool) -> Mapping[str, Any]:
    """What the scheduler says of each worker that can train, by address."""
    # Not client.scheduler_info: it gives the last answer of any question, also one without workers.
    scheduler: Any = client.scheduler
    known: Mapping[str, Any] = client.sync(scheduler.identity, n_workers=-1)["workers"]
    if not with_gpu:
        return known
    return {name: one for name, one in known.items() if one["resources"].get(GPU, 0) >= 1}


def _tried(client: "Client", address: str, folder: Path, expected: View, *, uses_gpu: bool) -> int:
    """Have each worker say what it sees; gives how many there are, without those that just died.

    Raises:
        ResourceError: There is none, or one sees something else.
    """
    from distributed.comm.core import CommClosedError

    if not _workers(client, with_gpu=uses_gpu):
        raise ResourceError(
            "The scheduler has no worker with a GPU" if uses_gpu else "The scheduler has no worker",
            where=address,
            hint=f"dask worker {address} --nthreads 1"
            + (f' --resources "{GPU}=1"; or --device cpu' if uses_gpu else ""),
        )
    found = client.run(_view_of_worker, folder, on_error="return")
    there = {name: seen for name, seen in found.items() if not isinstance(seen, CommClosedError)}
    for name, seen in sorted(there.items()):
        _check(name, seen, expected, folder)
    return len(there)


def _check(worker: str, seen: View | Exception, expected: View, folder: Path) -> None:
    if seen == expected:
        return
    if not isinstance(seen, View):
        raise ResourceError(
            "A worker can't do brainfed's work",
            expected=_versions(expected),
            found=f"{type(seen).__name__}: {seen}",
            where=worker,
            hint="start scheduler and workers in an environment with the same packages",
        )
    if seen.versions != expected.versions:
        raise ResourceError(
            "A worker has other packages, so its results would differ",
            expected=_versions(expected),
            found=_versions(seen),
            where=worker,
            hint="start it in an environment with the same packages",
        )
    if seen.n_threads != expected.n_threads:
        raise ResourceError(
            "A worker does several things at a time in one process, so its results would differ",
            expected="one thread",
            found=seen.n_threads,
            where=worker,
            hint="start it with --nthreads 1, and as many as there are cores with --nworkers",
        )
    raise ResourceError(
        "A worker doesn't see the results folder",
        expected=f"{folder / simulation.NAME} as it is here",
        found="another file" if seen.folder else "nothing there",
        where=worker,
        hint="put --out on a file system that all of them have under the same path",
    )


def _versions(seen: View) -> str:
    return ", ".join(f"{name} {number}" for name, number in seen.versions)


def _lost(error: Exception, address: str, *, is_deserted: bool) -> BrainfedError | None:
    """The error as one of ours, where the cluster and not the work failed."""
    from distributed.comm.core import CommClosedError
    from distributed.scheduler import KilledWorker

    if isinstance(error, BrainfedError):
        return None
    if is_deserted:
        return ResourceError(
            "No worker is left",
            found=f"none for {PATIENCE_SECONDS:.0f} seconds",
            where=address,
            hint=f"start workers and run again: {KEPT}",
        )
    if isinstance(error, KilledWorker):
        return ResourceError(
            "Workers died at one piece of work, one after the other",
            found=f"{error.allowed_failures + 1} of them",
            where=error.last_worker.address,
            hint="the memory may be too small for so many on one machine: run again with fewer; "
            + KEPT,
        )
    if isinstance(error, CancelledError | CommClosedError):
        return ResourceError(
            "The connection to the scheduler was lost",
            where=address,
            hint=f"run again once it is back: {KEPT}",
        )
    return None


class _Watch(threading.Thread):
    """Takes all work back when no worker is left, for which Dask would wait for ever."""

    def __init__(self, client: "Client", executors: Iterable[Executor], *, uses_gpu: bool) -> None:
        super().__init__(name="watch over the workers", daemon=True)
        self.is_deserted = False
        self._client, self._executors, self._uses_gpu = client, executors, uses_gpu
        self._ended = threading.Event()

    def run(self) -> None:
        """Look every second."""
        n_without = 0
        while not self._ended.wait(WATCH_SECONDS):
            if self._client.status != "running":
                continue  # the client itself takes all work back
            try:
                found = _workers(self._client, with_gpu=self._uses_gpu)
            except (OSError, AttributeError):
                continue  # the same, in this moment
            n_without = 0 if found else n_without + 1
            if n_without * WATCH_SECONDS >= PATIENCE_SECONDS:
                self.is_deserted = True
                for executor in self._executors:
                    executor.shutdown(wait=False)
                return

    def end(self) -> None:
        """Look no longer."""
        self._ended.set()
        self.join()
