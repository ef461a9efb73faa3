"""Ready label maps of other software against those of readers."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from brainfed.core.labels import LabelProtocol, region_mask
from brainfed.core.measuring import measure_all
from brainfed.core.metrics import Measure
from brainfed.core.surface import farthest_mm
from brainfed.core.volume import Geometry
from brainfed.errors import ScanError, UsageError
from brainfed.formats import score_journal, score_table
from brainfed.formats.score_table import ScoredSpace
from brainfed.plan import LesionPreset, Region
from brainfed.steps import score_pair
from brainfed.steps.score_maps import MapsResult, MapsWish, score_maps
from tests.builders import a_geometry, a_label, a_plan, write_nifti

SHAPE = (12, 30, 30)
SPACING = (3.0, 2.0, 2.0)


def put(folder: Path, name: str, array: Any, geometry: Geometry | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    write_nifti(folder / f"{name}.nii.gz", array, geometry or a_geometry(array.shape, SPACING))
    return folder / f"{name}.nii.gz"


def a_map(radius_mm: float = 12, shift_mm: float = 0) -> np.ndarray[Any, Any]:
    return a_label(
        SHAPE, tumour_radius_mm=radius_mm, spacing_mm=SPACING, centre_mm=(0, shift_mm, 0)
    )


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Four cases, predicted more or less well."""
    for n in range(4):
        put(tmp_path / "truth", f"Patient-0000{n}-000", a_map(12 + n))
        put(tmp_path / "found", f"Patient-0000{n}-000", a_map(11 + n, shift_mm=n))
    return tmp_path


def wish(folder: Path, **changes: Any) -> MapsWish:
    content: dict[str, Any] = {
        "predictions": folder / "found",
        "truth": folder / "truth",
        "protocol": LabelProtocol.BRATS2017,
        "out": folder / "scores.csv",
    }
    return MapsWish(**(content | changes))


def score(folder: Path, *, jobs: int = 1, plan: Any = None, **changes: Any) -> MapsResult:
    return score_maps(wish(folder, **changes), plan, jobs=jobs)


def test_each_case_has_every_measure_of_every_region_that_the_protocol_can_give(
    folders: Path,
) -> None:
    done = score(folders)
    assert (done.n_patients, done.n_cases, done.regions) == (4, 4, tuple(Region))
    truth, found = a_map(13), a_map(12, shift_mm=1)
    for region in Region:
        row = next(r for r in done.rows if "00001" in r.case and r.region is region)
        by_hand = measure_all(
            region_mask(found, LabelProtocol.BRATS2017, region),
            region_mask(truth, LabelProtocol.BRATS2017, region),
            spacing_mm=SPACING,
            tolerance_mm=1.0,
            lesions=LesionPreset.GLI,
        )
        assert dict(row.values) == pytest.approx(by_hand)
    assert Measure.SOFT_SLICE_DICE not in done.rows[0].values


def test_the_table_lies_where_it_was_wanted_and_says_what_it_is(folders: Path) -> None:
    done = score(folders)
    read = score_table.read_table(folders / "scores.csv")
    assert [(r.case, r.region) for r in read] == [(r.case, r.region) for r in done.rows]
    about = score_table.read_about(folders / "scores.csv")
    assert (about.space, about.weights, about.plan) == (ScoredSpace.FILES, None, None)
    assert (about.n_cases, about.n_missing) == (4, 0)


def test_the_plan_s_regions_and_rules_count_where_there_is_one(folders: Path) -> None:
    plan = a_plan(
        scans={"regions": ("WT",)}, evaluation={"tolerance_mm": 5.0, "lesions": LesionPreset.MET}
    )
    done = score(folders, plan=plan)
    assert done.has_plan
    assert done.regions == (Region.WT,)
    by_default = score(folders)
    nsd = [
        next(r for r in d.rows if r.region is Region.WT).values[Measure.NSD]
        for d in (done, by_default)
    ]
    assert nsd[0] > nsd[1]


def test_visits_of_one_patient_are_told_by_their_names(tmp_path: Path) -> None:
    for visit in ("000", "001"):
        put(tmp_path / "truth", f"BraTS-GLI-00005-{visit}", a_map(12))
        put(tmp_path / "found", f"BraTS-GLI-00005-{visit}", a_map(11))
    assert (score(tmp_path).n_patients, score(tmp_path).n_cases) == (1, 2)


