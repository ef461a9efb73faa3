"""Scans as a scanner gives them, through the whole of `preprocess`: one case, several plans."""

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from brainfed.core import brain_surface, registration
from brainfed.core.labels import LabelProtocol, region_mask
from brainfed.core.registration import Registered, compose, invert
from brainfed.core.volume import geometry_of, to_image, turned
from brainfed.formats import cache, dataset, quality_page
from brainfed.formats.case_file import IDENTITY, Case
from brainfed.formats.review import Verdict
from brainfed.formats.scan import write_scan
from brainfed.plan import Modality, Plan, Region
from brainfed.steps import align, make_case
from brainfed.steps.case_rows import CaseRow, CaseStatus, RefusedCasesError
from brainfed.steps.check import check
from brainfed.steps.check_rows import BadCasesError
from brainfed.steps.preprocess import Wish, preprocess_folder
from tests import simulator
from tests.builders import a_plan
from tests.simulator import Native

MODALITIES = (Modality.T1CE, Modality.FLAIR)
B17 = LabelProtocol.BRATS2017


@pytest.fixture(scope="module")
def native() -> Native:
    """A phantom, T1ce and FLAIR on two grids, the head lying elsewhere in each."""
    return simulator.two_scans(2.5)


@pytest.fixture(scope="module")
def made(native: Native, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the scans as files, and of the case made under `raw_plan()`."""
    folder = tmp_path_factory.mktemp("raw")
    simulator.write(native, folder / "scans", "head")
    run(folder, raw_plan())
    return folder


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    shutil.copytree(made, tmp_path / "site")
    return tmp_path / "site"


def raw_plan(grid: Mapping[str, Any] | None = None, **preparation: Any) -> Plan:
    return a_plan(
        scans={"required": MODALITIES, "regions": ("WT", "TC", "ET")},
        preparation={"space": "reference", "n4": False, **preparation},
        grid=grid or {"in_plane_mm": 2.0, "size": (128, 128)},
    )


def run(folder: Path, plan: Plan, **wish: Any) -> CaseRow:
    wish = {"protocol": LabelProtocol.BRATS2017, **wish}
    try:
        result = preprocess_folder(folder / "data", folder / "scans", plan, Wish(**wish))
    except RefusedCasesError as error:
        result = error.result
    (row,) = result.rows
    return row


def case_of(folder: Path) -> Case:
    (entry,) = dataset.read_index(folder / "data")
    return dataset.read_case(dataset.case_path(folder / "data", entry.id), entry.digest)


def page_entry(folder: Path) -> quality_page.QualityEntry:
    (entry,) = quality_page.read_entries(folder / "data")
    return entry


def facts(folder: Path) -> str:
    return "\n".join(f"{name}: {value}" for name, value in page_entry(folder).facts)


def matrix_between(case: Case) -> registration.Matrix:
    """Maps a point of T1ce to the point of FLAIR, by what the case says."""
    reference, flair = case.natives
    assert reference is not None
    assert flair is not None
    return compose(invert(reference.matrix), flair.matrix)


def test_scans_on_two_grids_become_a_case_in_one_space(made: Path, native: Native) -> None:
    case = case_of(made)
    assert case.image.shape[2:] == (128, 128)
    assert case.spacing_mm == pytest.approx((1, 2, 2))
    truth = native.truth[Modality.FLAIR]
    assert simulator.error_mm(matrix_between(case), truth, native.brain_points) < 0.5
    assert simulator.error_mm(IDENTITY, truth, native.brain_points) > 3  # there was something to do


def test_the_label_goes_where_its_scan_goes(made: Path, native: Native) -> None:
    case = case_of(made)
    tumour = region_mask(case.label, case.protocol, Region.WT)
    flair = case.image[1].astype(float)
    around = case.brain_mask & ~tumour
    assert flair[tumour].mean() > flair[around].mean() + flair[around].std()
    z, y, x = case.spacing_mm
    native_voxel = np.prod(native.label.GetSpacing())
    before = np.count_nonzero(sitk.GetArrayFromImage(native.label)) * native_voxel
    assert np.count_nonzero(tumour) * z * y * x == pytest.approx(before, rel=0.03)


def test_an_outline_can_be_brought_back_to_the_scan_it_was_drawn_on(
    made: Path, native: Native
) -> None:
    case = case_of(made)
    there = case.natives[list(MODALITIES).index(native.label_on)]
    assert there is not None
    label = to_image(case.label, case.geometry)
    back = sitk.Resample(
        label,
        list(there.geometry.size),
        registration.transform(invert(there.matrix)),
        sitk.sitkNearestNeighbor,
        list(there.geometry.origin_mm),
        list(there.geometry.spacing_mm),
        list(there.geometry.direction),
    )
    one = sitk.GetArrayFromImage(back) > 0
    other = sitk.GetArrayFromImage(turned(native.label)) > 0
    assert 2 * np.count_nonzero(one & other) / (one.sum() + other.sum()) > 0.9


def test_the_page_tells_the_motion_and_shows_the_scans_on_each_other(made: Path) -> None:
    entry = page_entry(made)
    assert entry.verdict is Verdict.OK
    assert "flair to t1ce" in facts(made)
    assert "degrees" in facts(made)
    case = case_of(made)
    ml = np.prod(case.spacing_mm) / 1000
    assert f"whole tumour: {np.count_nonzero(case.label) * ml:.1f} ml" in facts(made)
    assert f"brain mask: {np.count_nonzero(case.brain_mask) * ml:.1f} ml" in facts(made)
    assert any("heckerboard" in picture.title for picture in entry.pictures)
    assert quality_page.page_path(made / "data").stat().st_mode & 0o777 == 0o600


def test_another_grid_redoes_no_registration(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Registered:
        raise AssertionError("registered again")

    monkeypatch.setattr(registration, "register", never)
    monkeypatch.setattr(registration, "prepare", never)
    before = matrix_between(case_of(site))
    move_cases_away(site)
    assert run(site, raw_plan({"in_plane_mm": 3.0, "size": (64, 64)})).status is CaseStatus.MADE
    case = case_of(site)
    assert case.image.shape[2:] == (64, 64)
    assert matrix_between(case) == before != IDENTITY


def move_cases_away(site: Path) -> None:
    """What the error about cases of another plan says to do."""
    (site / "data" / "cases").rename(site / f"cases-{len(list(site.iterdir()))}")
    (site / "data" / "split.json").unlink(missing_ok=True)


@pytest.mark.slow
def test_a_changed_plan_redoes_only_what_it_must(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def counted(module: Any, name: str) -> None:
        does = getattr(module, name)

        def and_count(*args: Any, **named: Any) -> Any:
            done.append(name)
            return does(*args, **named)

        monkeypatch.setattr(module, name, and_count)

    counted(registration, "register")
    counted(registration, "prepare")
    counted(brain_surface, "classical")
    for plan, expected in (
        (raw_plan(brain="classical"), ["classical"]),
        (raw_plan(brain="classical", n4=True), ["prepare", "prepare", "register"]),
        (raw_plan(brain="classical", n4=True, space="reference"), []),
    ):
        move_cases_away(site)
        done.clear()
        assert run(site, plan).status is CaseStatus.MADE
        assert sorted(done) == expected


def test_a_case_that_was_interrupted_goes_on_where_it_was(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = case_of(site)
    shutil.rmtree(site / "data")

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(make_case, "assemble", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(site, raw_plan())
    monkeypatch.setattr(registration, "prepare", interrupt)
    monkeypatch.setattr(registration, "register", interrupt)
    assert run(site, raw_plan()).status is CaseStatus.MADE
    np.testing.assert_array_equal(case_of(site).image, whole.image)


def test_an_atlas_is_the_space_and_stands_on_the_page(
    site: Path, native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    t1ce_alone = checkerboard_width(site)
    shutil.rmtree(site / "data")
    head = simulator.a_phantom_head(5, spacing_mm=2.5)  # the patient itself, so the truth is known
    brain = sitk.GetArrayFromImage(head.contrasts[Modality.T1])
    brain = 1000 * brain * (sitk.GetArrayFromImage(head.brain) > 0)
    atlas = site / "atlas.nii.gz"
    write_scan(atlas, brain.astype(np.float32), geometry_of(head.brain))
    digest = hashlib.sha256(atlas.read_bytes()).hexdigest()
    named = {"space": "atlas", "atlas": atlas.name, "atlas_sha256": digest, "brain": "classical"}
    row = run(site, raw_plan(**named), atlas=atlas)
    assert row.status is CaseStatus.MADE, row.reason
    there = case_of(site).natives[0]
    assert there is not None
    points = simulator.mapped(native.to_head, native.brain_points)
    truth = invert(native.to_head)
    assert simulator.error_mm(there.matrix, truth, points) < 1.5
    assert simulator.error_mm(IDENTITY, truth, points) > 3  # there was something to do
    assert "t1ce to atlas" in facts(site)
    assert checkerboard_width(site) > 1.5 * t1ce_alone  # FLAIR on T1ce, and T1ce on the atlas

    def never(*_: Any, **__: Any) -> Registered:
        raise AssertionError("registered again")

    monkeypatch.setattr(registration, "register", never)
    move_cases_away(site)
    again = run(site, raw_plan({"in_plane_mm": 3.0, "size": (64, 64)}, **named))
    assert again.status is CaseStatus.MADE


def checkerboard_width(site: Path) -> int:
    (picture,) = [p for p in page_entry(site).pictures if p.title == "Checkerboards"]
    return int.from_bytes(picture.png[16:20])


def test_a_damaged_cache_is_made_again(site: Path) -> None:
    before = case_of(site)
    folder = cache.folder_of(site / "data", before.id)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    dataset.case_path(site / "data", before.id).unlink()
    assert run(site, raw_plan()).status is CaseStatus.MADE
    np.testing.assert_array_equal(case_of(site).image, before.image)


def test_a_case_that_joins_touches_no_other(site: Path, native: Native) -> None:
    (entry,) = dataset.read_index(site / "data")
    own = [path for path in (site / "data").rglob("*") if entry.id in str(path)]
    assert {path.parent.name for path in own} == {"cache", "cases", "quality", entry.id}
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in own}
    other = {m: image * 1.01 for m, image in native.images.items()}  # no duplicate
    simulator.write(replace(native, images=other, label=native.label > 0), site / "more", "late")
    result = preprocess_folder(
        site / "data", site / "more", raw_plan(), Wish(protocol=LabelProtocol.BRATS2017)
    )
    assert result.n_cases == 2, result.rows
    assert {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in before} == before
    assert entry in dataset.read_index(site / "data")


# --- a spacing that is a convention ---------------------------------------------------------------

MEASURED = re.compile(r"[\d)] *(mm|cm|ml)\b")


def words_of(path: Path) -> str:
    """A page without its pictures and without the style."""
    text = re.sub(r'base64,[^"]*"', "", path.read_text("utf-8"))
    return re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)


@pytest.mark.slow
def test_of_a_nominal_spacing_no_distance_and_no_volume_is_said(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = quality_page.page_path(site / "data")
    assert MEASURED.search(words_of(page))  # what the case of a true spacing says
    shutil.rmtree(site / "data")
    for name in ("t1ce", "flair", "seg"):  # a head of a third of the size: no brain is so small
        path = site / "scans" / "head" / f"head_{name}.nii.gz"
        image = sitk.ReadImage(str(path))
        image.SetSpacing([mm * 0.7 for mm in image.GetSpacing()])
        rewritten(site, name, image)
    small = [row_words(run(site, raw_plan(brain="classical")))]
    assert MEASURED.search(small[0])
    row = run(site, raw_plan(brain="classical"), spacing_nominal=True)
    assert row.is_held
    assert row.tumour_ml is None
    assert "spacing is nominal" in row_words(row)
    assert not MEASURED.search(row_words(row) + words_of(page))
    looked = check(site / "data", site / "scans", None, Wish(spacing_nominal=True, protocol=B17))
    assert looked.page is not None
    assert not MEASURED.search(words_of(looked.page) + repr(looked.rows))


def row_words(row: CaseRow) -> str:
    return " ".join((row.reason or "", *row.findings))


def test_a_refusal_of_a_nominal_spacing_says_no_distance(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(site / "data")
    register = registration.register

    def doubtful(*scans: Any, **masks: Any) -> Registered:
        return replace(register(*scans, **masks), doubts=("two searches ended 12 mm apart",))

    with monkeypatch.context() as patch:
        patch.setattr(registration, "register", doubtful)
        row = run(site, raw_plan(), spacing_nominal=True)
    assert "12 header units apart" in (row.reason or "")
    page = quality_page.page_path(site / "data")
    assert not MEASURED.search(row_words(row) + words_of(page))
    for name, command in (("t1ce", "preprocess"), ("flair", "check")):  # the reference of each
        label = sitk.ReadImage(str(site / "scans" / "head" / f"head_{name}.nii.gz")) > 0
        label.SetOrigin([value + 7 for value in label.GetOrigin()])
        rewritten(site, "seg", label)
        if command == "preprocess":
            row = run(site, raw_plan(), spacing_nominal=True)
            assert "header units" in (row.reason or "")
            assert not MEASURED.search(row_words(row) + words_of(page))
    with pytest.raises(BadCasesError) as caught:
        check(site / "data", site / "scans", None, Wish(spacing_nominal=True, protocol=B17))
    assert "header units" in repr(caught.value.result.rows)
    assert not MEASURED.search(repr(caught.value.result.rows))


def test_a_registration_in_doubt_refuses_the_case_and_shows_why(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(site / "data")

    register = registration.register

    def doubtful(*scans: Any, **masks: Any) -> Registered:
        return replace(register(*scans, **masks), doubts=("the heads don't overlap",))

    monkeypatch.setattr(registration, "register", doubtful)
    row = run(site, raw_plan())
    assert row.status is CaseStatus.REFUSED
    assert "heads don't overlap" in (row.reason or "")
    entry = page_entry(site)
    assert entry.verdict is Verdict.REFUSED
    assert entry.pictures
    assert not list((site / "data" / "cases").glob("*.h5"))


def test_a_plan_without_registration_takes_the_headers_word(site: Path) -> None:
    shutil.rmtree(site / "data")
    assert run(site, raw_plan(registration=False)).status is CaseStatus.MADE
    assert matrix_between(case_of(site)) == pytest.approx(IDENTITY)
    assert "left out: the plan has registration off" in facts(site)


def rewritten(site: Path, name: str, image: sitk.Image) -> None:
    path = site / "scans" / "head" / f"head_{name}.nii.gz"
    write_scan(path, sitk.GetArrayFromImage(image), geometry_of(image), replace=True)


def test_scans_that_are_registered_already_stay_where_they_are(site: Path, native: Native) -> None:
    shutil.rmtree(site / "data")
    fixed = native.images[Modality.T1CE]
    for name, image in (("flair", native.images[Modality.FLAIR]), ("seg", native.label)):
        on = Modality.FLAIR if name == "flair" else native.label_on
        motion = registration.transform(native.truth[on])
        how = sitk.sitkLinear if name == "flair" else sitk.sitkNearestNeighbor
        rewritten(site, name, sitk.Resample(image, fixed, motion, how))
    assert run(site, raw_plan()).status is CaseStatus.MADE
    assert matrix_between(case_of(site)) == pytest.approx(IDENTITY)
    assert "registered already" in facts(site)


def test_stripped_scans_on_one_grid_are_taken_as_they_are(site: Path, native: Native) -> None:
    shutil.rmtree(site / "data")
    fixed, motion = (
        native.images[Modality.T1CE],
        registration.transform(native.truth[Modality.FLAIR]),
    )
    brain = sitk.Cast(native.brain, sitk.sitkInt16)
    flair = sitk.Cast(sitk.Resample(native.images[Modality.FLAIR], fixed, motion), sitk.sitkInt16)
    rewritten(site, "flair", flair * brain)
    rewritten(site, "t1ce", sitk.Cast(fixed, sitk.sitkInt16) * brain)
    on = registration.transform(native.truth[native.label_on])
    rewritten(site, "seg", sitk.Resample(native.label, fixed, on, sitk.sitkNearestNeighbor))
    row = run(site, raw_plan(brain="classical"))
    assert row.status is CaseStatus.MADE, row.reason
    assert "skull-stripped" in facts(site)
    case = case_of(site)
    assert matrix_between(case) == pytest.approx(IDENTITY)
    assert not case.image[:, ~case.brain_mask].any()


def test_a_label_on_the_grid_of_no_scan_is_refused(site: Path, native: Native) -> None:
    shutil.rmtree(site / "data")
    label = sitk.Image(native.label)
    label.SetOrigin([value + 7 for value in label.GetOrigin()])
    rewritten(site, "seg", label)
    assert "grid of none of the case's scans" in (run(site, raw_plan()).reason or "")


def test_a_label_may_lie_on_a_scan_that_the_plan_does_not_take(site: Path, native: Native) -> None:
    shutil.rmtree(site / "data")
    (other,) = [m for m in MODALITIES if m is not native.label_on]
    plan = a_plan(
        scans={"required": (other,), "regions": ("WT",)},
        preparation={"space": "reference", "n4": False},
        grid={"in_plane_mm": 2.0, "size": (128, 128)},
    )
    row = run(site, plan)
    assert row.status is CaseStatus.MADE, row.reason
    case = case_of(site)
    assert case.image.shape[0] == 1
    z, y, x = case.spacing_mm
    before = np.count_nonzero(sitk.GetArrayFromImage(native.label)) * np.prod(
        native.label.GetSpacing()
    )
    assert np.count_nonzero(case.label) * z * y * x == pytest.approx(before, rel=0.03)


def test_the_plan_of_the_scans_own_grid_refuses_scans_on_two(site: Path) -> None:
    shutil.rmtree(site / "data")
    row = run(site, raw_plan(space="scan"))
    assert "different grids" in (row.reason or "")


def test_a_site_may_bring_its_own_mask_and_must_where_the_plan_says_so(
    site: Path, native: Native
) -> None:
    shutil.rmtree(site / "data")
    assert "no brain mask" in (run(site, raw_plan(brain="given")).reason or "")
    mask = site / "mask.nii.gz"
    write_scan(mask, sitk.GetArrayFromImage(native.brain), geometry_of(native.brain))
    columns = "PatientID,Case,T1GD,T2FLAIR,Label,BrainMask"
    files = "head_t1ce,head_flair,head_seg"
    cells = [f"scans/head/{name}.nii.gz" for name in files.split(",")]
    table = site / "cases.csv"
    table.write_text(f"{columns}\nhead,head,{','.join(cells)},{mask.name}\n")
    plan = raw_plan(brain="given")
    result = preprocess_folder(site / "data", table, plan, Wish(protocol=LabelProtocol.BRATS2017))
    (row,) = result.rows
    assert row.status is CaseStatus.MADE
    case = case_of(site)
    z, y, x = case.spacing_mm
    volume = np.count_nonzero(sitk.GetArrayFromImage(native.brain)) * np.prod(
        native.brain.GetSpacing()
    )
    assert np.count_nonzero(case.brain_mask) * z * y * x == pytest.approx(volume, rel=0.02)


def test_a_tumour_outside_the_brain_is_held_for_a_person(site: Path, native: Native) -> None:
    shutil.rmtree(site / "data")
    half = sitk.GetArrayFromImage(native.brain)
    label = sitk.GetArrayFromImage(
        sitk.Resample(
            native.label,
            native.brain,
            registration.transform(native.truth[native.label_on]),
            sitk.sitkNearestNeighbor,
        )
    )
    half[label > 0] = 0
    mask = site / "scans" / "head" / "mask.nii.gz"
    write_scan(mask, half, geometry_of(native.brain))
    table = site / "cases.csv"
    cells = [f"scans/head/head_{name}.nii.gz" for name in ("t1ce", "flair", "seg")]
    table.write_text(
        f"PatientID,T1GD,T2FLAIR,Label,BrainMask\nhead,{','.join(cells)},scans/head/mask.nii.gz\n"
    )
    result = preprocess_folder(
        site / "data", table, raw_plan(brain="given"), Wish(protocol=LabelProtocol.BRATS2017)
    )
    (row,) = result.rows
    assert row.is_held
    assert "outside the brain mask" in row.findings[0]


def test_the_reference_falls_back_where_it_is_missing() -> None:
    preparation = raw_plan().preparation
    rest = [Modality.FLAIR, Modality.T1, Modality.T2]
    assert align.reference_of(dict.fromkeys([*rest, Modality.T1CE]), preparation) is Modality.T1CE
    assert align.reference_of(dict.fromkeys(rest), preparation) is Modality.T1
    assert align.reference_of(dict.fromkeys(rest[:1] + rest[2:]), preparation) is Modality.FLAIR
    assert align.reference_of(dict.fromkeys(rest[2:]), preparation) is Modality.T2
