"""`exclude`: take a case out for good, and erase all that was made of it here.

The index is written first and is what counts: from then on no command uses the case or makes it
again. Real names go last, because they say what is to be erased. All that lies between can be done
again, so a killed command is completed by the same command.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from brainfed.core.cohort import Subset
from brainfed.errors import UsageError
from brainfed.formats import (
    atomic,
    cache,
    cases_csv,
    dataset,
    federation,
    identities,
    ledger,
    quality_page,
    review,
    rounds,
    scan_folder,
)
from brainfed.formats.dataset import ExcludedCase, ExclusionReason, Index
from brainfed.formats.identities import Identities
from brainfed.formats.ledger import Event
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.plan import data_digest
from brainfed.steps import erase

NO_PLAN = "0" * 64
"""Stands in an index for the plan's digest before there is a plan; `preprocess` mends that."""
Patients = dict[str, str | None]
"""Patient id by id of each case that is known here; None where it can't be told."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The cases that a name and a reason stand for; nothing has been changed yet."""

    reason: ExclusionReason
    cases: tuple[ExcludedCase, ...]
    """By id; of a patient who withdrew all that are known, also those excluded before."""
    patient: str | None
    """Id of the patient, where the reason is of the patient."""
    updates: tuple[Path, ...]
    """Updates that were trained with them and never signed: they are erased too."""
    layers: tuple[Path, ...]
    """Layers that stay at this site, of all rounds, which may have learned from them: likewise."""
    signed_update: Path | None
    """The update of the open round if it is signed: it may have left, and stays."""
    already: bool
    """Whether all of them were excluded before."""


@dataclass(frozen=True, slots=True)
class Excluded:
    """What was taken out."""

    chosen: Chosen
    n_cases: int
    """Cases that are left in the index."""
    split_digest: str | None
    """Keyed digest of what is left of the split; None where there is none yet."""


def choose(place: Workspace, name: str, reason: ExclusionReason) -> Chosen:
    """Find what a name stands for.

    Args:
        place: A site's or an evaluator's workspace.
        name: Real name or id of a case; where the reason is of the patient, also of a patient.
        reason: Why. One that is of the patient takes all cases of the patient.

    Raises:
        NotReadyError: No case was ever made or looked at here.
        UsageError: Nothing here has that name, two things have it, or it is a patient's where a
            case is wanted.
        ScanError: A table that holds rows of cases is damaged.
    """
    place.require(Role.SITE, Role.EVALUATOR)
    known, index = identities.read(place.data), _index(place)
    review.read(place.data)  # a damaged table stops this before anything is changed
    patients = _patients(place.data, known, index)
    case, patient = _meant(name, known, patients, reason)
    if reason.is_of_the_patient and patient is not None:
        taken = sorted(c for c, p in patients.items() if p == patient)
    else:
        taken = [case] if case is not None else []
    cases = tuple(_entry(c, patients[c], reason, index) for c in taken)
    told = _told(place)
    already = all(entry in index.excluded and (entry.id, entry.reason) in told for entry in cases)
    was_used = not already and _were_used(place.data, cases)
    return Chosen(
        reason=reason,
        cases=cases,
        patient=patient if reason.is_of_the_patient else None,
        updates=erase.unsigned_updates(place) if was_used else (),
        layers=erase.local_layers(place) if was_used else (),
        signed_update=_signed_update(place) if was_used else None,
        already=already,
    )


def exclude(place: Workspace, chosen: Chosen) -> Excluded:
    """Take the cases out of index and split, and erase all that was made of them here.

    Erasing a file is what the system makes of it: backups, snapshots and blocks that a disk has not
    written anew are not reached. The scans outside of the workspace stay.

    Raises:
        ScanError: A table or the page that holds cases is damaged; mended, run it again.
        ResourceError: The disk refuses.
    """
    data = place.data
    known, old = identities.read(data), _index(place)
    patients = _patients(data, known, old)
    index = _without(old, chosen.cases)
    if index != old:
        dataset.write_index(data, index)
    for path in chosen.updates:
        erase.update(place, path)
    for path in chosen.layers:
        atomic.remove(path)
    erase.rounds_on_their_way(place)
    erase.drill(place)
    ids = {entry.id for entry in chosen.cases}
    left = {patient for case, patient in patients.items() if case not in ids}
    touched = {entry.patient for entry in chosen.cases}
    erase.split_lines(data, ids, touched - left)
    erase.told(place, touched, touched - left)
    for case in sorted(ids):
        atomic.remove(dataset.case_path(data, case))
        atomic.remove_tree(cache.folder_of(data, case))
        atomic.remove(quality_page.entry_path(data, case))
    review.erase(data, *ids)
    erase.pages(data)
    _erase_rows(data, known, ids, chosen.patient)
    names = {name for case in ids if (name := known.cases.get(case)) is not None}
    patients_of = {entry.patient or "" for entry in chosen.cases}
    whose = {name for patient in patients_of if (name := known.patients.get(patient)) is not None}
    erase.scores(place, ids | names | (whose if chosen.patient else set()))
    erase.bug_reports(place, ids | names | whose)
    erase.names(data, known, index, ids)
    told = _told(place)
    lines: list[ledger.Entry] = [
        (Event.EXCLUDED, {"case": entry.id, "reason": entry.reason.value})
        for entry in chosen.cases
        if (entry.id, entry.reason) not in told
    ]
    ledger.append_all(place.ledger_path, lines)
    has_split = dataset.split_path(data).exists()
    return Excluded(chosen, len(index.cases), dataset.split_digest(data) if has_split else None)


