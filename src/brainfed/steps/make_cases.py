"""The work on single cases, in this process or in several."""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call"

import hashlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core.assembly import assemble
from brainfed.core.labels import LabelProtocol
from brainfed.core.progress import Progress
from brainfed.errors import ResourceError, ScanError
from brainfed.formats import atomic, dataset, scan, scan_folder
from brainfed.formats.dataset import Case, CaseEntry, Source
from brainfed.formats.scan import Scan
from brainfed.formats.scan_folder import CaseFolder, ScanFiles, printable
from brainfed.plan import Modality, Plan, data_digest


@dataclass(frozen=True, slots=True)
class Task:
    """One case to make."""

    folder: CaseFolder
    case_id: str
    patient_id: str
    data_folder: Path
    plan: Plan
    protocol: LabelProtocol
    spacing_nominal: bool
    expected_digest: str | None
    """SHA-256 of the case file by the index, if it stands in there."""


@dataclass(frozen=True, slots=True)
class Made:
    """A case that lies in its place."""

    entry: CaseEntry
    is_kept: bool
    """Whether it was there already, from the same scans."""


def make_cases(tasks: list[Task], *, jobs: int, progress: Progress) -> list[Made | ScanError]:
    """Make the cases that are missing or have changed.

    Args:
        tasks: The cases.
        jobs: Processes; 1 works in this one.
        progress: Told of each case as it is finished.

    Returns:
        For each task the case, or what is wrong with its scans.

    Raises:
        ResourceError: Disk or memory ran out.
    """
    if jobs <= 1 or len(tasks) <= 1:
        _one_thread()
        outcomes = []
        for done, task in enumerate(tasks, start=1):
            outcomes.append(make_case(task))
            progress("cases", done, len(tasks), printable(task.folder.name))
        return outcomes
    return _in_processes(tasks, min(jobs, len(tasks)), progress)


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
                    "The same image is in another case too",
                    hint="find out whose image it is, and remove the other case",
                )
            )
        else:
            checked.append(outcome)
    return checked


def _in_processes(tasks: list[Task], n: int, progress: Progress) -> list[Made | ScanError]:
    # Spawn: a forked child would inherit the threads of SimpleITK in an unknown state.
    executor = ProcessPoolExecutor(
        n, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        futures: dict[Future[Made | ScanError], int] = {
            executor.submit(make_case, task): number for number, task in enumerate(tasks)
        }
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()  # raises here what must end the command
            name = printable(tasks[futures[future]].folder.name)
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


def make_case(task: Task) -> Made | ScanError:
    """Make one case, unless it lies there already, from the same scans under the same plan.

    Raises:
        ResourceError: Disk or memory ran out.
    """
    try:
        files = scan_folder.find_scans(task.folder, task.plan.scans)
        source_digest = _digest_of_files(files)
        kept = _kept(task, source_digest)
        if kept is not None:
            return Made(kept, is_kept=True)
        case = _build(task, files, source_digest)
        digest = dataset.write_case(dataset.case_path(task.data_folder, task.case_id), case)
        return Made(dataset.entry_of(case, digest), is_kept=False)
    except ScanError as error:
        return error
    except MemoryError:
        raise ResourceError(
            "The memory is too small for this case",
            where=task.folder.path,
            hint="run again with --jobs 1; finished cases are kept",
        ) from None


def _digest_of_files(files: ScanFiles) -> str:
    """SHA-256 over the bytes of all files, each with what it is."""
    digest = hashlib.sha256()
    for kind, path in [*files.images.items(), ("seg", files.label)]:
        try:
            with path.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ScanError("A file can't be read", found=error.strerror, where=path) from error
        digest.update(f"{kind} {content}\n".encode())
    return digest.hexdigest()


def _kept(task: Task, source_digest: str) -> CaseEntry | None:
    """What the index says of the finished case, if it is what would be made now."""
    path = dataset.case_path(task.data_folder, task.case_id)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        case = dataset.read_case(path, task.expected_digest)
    except (OSError, ScanError):
        return None
    as_wanted = (
        case.id == task.case_id
        and case.patient == task.patient_id
        and case.source.digest == source_digest
        and case.data_digest == data_digest(task.plan)
        and case.protocol is task.protocol
        and case.spacing_nominal == task.spacing_nominal
    )
    return dataset.entry_of(case, digest) if as_wanted else None


def _build(task: Task, files: ScanFiles, source_digest: str) -> Case:
    images = {m: scan.read_image(path) for m, path in files.images.items()}
    label = scan.read_label(files.label, task.protocol)
    _refuse_other_grids(images, label)
    _refuse_same_image(images)
    made = assemble(
        {m: read.image for m, read in images.items()},
        label.image,
        task.plan,
        protocol=task.protocol,
    )
    x, y, z = made.geometry.spacing_mm
    return Case(
        id=task.case_id,
        patient=task.patient_id,
        image=made.image,
        label=made.label,
        brain_mask=made.brain_mask,
        protocol=task.protocol,
        spacing_mm=(z, y, x),
        spacing_nominal=task.spacing_nominal,
        present=tuple(m in images for m in task.plan.scans.modalities),
        data_digest=data_digest(task.plan),
        native=label.geometry,
        geometry=made.geometry,
        source=Source(
            digest=source_digest,
            scan_digests=_distinctive([*images.values(), label]),
            tumour_lost_fraction=made.tumour_lost_fraction,
        ),
    )


def _distinctive(scans: Iterable[Scan]) -> tuple[str, ...]:
    """Digests that no other case may share: all but that of a label without tumour."""
    return tuple(sorted(read.voxel_digest for read in scans if not read.is_blank))


def _refuse_other_grids(images: dict[Modality, Scan], label: Scan) -> None:
    for modality, read in images.items():
        difference = read.geometry.difference(label.geometry)
        if difference:
            raise ScanError(
                f"The label and {modality} are on different grids",
                expected="one size, spacing, origin and direction",
                found=difference,
                hint="register and resample the scans of a case to one grid first",
            )


def _refuse_same_image(images: dict[Modality, Scan]) -> None:
    uses = Counter(read.voxel_digest for read in images.values())
    same = [str(m) for m, read in images.items() if uses[read.voxel_digest] > 1]
    if same:
        raise ScanError(
            f"{' and '.join(same)} are one and the same image",
            expected="an image of its own for each modality",
            hint="remove the file that is under a wrong name",
        )
