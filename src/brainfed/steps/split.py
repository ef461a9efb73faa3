"""`split`: which patients train, which validate, and which are for the test."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from brainfed.core.cohort import Subset, assign
from brainfed.errors import ScanError
from brainfed.formats import dataset, federation
from brainfed.formats.dataset import CaseEntry, LeftOut, SplitFile
from brainfed.formats.ledger import Event
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan, data_digest


@dataclass(frozen=True, slots=True)
class SubsetCounts:
    """The size of one subset."""

    n_patients: int
    n_cases: int
    n_slices: int
    n_tumour_voxels: int
    """Whole tumour, all cases together."""


@dataclass(frozen=True, slots=True)
class SplitResult:
    """The split as it stands."""

    counts: dict[Subset, SubsetCounts]
    n_joined: int
    """Patients assigned by this command."""
    n_stayed: int
    """Patients with a case that were assigned before."""
    n_held: int
    """Cases left out because nobody has accepted them."""
    n_rejected: int
    """Cases left out because a person rejected them."""
    is_new: bool
    """Whether this command changed anything."""
    split_digest: str
    """Keyed digest; it goes into every update."""
    path: Path

    @property
    def only_evaluates(self) -> bool:
        """Whether the site has nobody to train on."""
        return self.counts[Subset.TRAIN].n_patients == 0


def split(workspace: Workspace) -> SplitResult:
    """Assign the site's patients, under the federation's plan.

    Raises:
        NotReadyError: The site has not joined a federation, or has no cases yet.
        ScanError: Cases or an older split are damaged or of another plan.
        ResourceError: The disk refuses.
    """
    result = split_cases(workspace.data, federation.load(workspace).first_plan)
    if result.is_new:
        workspace.note(Event.MADE, what="split", digest=result.split_digest)
    return result


def split_cases(data_folder: Path, plan: Plan) -> SplitResult:
    """Assign the patients of all cases in the index; those assigned before stay.

    Left out are cases that a person rejected, and held ones that nobody accepted; a patient who has
    no other is assigned once there is one. Errors are those of `split`.
    """
    index = dataset.read_whole_index(data_folder)
    if index.data_digest != data_digest(plan):
        raise ScanError(
            "The cases were made under another plan",
            where=dataset.index_path(data_folder),
            hint="move the folder data away, then run `brainfed preprocess` again",
        )
    out = dataset.left_out(data_folder, index.cases)
    used = tuple(entry for entry in index.cases if entry.id not in out)
    patients = _by_tumour_size(used)
    old = _old_split(data_folder, plan)
    assignments = assign(patients, old.assignments, plan.split, seed=old.seed)
    is_new = not dataset.split_path(data_folder).exists()
    is_new |= (assignments, out) != (old.assignments, old.left_out)
    if is_new:
        new = SplitFile(
            rule=old.rule,
            seed=old.seed,
            assignments=dict(sorted(assignments.items())),
            left_out=dict(sorted(out.items())),
        )
        dataset.write_split(data_folder, new)
    n_joined = len(assignments) - len(old.assignments)
    reasons = list(out.values())
    return SplitResult(
        counts=_count(used, assignments),
        n_joined=n_joined,
        n_stayed=len(patients) - n_joined,
        n_held=reasons.count(LeftOut.HELD),
        n_rejected=reasons.count(LeftOut.REJECTED),
        is_new=is_new,
        split_digest=dataset.split_digest(data_folder),
        path=dataset.split_path(data_folder),
    )


def _by_tumour_size(entries: tuple[CaseEntry, ...]) -> list[str]:
    """Patients from the smallest largest tumour of any visit to the largest.

    Ties are broken by the scans, not by the ids, so that a workspace made anew from the same scans
    gets the same split although its key and ids are others.
    """
    largest: dict[str, tuple[int, str]] = {}
    for entry in entries:
        size = (entry.n_tumour_voxels, entry.source_digest)
        largest[entry.patient] = max(size, largest.get(entry.patient, size))
    return sorted(largest, key=lambda patient: largest[patient])


def _old_split(data_folder: Path, plan: Plan) -> SplitFile:
    if dataset.split_path(data_folder).exists():
        return dataset.read_split(data_folder)
    return SplitFile(rule=plan.split.rule, seed=plan.seed)


def _count(
    entries: tuple[CaseEntry, ...], assignments: dict[str, Subset]
) -> dict[Subset, SubsetCounts]:
    patients: dict[Subset, set[str]] = defaultdict(set)
    cases, slices, voxels = Counter[Subset](), Counter[Subset](), Counter[Subset]()
    for entry in entries:
        subset = assignments[entry.patient]
        patients[subset].add(entry.patient)
        cases[subset] += 1
        slices[subset] += entry.n_slices
        voxels[subset] += entry.n_tumour_voxels
    return {
        subset: SubsetCounts(len(patients[subset]), cases[subset], slices[subset], voxels[subset])
        for subset in Subset
    }
