"""Outlines brought back onto the scan that a reader drew on, from an oblique scanner's grid."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from brainfed.core.inference import network_with
from brainfed.core.labels import LabelProtocol, region_mask
from brainfed.core.metrics import Measure, dice
from brainfed.core.rigid import compose
from brainfed.core.scoring import CaseScore
from brainfed.core.unet import initial_weights
from brainfed.core.volume import geometry_of, turned
from brainfed.errors import NotReadyError, ScanError
from brainfed.formats import cases_csv, dataset
from brainfed.formats.case_file import Case
from brainfed.formats.scan import write_scan
from brainfed.formats.scan_folder import find_cases
from brainfed.plan import Modality, Plan, Region
from brainfed.steps import native_space
from brainfed.steps.measure_outlines import measure
from brainfed.steps.native_space import OnScan, bring_back, scans_by_case
from brainfed.steps.preprocess import Wish, preprocess_folder
from brainfed.steps.score_cases import Scorer
from tests import simulator
from tests.builders import a_plan
from tests.simulator import Native

MODALITIES = (Modality.T1CE, Modality.FLAIR)
PLAN = a_plan(
    scans={"required": MODALITIES, "regions": ("WT", "TC", "ET")},
    preparation={"space": "reference", "n4": False},
    grid={"in_plane_mm": 1.0, "size": (256, 256)},
)


@pytest.fixture(scope="module")
def native() -> Native:
    """A phantom whose head lies elsewhere in T1ce and FLAIR, on two oblique grids."""
    return simulator.two_scans(2.0)


@pytest.fixture(scope="module")
def made(native: Native, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the scans, of the case made of them, and of the table that `check` writes."""
    folder = tmp_path_factory.mktemp("native")
    simulator.write(native, folder / "scans", "head")
    wish = Wish(protocol=LabelProtocol.BRATS2017)
    preprocess_folder(folder / "data", folder / "scans", PLAN, wish)
    cases_csv.write(folder / "data" / "cases.csv", find_cases(folder / "scans")[0])
    return folder


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed; its table names the scans of the copy."""
    shutil.copytree(made, tmp_path / "site")
    cases_csv.write(tmp_path / "site/data/cases.csv", find_cases(tmp_path / "site/scans")[0])
    return tmp_path / "site"


def case_of(folder: Path) -> Case:
    (entry,) = dataset.read_index(folder / "data")
    return dataset.read_case(dataset.case_path(folder / "data", entry.id), entry.digest)


def perfect(case: Case) -> np.ndarray:  # type: ignore[type-arg]
    """The label itself as the probability of each region."""
    return np.stack([region_mask(case.label, case.protocol, r) for r in PLAN.scans.regions]).astype(
        np.float32
    )


def back(folder: Path, plan: Plan = PLAN, case: Case | None = None) -> OnScan:
    data = folder / "data"
    case = case or case_of(folder)
    return bring_back(perfect(case), case, plan, data_folder=data, scans=scans_by_case(data))


def test_a_perfect_prediction_has_a_dice_near_1_on_the_reader_s_own_label(
    made: Path, native: Native
) -> None:
    found = back(made)
    own = sitk.GetArrayFromImage(turned(native.label))
    for region, predicted, true in zip(
        PLAN.scans.regions, found.predicted, found.true, strict=True
    ):
        np.testing.assert_array_equal(true, region_mask(own, LabelProtocol.BRATS2017, region))
        assert dice(predicted, true) > (0.95 if region is Region.WT else 0.9), region
    assert found.spacing_mm == pytest.approx(turned(native.label).GetSpacing()[::-1])


def test_a_head_that_lies_elsewhere_is_not_found(made: Path) -> None:
    case = case_of(made)
    moved = tuple(
        n and replace(n, matrix=compose(n.matrix, (1, 0, 0, 15, 0, 1, 0, 0, 0, 0, 1, 0)))
        for n in case.natives
    )
    found = back(made, case=replace(case, natives=moved))
    assert dice(found.predicted[0], found.true[0]) < 0.7


def test_all_measures_are_taken_on_the_scan_s_grid_but_the_paper_s(
    made: Path, native: Native
) -> None:
    data = made / "data"
    cpu = torch.device("cpu")
    scorer = Scorer(
        network_with(initial_weights(PLAN), PLAN, cpu), PLAN, cpu, data, scans_by_case(data)
    )
    (entry,) = dataset.read_index(data)
    measured = measure(scorer.outlines(entry))
    assert Measure.SOFT_SLICE_DICE not in measured.rows[0].values
    assert Measure.HD95_SURFACE in measured.rows[0].values
    label = sitk.GetArrayFromImage(native.label)
    whole: CaseScore = measured.rows[0]
    assert whole.n_voxels == np.count_nonzero(label)
    assert scorer.key("a" * 64) != replace(scorer, scans=None).key("a" * 64)


def test_without_a_table_of_cases_nobody_knows_where_the_scans_are(site: Path) -> None:
    (site / "data" / "cases.csv").unlink()
    with pytest.raises(NotReadyError, match="where the scans") as caught:
        scans_by_case(site / "data")
    assert "brainfed check" in str(caught.value.hint)


def test_a_case_that_the_table_lacks_is_named(site: Path) -> None:
    cases_csv.write(site / "data" / "cases.csv", [])
    with pytest.raises(ScanError, match="where the label of a case is") as caught:
        back(site)
    assert case_of(site).id in str(caught.value.where)


def test_a_scan_that_is_gone_is_said_so(site: Path) -> None:
    (path,) = (site / "scans").glob("*/*seg*")
    path.unlink()
    with pytest.raises(ScanError):
        back(site)


def test_a_label_that_was_changed_since_is_refused(site: Path, native: Native) -> None:
    (path,) = (site / "scans").glob("*/*seg*")
    changed = sitk.GetArrayFromImage(native.label)
    changed[changed == 4] = 1
    write_scan(path, changed, geometry_of(native.label), replace=True)
    with pytest.raises(ScanError, match="not those that it was made from") as caught:
        back(site)
    assert "brainfed preprocess" in str(caught.value.hint)


def test_a_label_on_a_scan_that_the_plan_does_not_take_can_t_be_scored_there(
    site: Path, native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = next(m for m in MODALITIES if m is not native.label_on)
    plan = a_plan(scans={"required": (other,), "regions": ("WT", "TC", "ET")})
    case = case_of(site)
    kept = case.natives[MODALITIES.index(other)]
    monkeypatch.setattr(native_space.read_scans, "distinctive", lambda _: case.source.scan_digests)
    plan = plan.model_copy(update={"preparation": PLAN.preparation, "grid": PLAN.grid})
    with pytest.raises(ScanError, match="whose place the case doesn't hold"):
        back(site, plan, replace(case, natives=(kept,)))