def test_a_truth_may_be_called_seg(folders: Path) -> None:
    for n, name in enumerate(("_seg", "-seg")):
        path = folders / "truth" / f"Patient-0000{n}-000.nii.gz"
        path.rename(folders / "truth" / f"Patient-0000{n}-000{name}.nii.gz")
    assert score(folders).missing == ()


def test_the_rows_are_the_same_however_many_processes_score(folders: Path) -> None:
    one = score(folders)
    table = (folders / "scores.csv").read_bytes()
    assert score(folders, jobs=2).rows == one.rows
    assert (folders / "scores.csv").read_bytes() == table


def test_a_missing_prediction_is_a_miss_in_every_region_and_is_named(folders: Path) -> None:
    put(folders / "truth", "only-oedema", np.where(a_map(12) > 0, 2, 0).astype(np.uint8))
    done = score(folders)
    assert done.missing == ("only-oedema",)
    assert done.n_cases == 5
    worst = farthest_mm(SHAPE, SPACING)
    for row in (row for row in done.rows if row.case == "only-oedema"):
        assert row.n_voxels_predicted == 0
        values = row.values
        assert [values[m] for m in (Measure.DICE, Measure.NSD, Measure.LESION_DICE)] == [0, 0, 0]
        assert values[Measure.SENSITIVITY] == 0
        assert values[Measure.HD95_SURFACE] == values[Measure.HD95_POOLED] == worst
        assert values[Measure.LESION_HD95] == worst
    of_dice = next(s for s in done.summaries if (s.region, s.measure) == (Region.ET, Measure.DICE))
    assert of_dice.n == 5
    assert score_table.read_about(folders / "scores.csv").n_missing == 1


def test_an_empty_prediction_that_is_there_is_right_about_an_empty_region(tmp_path: Path) -> None:
    for folder in ("truth", "found"):
        put(tmp_path / folder, "a", np.zeros(SHAPE, np.uint8))
    row = score(tmp_path).rows[0]
    assert (row.values[Measure.DICE], row.values[Measure.HD95_SURFACE]) == (1, 0)


def test_a_prediction_without_a_truth_is_named_and_not_scored(folders: Path) -> None:
    put(folders / "found", "stranger", a_map())
    done = score(folders)
    assert done.without_truth == ("stranger",)
    assert done.n_cases == 4


def test_nominal_spacing_has_no_mm_and_no_ml(folders: Path) -> None:
    done = score(folders, spacing_nominal=True)
    assert not any(s.measure.unit or s.measure is Measure.NSD for s in done.summaries)
    assert score_table.read_about(folders / "scores.csv").n_nominal == 4


def test_another_grid_is_refused_with_both_geometries(folders: Path) -> None:
    coarse = a_label((12, 15, 15), tumour_radius_mm=14, spacing_mm=(3, 4, 4))
    geometry = Geometry(
        (15, 15, 12), (4.0, 4.0, 3.0), (-9.0, 6.0, 2.0), (1, 0, 0, 0, 1, 0, 0, 0, 1)
    )
    put(folders / "found", "Patient-00002-000", coarse, geometry)
    with pytest.raises(ScanError, match="different grids") as caught:
        score(folders)
    assert "size 30, 30, 12; spacing 2, 2, 3 mm" in str(caught.value.expected)
    assert "size 15, 15, 12; spacing 4, 4, 3 mm" in str(caught.value.found)
    assert "00002" in str(caught.value.where)
    assert "--resample" in str(caught.value.hint)
    assert not (folders / "scores.csv").exists()
    done = score(folders, resample=True)
    assert next(row for row in done.rows if "00002" in row.case).dice > 0.8


def test_the_same_grid_with_its_axes_in_another_order_is_the_same_grid(folders: Path) -> None:
    name = "Patient-00001-000.nii.gz"
    before = score(folders).rows
    image = sitk.ReadImage(str(folders / "found" / name))
    sitk.WriteImage(sitk.DICOMOrient(image, "RSA"), str(folders / "found" / name))
    assert score(folders).rows == before


