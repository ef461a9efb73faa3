"""DICOM studies as cases: one visit of a patient each."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from brainfed.core.sequences import Choice, Doubt
from brainfed.formats.dicom_header import Header
from brainfed.formats.dicom_series import common_folder, scan_file
from brainfed.formats.found_case import WHOLE_CASE, FoundCase


def of_two_patients(headers: Iterable[Header]) -> frozenset[str]:
    """Series whose files, or whose study's files, bear several PatientIDs (or several studies)."""
    owners: dict[str, set[tuple[str, str]]] = defaultdict(set)
    patients: dict[str, set[str]] = defaultdict(set)
    members: dict[str, set[str]] = defaultdict(set)
    for header in headers:
        owners[header.series].add((header.patient, header.study))
        patients[header.study].add(header.patient)
        members[header.study].add(header.series)
    mixed = {series for series, found in owners.items() if len(found) > 1}
    for study, found in patients.items():
        mixed |= members[study] if len(found) > 1 else set()
    return frozenset(mixed)


def name_visits(headers: Iterable[Header]) -> dict[tuple[str, str], str]:
    """A name for each study of each patient: its day, with a number for a second on that day."""
    when: dict[tuple[str, str], tuple[str, str]] = {}
    for h in headers:
        key = (h.patient, h.study)
        when[key] = min(when.get(key, (h.study_date, h.study_time)), (h.study_date, h.study_time))
    visits: dict[tuple[str, str], str] = {}
    n_on_day: dict[tuple[str, str], int] = defaultdict(int)
    for (patient, study), (day, _) in sorted(when.items(), key=lambda item: (item[1], item[0])):
        # Files without a PatientID may be of several patients: they share no numbering.
        owner = patient or study
        n_on_day[owner, day] += 1
        n = n_on_day[owner, day]
        visits[patient, study] = (day or "undated") + (f"-{n}" if n > 1 else "")
    return visits


def make_case(
    patient_id: str,
    visit: str,
    study: Mapping[str, Sequence[Header]],
    choice: Choice,
    *,
    is_mixed: bool,
) -> FoundCase:
    """The case that a study makes.

    Args:
        patient_id: PatientID; empty where the files have none.
        visit: As `name_visits` has it.
        study: Headers by SeriesInstanceUID.
        choice: What the series are.
        is_mixed: Whether a series of it holds images of two patients.
    """
    headers = [header for members in study.values() for header in members]
    patient = patient_id or f"unknown-{headers[0].study}"
    doubts = {str(m): _question(doubt, study) for m, doubt in choice.doubts.items()}
    if not patient_id:
        doubts[WHOLE_CASE] = "its files have no PatientID: name the patient in cases.csv"
    if is_mixed:
        doubts[WHOLE_CASE] = "a series or study of it holds images of two patients"
    return FoundCase(
        name=f"{patient}_{visit}",
        patient=patient,
        visit=visit,
        folder=common_folder(headers),
        images={m: scan_file(study[facts.series]) for m, facts in choice.images.items()},
        age_years=next((h.age_years for h in headers if h.age_years is not None), None),
        doubts=doubts,
        remarks=choice.remarks,
    )


def _question(doubt: Doubt, study: Mapping[str, Sequence[Header]]) -> str:
    """The doubt, and what to write into `cases.csv` for each series that it may be."""
    answers = "; ".join(f"{scan_file(study[f.series])} for {f}" for f in doubt.series)
    return f"{doubt.words}; answer in cases.csv: {answers}"