def _index(place: Workspace) -> Index:
    """The index; an empty one where cases were only looked at, or all of them refused."""
    if dataset.index_path(place.data).exists():
        return dataset.read_whole_index(place.data)
    started = federation.has_started(place)
    digest = data_digest(federation.load(place).first_plan) if started else NO_PLAN
    return Index(data_digest=digest, cases=())


def _patients(data: Path, known: Identities, index: Index) -> Patients:
    """Of every case that is known here: made, refused, left out, looked at or excluded before."""
    table = data / cases_csv.FILE_NAME
    rows = cases_csv.read(table) if table.exists() else ()
    found: Patients = {known.case_id(row.name): known.patient_id(row.patient) for row in rows}
    found |= {case.id: None for case in index.skipped if case.id not in found}
    found |= {entry.id: entry.patient for entry in index.excluded}
    found |= {entry.id: entry.patient for entry in index.cases}
    for case, name in known.cases.items():
        if found.get(case) is None:
            entry = quality_page.read_entry(data, case)
            by_name, _ = scan_folder.patient_and_visit(name)
            patient = known.patient_id((entry and entry.patient) or by_name)
            found[case] = patient if patient in known.patients else None
    return found


def _meant(
    name: str, known: Identities, patients: Patients, reason: ExclusionReason
) -> tuple[str | None, str | None]:
    """The ids of the case and of the patient that a name stands for."""
    case = name if name in patients else known.case_id(name)
    patient = name if name in patients.values() else known.patient_id(name)
    is_case, is_patient = case in patients, patient in patients.values()
    if not (is_case or is_patient):
        raise UsageError(
            "There is no such case here",
            expected="the name of a case or a patient, or an id of 16 digits",
            where=name,
            hint="`brainfed check` and `brainfed preprocess` list the names; scans that neither "
            "was ever shown are only taken out of their folder",
        )
    if is_case and is_patient and patients[case] != patient and reason.is_of_the_patient:
        raise UsageError(
            "A case has this name, and another patient has it too",
            expected=f"{case} for the case, {patient} for the patient",
            where=name,
            hint="give the id of the one that is meant",
        )
    if is_case:
        return case, patients[case]
    if not reason.is_of_the_patient:
        raise UsageError(
            f"This is a patient, but {reason} is said of a case",
            expected=" or ".join(sorted(c for c, p in patients.items() if p == patient)),
            where=name,
            hint="name the case, or one of these ids",
        )
    return None, patient


def _entry(case: str, patient: str | None, reason: ExclusionReason, index: Index) -> ExcludedCase:
    """What the index is to say; the first reason stays, unless now the whole patient goes."""
    old = next((entry for entry in index.excluded if entry.id == case), None)
    if old is not None and (old.reason.is_of_the_patient or not reason.is_of_the_patient):
        return old
    return ExcludedCase(id=case, patient=patient, reason=reason)


def _told(place: Workspace) -> set[tuple[str, str]]:
    """Case and reason of every exclusion that the ledger tells of."""
    lines = ledger.read(place.ledger_path)
    return {(line["case"], line["reason"]) for line in lines if line["event"] == Event.EXCLUDED}


def _were_used(data: Path, cases: Iterable[ExcludedCase]) -> bool:
    """Whether an update may have learned from one of them, as far as the split tells."""
    if not dataset.split_path(data).exists():
        return False
    assignments = dataset.read_split(data).assignments
    return any(
        entry.patient is None or assignments.get(entry.patient, Subset.TEST) is not Subset.TEST
        for entry in cases
    )


def _signed_update(place: Workspace) -> Path | None:
    if place.role is not Role.SITE or not federation.has_started(place):
        return None
    known, number = federation.load(place), rounds.open_round(place)
    path = rounds.update_path(place, known, number, place.name)
    return None if path in erase.unsigned_updates(place) else path


def _without(index: Index, cases: Iterable[ExcludedCase]) -> Index:
    gone = {entry.id: entry for entry in (*index.excluded, *cases)}
    return replace(
        index,
        cases=tuple(entry for entry in index.cases if entry.id not in gone),
        skipped=tuple(case for case in index.skipped if case.id not in gone),
        excluded=tuple(gone[case] for case in sorted(gone)),
    )


def _erase_rows(data: Path, known: Identities, ids: set[str], patient: str | None) -> None:
    """Rows of `cases.csv`; of a patient who withdrew also those that never became a case."""
    path = data / cases_csv.FILE_NAME
    if path.exists():
        cases_csv.erase(
            path,
            lambda case, whose: known.case_id(case) in ids or known.patient_id(whose) == patient,
        )