def test_all_cases_with_something_wrong_are_told_at_once_and_the_others_are_kept(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in (1, 3):
        put(folders / "found", f"Patient-0000{n}-000", a_map() + 4)
    with pytest.raises(ScanError, match=r"outside the protocol.*1 more.*00003") as caught:
        score(folders)
    assert "00001" in str(caught.value.where)
    for n in (1, 3):
        put(folders / "found", f"Patient-0000{n}-000", a_map(11 + n, shift_mm=n))
    scored = []
    original = score_pair.score_pair
    monkeypatch.setattr(
        score_pair, "score_pair", lambda pair: (scored.append(pair.case), original(pair))[1]
    )
    assert score(folders).n_kept == 2
    assert scored == ["Patient-00001-000", "Patient-00003-000"]


def test_values_outside_the_protocol_are_refused(folders: Path) -> None:
    with pytest.raises(ScanError, match="values outside the protocol msd") as caught:
        score(folders, protocol=LabelProtocol.MSD)
    assert "4" in str(caught.value.found)


def test_probabilities_are_told_from_labels(folders: Path) -> None:
    array = np.linspace(0, 1, 12 * 30 * 30, dtype=np.float32).reshape(SHAPE)
    put(folders / "found", "Patient-00000-000", array)
    with pytest.raises(ScanError, match="probabilities or scores, not of labels") as caught:
        score(folders)
    assert caught.value.found == "values from 0 to 1, with fractions"


def test_a_protocol_that_can_t_give_the_plan_s_regions_is_refused(folders: Path) -> None:
    with pytest.raises(ScanError, match="can't give ET"):
        score(
            folders,
            plan=a_plan(scans={"regions": ("WT", "ET")}),
            protocol=LabelProtocol.WHOLE_TUMOUR,
        )


@pytest.mark.parametrize("folder", ["found", "truth"])
def test_an_empty_folder_is_refused(folders: Path, folder: str) -> None:
    for path in (folders / folder).iterdir():
        path.rename(path.with_name(f"{path.name}.txt"))
    with pytest.raises(ScanError, match="no label map in this folder") as caught:
        score(folders)
    assert str(caught.value.where).endswith(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="no such folder"):
        score(tmp_path)


def test_two_files_of_one_case_are_refused(folders: Path) -> None:
    put(folders / "truth", "Patient-00001-000_seg", a_map())
    with pytest.raises(ScanError, match="Two files stand for one case"):
        score(folders)


def test_a_file_that_is_no_nifti_is_refused(folders: Path) -> None:
    (folders / "found" / "Patient-00001-000.nii.gz").write_bytes(b"no scan")
    with pytest.raises(ScanError) as caught:
        score(folders)
    assert "00001" in str(caught.value.where)


@pytest.mark.parametrize("name", ["scores.txt", "notes.csv", "mine.csv"])
def test_no_other_file_is_written_over(folders: Path, name: str) -> None:
    (folders / "notes.csv").write_text("my,notes\n")
    (folders / "mine.json").write_text("{}")
    with pytest.raises(UsageError):
        score(folders, out=folders / name)
    assert (folders / "notes.csv").read_text() == "my,notes\n"
    assert (folders / "mine.json").read_text() == "{}"


KILLED = """
import os, signal, sys
from pathlib import Path
from brainfed.core.labels import LabelProtocol
from brainfed.steps.score_maps import MapsWish, score_maps

def die(what, done, total, note=""):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

folder = Path(sys.argv[1])
score_maps(
    MapsWish(
        predictions=folder / "found",
        truth=folder / "truth",
        protocol=LabelProtocol.BRATS2017,
        out=folder / "scores.csv",
    ),
    progress=die,
)
"""


@pytest.mark.skipif(os.name != "posix", reason="a kill that can't be caught")
def test_what_a_kill_left_is_not_scored_again_and_the_table_is_the_same(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(folders)
    table = (folders / "scores.csv").read_bytes()
    (folders / "scores.csv").unlink()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folders)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert score_journal.path_of(folders / "scores.csv").exists()
    assert not (folders / "scores.csv").exists()
    scored = []
    original = score_pair.score_pair
    monkeypatch.setattr(
        score_pair, "score_pair", lambda pair: (scored.append(pair.case), original(pair))[1]
    )
    done = score(folders)
    assert (done.n_kept, len(scored)) == (2, 2)
    assert (folders / "scores.csv").read_bytes() == table
    assert not score_journal.path_of(folders / "scores.csv").exists()


def test_a_file_that_changed_since_is_scored_again(folders: Path) -> None:
    journal = score_journal.path_of(folders / "scores.csv")
    put(folders / "found", "Patient-00003-000", a_map() + 4)
    with pytest.raises(ScanError):
        score(folders)
    assert journal.exists()
    put(folders / "found", "Patient-00000-000", a_map(5))
    put(folders / "found", "Patient-00003-000", a_map())
    done = score(folders)
    assert done.n_kept == 2
    assert done.rows[0].dice < 0.5
