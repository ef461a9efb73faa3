"""All real scans of `../shared/data`, through `check` and `preprocess`."""

import csv
from pathlib import Path

import pytest

from brainfed.core.labels import LabelProtocol
from brainfed.formats import dataset, quality_page
from brainfed.plan import Plan
from brainfed.steps.case_rows import CaseStatus, PreprocessResult
from brainfed.steps.check import check
from brainfed.steps.preprocess import Wish, preprocess_folder
from tests.builders import SHARED_DATA, a_plan

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs ../shared/data"),
]
ANYBODY = {"treatment": "any", "minimum_age_years": 0}
LGG = Wish(protocol=LabelProtocol.WHOLE_TUMOUR, spacing_nominal=True)


def lgg_plan(**preparation: object) -> Plan:
    return a_plan(
        scans={"required": ("flair",), "optional": ("t1", "t1ce")},
        grid={"size": (128, 128)},
        cohort=ANYBODY,
        preparation=preparation,
    )


def through(folder: Path, scans: Path, plan: Plan, wish: Wish) -> PreprocessResult:
    """What `preprocess` says; `check` must have found nothing to refuse before."""
    found = check(folder / "check", scans, plan, wish)
    assert not [row for row in found.rows if row.reason]
    assert not found.left_over
    return preprocess_folder(folder / "data", scans, plan, wish)


@pytest.mark.parametrize(("site", "n"), [("CS", 10), ("DU", 27), ("EZ", 1), ("FG", 9), ("HT", 21)])
def test_a_site_of_low_grade_gliomas(tmp_path: Path, site: str, n: int) -> None:
    result = through(tmp_path, SHARED_DATA / "lgg-sites" / site, lgg_plan(), LGG)
    assert result.count(CaseStatus.MADE) == n
    assert not any(row.is_held for row in result.rows)
    page = quality_page.page_path(tmp_path / "data").read_text("utf-8")
    assert " ml<" not in page  # the spacing is nominal: no volume and no distance
    assert " mm<" not in page
    for row in result.rows:
        assert row.tumour_ml is None


def deepmedic_table(folder: Path) -> Path:
    table = folder / "cohort.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["PatientID", "T1GD", "T2FLAIR", "Label", "BrainMask", "LabelProtocol"])
        for case in sorted((SHARED_DATA / "deepmedic-brats2013").glob("*/*")):
            names = ("T1c_subtrMeanDivStd", "Flair_subtrMeanDivStd", "OTMultiClass", "brainmask")
            files = [case / f"{name}.nii.gz" for name in names]
            writer.writerow([case.name, *files, "brats2012"])
    return table


@pytest.mark.parametrize("space", ["scan", "reference"])
def test_cases_of_brats_2013(tmp_path: Path, space: str) -> None:
    """Registered, stripped and z-scored: every step is recognised as done, in either space."""
    plan = a_plan(
        scans={"required": ("t1ce", "flair"), "regions": ("WT", "TC", "ET")},
        grid={"size": (240, 240)},
        cohort=ANYBODY,
        preparation={"space": space, "brain": "classical"},
    )
    result = through(tmp_path, deepmedic_table(tmp_path), plan, Wish())
    assert result.count(CaseStatus.MADE) == 6
    assert not any(row.is_held for row in result.rows), [row.findings for row in result.rows]
    for entry in dataset.read_index(tmp_path / "data"):
        case = dataset.read_case(dataset.case_path(tmp_path / "data", entry.id), entry.digest)
        assert case.image.shape == (2, 155, 240, 240)
        assert case.quality.tumour_outside_brain_fraction < 0.01
        assert case.natives[0] is not None
        assert case.natives[1] is not None
        assert case.natives[0].matrix == pytest.approx(case.natives[1].matrix)
