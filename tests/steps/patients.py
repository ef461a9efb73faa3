"""A site that has joined, with patients by name and everything that can lie in its data folder."""

from dataclasses import replace
from pathlib import Path

from brainfed import plan as plans
from brainfed.formats import (
    atomic,
    cache,
    cases_csv,
    dataset,
    federation,
    identities,
    quality_page,
    review,
)
from brainfed.formats.dataset import Index, SkippedCase, SplitFile, Subset
from brainfed.formats.found_case import FoundCase, ScanFile
from brainfed.formats.identities import Identities
from brainfed.formats.quality_page import Picture, QualityEntry
from brainfed.formats.review import ReviewRow, Verdict
from brainfed.formats.workspace import Workspace
from brainfed.plan import Modality
from tests.builders import a_case

VISITS = {
    "anna-2019": ("Anna Schmidt", Subset.TRAIN),
    "anna-2021": ("Anna Schmidt", Subset.TRAIN),
    "bert-2020": ("Bert Weber", Subset.VALIDATION),
    "carl-2020": ("Carl Haas", Subset.TRAIN),
    "dora-2020": ("Dora Klein", Subset.TEST),
}
"""Patient and subset by case."""
REFUSED = "anna-2022"
"""A case of Anna's that was refused: it is in identities and on the page alone."""


def a_site_with_patients(place: Workspace) -> Workspace:
    """Fill the data folder of a site that has joined."""
    data, plan = place.data, federation.load(place).first_plan
    known = Identities(key=b"k" * identities.KEY_BYTES)
    (data / "cases").mkdir(parents=True)
    entries, assignments = [], {}
    for number, (name, (patient, subset)) in enumerate(VISITS.items()):
        ids = {"id": known.case_id(name), "patient": known.patient_id(patient)}
        case = replace(a_case(plan, name=name, seed=number, tumour_radius_mm=9 + number), **ids)
        digest = dataset.write_case(dataset.case_path(data, case.id), case)
        entries.append(dataset.entry_of(case, digest))
        assignments[case.patient] = subset
    for name, (patient, _) in [*VISITS.items(), (REFUSED, ("Anna Schmidt", None))]:
        known.cases[known.case_id(name)] = name
        known.visits[known.case_id(name)] = name[-4:]
        known.patients[known.patient_id(patient)] = patient
        _write_traces(place, known, name, patient)
    index = Index(
        data_digest=plans.data_digest(plan),
        cases=tuple(sorted(entries, key=lambda entry: entry.id)),
        skipped=(SkippedCase(id=known.case_id(REFUSED), reason="no label"),),
    )
    dataset.write_index(data, index)
    split = SplitFile(rule=plan.split.rule, seed=plan.seed, assignments=assignments)
    dataset.write_split(data, split)
    identities.write(data, known)
    names = [*VISITS.items(), (REFUSED, ("Anna Schmidt", None))]
    cases_csv.write(data / "cases.csv", [a_found_case(n, p) for n, (p, _) in names])
    for page in (quality_page.page_path(data), data / "check.html"):
        quality_page.write_page(page, quality_page.read_entries(data))
    return place


def a_found_case(name: str, patient: str) -> FoundCase:
    scan = ScanFile(Path(f"/scans/{name}/flair.nii.gz"))
    return FoundCase(
        name=name,
        patient=patient,
        visit=name[-4:],
        folder=Path("/scans"),
        images={Modality.FLAIR: scan},
    )


def picture_of(name: str) -> bytes:
    """Bytes that stand for a picture."""
    return b"\x89PNG" + name.encode() * 5


def _write_traces(place: Workspace, known: Identities, name: str, patient: str) -> None:
    data, case = place.data, known.case_id(name)
    cache.CaseCache(cache.folder_of(data, case)).store("n4-flair", "0" * 64, picture_of(name))
    picture = Picture(title="FLAIR", png=picture_of(name))
    is_made = name in VISITS
    quality_page.write_entry(
        data,
        QualityEntry(
            case_id=case,
            name=name,
            patient=patient,
            verdict=Verdict.OK if is_made else Verdict.REFUSED,
            pictures=(picture,),
        ),
    )
    verdict = Verdict.OK if is_made else Verdict.REFUSED
    review.merge(data, [ReviewRow(case=case, name=name, verdict=verdict)])
    reports = place.reports
    atomic.make_folder(reports)
    table = reports / "evaluate.0123abcd.validation.csv"
    row = f"{known.patient_id(patient)},{case},WT,10,12,0.900000,0.800000\n"
    head = "patient,case,region,n_voxels,n_voxels_predicted,dice,soft_slice_dice\n"
    table.write_text((table.read_text() if table.exists() else head) + row)
    by_name = reports / "evaluate.maps.89abcdef.csv"
    row = f"{patient},{name},WT,yes,10,12,0.900000\n"
    by_name.write_text((by_name.read_text() if by_name.exists() else "patient,case\n") + row)
    for journal, who in ((f"{table.name}.part", case), (f"{by_name.name}.part", name)):
        path = reports / journal
        lines = path.read_text() if path.exists() else '{"key": "0"}\n'
        path.write_text(f'{lines}{{"case": "{who}", "digest": "0", "rows": []}}\n')
    (reports / f"{table.stem}.{case}.png").write_bytes(picture_of(name))
    (reports / f"bug-{name}.txt").write_text(f"where: /scans/{name}/flair.nii.gz\n")
