"""The scans of a simulation: prepared once, then laid out at the sites of a partition.

Sites share case files by hard links and the key of the ids, so a patient has the same id in every
run: that is what makes differences between methods paired.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from brainfed.core.cohort import Subset
from brainfed.core.partition import Member
from brainfed.core.progress import Progress, silent
from brainfed.core.sequence_rule import default_rule
from brainfed.errors import ScanError
from brainfed.formats import atomic, dataset, identities
from brainfed.formats.dataset import CaseEntry, Index, SplitFile
from brainfed.formats.found_case import WHOLE_CASE
from brainfed.formats.identities import Identities
from brainfed.formats.simulation import SiteCounts
from brainfed.plan import Plan, data_digest
from brainfed.steps.preprocess import Wish, preprocess_folder
from brainfed.steps.recognise import recognise


@dataclass(frozen=True, slots=True)
class Prepared:
    """All cases of a simulation."""

    data: Path
    """The folder that holds them."""
    members: tuple[Member, ...]
    """The patients, by name."""
    ids: Mapping[str, str]
    """Keyed id by the patient's name."""
    entries: Mapping[str, tuple[CaseEntry, ...]]
    """Cases by the patient's keyed id."""
    n_held: int
    """Cases that are held back for a person to look at, and so left out."""

    @property
    def digest(self) -> str:
        """Of all cases that take part."""
        return dataset.dataset_digest(e for entries in self.entries.values() for e in entries)


def prepare(
    data: Path,
    scans: Path,
    plan: Plan,
    wish: Wish,
    *,
    is_by_folder: bool = False,
    progress: Progress = silent,
) -> Prepared:
    """Make the cases of all scans; those that are there already stay.

    Args:
        data: Where the cases go.
        scans: A folder that `preprocess` knows, or one of such folders, a site each.
        plan: The plan.
        wish: How scans are to be taken.
        is_by_folder: Whether each folder in `scans` is a site's; else that is taken so only where
            no scan lies higher up.
        progress: Told of each case.

    Raises:
        ScanError: Cases were refused, none is left, or a patient lies in two sites' folders.
        ResourceError: Disk or memory ran out.
    """
    folder_of: dict[str, str] = {}
    folders = _site_folders(scans, is_by_folder=is_by_folder)
    for name, folder in folders:
        done = preprocess_folder(data, folder, plan, wish, progress=progress)
        known = identities.read(data)
        for row in done.rows:
            if row.entry is None:
                continue
            patient = known.patients[row.entry.patient]
            other = folder_of.setdefault(patient, name)
            if other != name:
                raise ScanError(
                    "A patient lies in the folders of two sites",
                    expected="each patient at one site",
                    found=f"{patient} in {other} and in {name}",
                    where=scans,
                    hint="take the patient out of one of them",
                )
    return _prepared(data, folder_of)


def _site_folders(scans: Path, *, is_by_folder: bool) -> list[tuple[str, Path]]:
    """The folders to prepare, each with the name of its site, which is empty where all is one."""
    if not scans.is_dir():
        return [("", scans)]
    inside = sorted(p for p in scans.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not is_by_folder:
        found = recognise(scans, rule=default_rule()).cases
        if not all(case.doubts.get(WHOLE_CASE) and not case.images for case in found):
            return [("", scans)]
    return [(folder.name, folder) for folder in inside]


def _prepared(data: Path, folder_of: Mapping[str, str]) -> Prepared:
    index, known = dataset.read_whole_index(data), identities.read(data)
    out = dataset.left_out(data, index.cases)
    entries: dict[str, list[CaseEntry]] = defaultdict(list)
    for entry in index.cases:
        if entry.id not in out and known.patients[entry.patient] in folder_of:
            entries[entry.patient].append(entry)
    if not entries:
        raise ScanError(
            "No case is left to simulate with",
            found=f"{len(out)} held back" if out else "none",
            where=data,
            hint="`brainfed check` says what is wrong with each",
        )
    members = [
        Member(
            patient=known.patients[patient],
            n_tumour_voxels=max(case.n_tumour_voxels for case in cases),
            n_cases=len(cases),
            folder=folder_of[known.patients[patient]],
        )
        for patient, cases in entries.items()
    ]
    return Prepared(
        data=data,
        members=tuple(sorted(members, key=lambda member: member.patient)),
        ids={known.patients[patient]: patient for patient in entries},
        entries={patient: tuple(cases) for patient, cases in entries.items()},
        n_held=len(out),
    )


def lay_out(prepared: Prepared, data: Path, plan: Plan, subsets: Mapping[str, Subset]) -> None:
    """Make the data folder of one place: its cases as hard links, their index and the split.

    Args:
        prepared: All cases.
        data: The folder; what is there already stays.
        plan: The plan.
        subsets: Of each patient of the place, by keyed id.

    Raises:
        ResourceError: The disk refuses.
    """
    if dataset.split_path(data).exists():
        return  # written last
    atomic.make_folder(data / "cases")
    entries = [entry for patient in subsets for entry in prepared.entries[patient]]
    for entry in entries:
        path = dataset.case_path(data, entry.id)
        if not path.exists():
            atomic.link_or_copy(dataset.case_path(prepared.data, entry.id), path)
    whole = identities.read(prepared.data)
    here = {entry.id for entry in entries}
    identities.write(
        data,
        Identities(
            key=whole.key,
            cases={case: name for case, name in whole.cases.items() if case in here},
            patients={p: name for p, name in whole.patients.items() if p in subsets},
            visits={case: visit for case, visit in whole.visits.items() if case in here},
        ),
    )
    cases = tuple(sorted(entries, key=lambda entry: entry.id))
    dataset.write_index(data, Index(data_digest=data_digest(plan), cases=cases))
    split = SplitFile(
        rule=plan.split.rule, seed=plan.seed, assignments=dict(sorted(subsets.items()))
    )
    dataset.write_split(data, split)


def counts_of(prepared: Prepared, site: str, subsets: Mapping[str, Subset]) -> SiteCounts:
    """What one site has."""
    found = list(subsets.values())
    return SiteCounts(
        site=site,
        n_train=found.count(Subset.TRAIN),
        n_validation=found.count(Subset.VALIDATION),
        n_test=found.count(Subset.TEST),
        n_slices=sum(
            entry.n_slices
            for patient, subset in subsets.items()
            if subset is Subset.TRAIN
            for entry in prepared.entries[patient]
        ),
    )


def everybody(sites: Iterable[Mapping[str, Subset]]) -> dict[str, Subset]:
    """The patients of all sites as those of one place, each in the subset it has at its site."""
    return {patient: subset for site in sites for patient, subset in site.items()}
