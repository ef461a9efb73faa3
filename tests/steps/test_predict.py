"""Label maps of scans by global weights: where they lie, what they say, whom they trust."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from brainfed.core.labels import LabelProtocol, label_of, region_mask
from brainfed.core.volume import Geometry, geometry_of
from brainfed.errors import (
    BrainfedError,
    FileRefusedError,
    PlanError,
    ResourceError,
    ScanError,
    SignatureError,
    StrangerError,
    UnsignedError,
    UsageError,
    WrongFederationError,
    WrongRoundError,
)
from brainfed.formats import cases_csv, scan
from brainfed.formats.found_case import LabelOrigin
from brainfed.formats.scan import description_of
from brainfed.formats.signature import signature_path
from brainfed.plan import Modality, Region
from brainfed.steps.predict import Wish, predict
from brainfed.steps.predict_rows import PredictResult, RefusedPredictionsError, Status
from brainfed.steps.preprocess import Wish as PreprocessWish
from brainfed.steps.preprocess import preprocess_folder
from brainfed.steps.trust_weights import Trusted
from tests import bad_scans, simulator
from tests.builders import a_geometry, a_plan, write_case_folder
from tests.federation import carry, leftovers, mode_of, sign, train
from tests.predicting import OBLIQUE, THRESHOLD, Outsider, an_outsider, middle_mm, write_scans

ALONG_LPS = a_geometry()
FOUR = {"scans": {"required": ("flair",), "optional": ("t1", "t1ce", "t2")}}
ALL = {"scans": {"regions": ("WT", "TC", "ET"), "required": ("flair",)}}


def nobody(_: Trusted) -> None:
    """Take the fingerprint as read."""


def predicted(given: Outsider, scans: Path, out: Path, **changes: object) -> PredictResult:
    fields = {"weights": given.weights, "scans": scans, "out": out}
    protocol = changes.pop("protocol", LabelProtocol.WHOLE_TUMOUR)
    wish = Wish(**(fields | {"protocol": protocol} | changes))  # type: ignore[arg-type]
    return predict(wish, None, tell=nobody, device="cpu")


@pytest.mark.parametrize("geometry", [ALONG_LPS, OBLIQUE], ids=["along LPS", "oblique"])
def test_a_label_map_lies_on_its_own_scan_voxel_for_voxel(
    tmp_path: Path, geometry: Geometry
) -> None:
    given = an_outsider(tmp_path)
    folder = write_scans(tmp_path / "scans", "p1", geometry)
    predicted(given, tmp_path / "scans", tmp_path / "out")
    found = sitk.ReadImage(str(tmp_path / "out" / "p1.nii.gz"))
    image = sitk.ReadImage(str(folder / "p1_t1ce.nii.gz"))
    assert found.GetSize() == image.GetSize()
    for ours, theirs in (
        (found.GetSpacing(), image.GetSpacing()),
        (found.GetOrigin(), image.GetOrigin()),
        (found.GetDirection(), image.GetDirection()),
    ):
        assert np.allclose(ours, theirs, rtol=0, atol=1e-5)
    tumour = middle_mm(folder / "p1_flair.nii.gz", 140)
    assert np.linalg.norm(middle_mm(tmp_path / "out" / "p1.nii.gz", 0.5) - tumour) < 1.0


def test_an_answer_is_what_is_bright_on_flair(tmp_path: Path) -> None:
    given = an_outsider(tmp_path, a_plan(**FOUR))
    folder = write_scans(tmp_path / "scans", "p1", ALONG_LPS)
    result = predicted(given, tmp_path / "scans", tmp_path / "out")
    bright = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "p1_flair.nii.gz"))) > 138
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "p1.nii.gz")))
    assert 2 * np.count_nonzero(bright & (found == 1)) / (bright.sum() + found.sum()) > 0.9
    (row,) = result.rows
    assert row.volumes_ml == {Region.WT: pytest.approx(found.sum() * 3 * 2 * 2 / 1000)}
    assert row.reference is Modality.T1CE
    assert set(row.modalities) == set(Modality)


def test_the_header_the_picture_and_the_result_say_research_only(tmp_path: Path) -> None:
    given = an_outsider(tmp_path)
    write_scans(tmp_path / "scans", "p1", ALONG_LPS)
    result = predicted(given, tmp_path / "scans", tmp_path / "out")
    raw = sitk.ReadImage(str(tmp_path / "out" / "p1.nii.gz")).GetMetaData("descrip")
    assert raw.startswith("For research only, not for diagnosis")
    assert result.weights[:12] in raw
    assert result.warning == "For research only, not for diagnosis"
    assert (tmp_path / "out" / "p1.png").read_bytes().startswith(b"\x89PNG")
    assert leftovers(tmp_path / "out") == []


def test_the_longest_description_fits_its_field(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    words = "For research only, not for diagnosis. Weights 0123456789ab, brats2024-post"
    scan.write_scan(path, np.zeros((2, 3, 4), np.uint8), a_geometry((2, 3, 4)), description=words)
    assert description_of(path) == words


@pytest.mark.parametrize("protocol", ["brats2012", "brats2017", "brats2023", "msd"])
def test_a_label_map_nests_enhancing_in_core_in_whole(protocol: str) -> None:
    whole = np.array([1, 1, 1, 0, 0, 1], bool)
    core = np.array([0, 1, 1, 1, 0, 0], bool)
    enhancing = np.array([0, 0, 1, 1, 1, 1], bool)
    known = LabelProtocol(protocol)
    label = label_of({Region.WT: whole, Region.TC: core, Region.ET: enhancing}, known)
    assert region_mask(label, known, Region.WT).tolist() == whole.tolist()
    assert region_mask(label, known, Region.TC).tolist() == [False, True, True, False, False, False]
    assert region_mask(label, known, Region.ET).tolist() == [
        False,
        False,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("regions", "protocol"),
    [
        (("WT",), "brats2023"),
        (("WT", "TC", "ET"), "whole-tumour"),
        (("WT", "TC"), "brats2023"),
        (("ET",), "brats2023"),
        (("TC", "ET"), "whole-tumour"),
    ],
)
def test_a_protocol_that_would_say_more_or_less_than_is_known_is_refused(
    regions: tuple[str, ...], protocol: str
) -> None:
    masks = {Region(name): np.ones(2, bool) for name in regions}
    with pytest.raises(ScanError, match="can't say"):
        label_of(masks, LabelProtocol(protocol))


def test_whole_tumour_holds_the_whole_of_a_plan_without_et_and_the_rest_is_told(
    tmp_path: Path,
) -> None:
    plan = a_plan(scans={"regions": ("WT", "TC"), "required": ("flair",)})
    given = an_outsider(tmp_path, plan, THRESHOLD, THRESHOLD)
    write_scans(tmp_path / "scans", "p1", ALONG_LPS)
    result = predicted(given, tmp_path / "scans", tmp_path / "out")
    assert (result.regions, result.left_out) == ((Region.WT,), (Region.TC,))


def test_a_protocol_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    given = an_outsider(tmp_path)
    write_scans(tmp_path / "scans", "p1", ALONG_LPS)
    with pytest.raises(ScanError, match="can't say"):
        predicted(given, tmp_path / "scans", tmp_path / "out", protocol=LabelProtocol.BRATS2023)
    assert not (tmp_path / "out").exists()


def test_three_regions_and_mirroring_go_into_one_map(tmp_path: Path) -> None:
    given = an_outsider(tmp_path, a_plan(**ALL), 1.5, 1.8, 2.4)
    write_scans(tmp_path / "scans", "p1", ALONG_LPS)
    result = predicted(
        given,
        tmp_path / "scans",
        tmp_path / "out",
        protocol=LabelProtocol.BRATS2023,
        mirror=True,
    )
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "p1.nii.gz")))
    assert set(np.unique(found)) == {0, 1, 2, 3}
    volumes = result.rows[0].volumes_ml
    assert volumes is not None
    assert volumes[Region.WT] > volumes[Region.TC] > volumes[Region.ET] > 0  # type: ignore[operator]


def test_a_network_in_3_d_goes_the_same_way(tmp_path: Path) -> None:
    network = {"architecture": "unet-3d", "patch": (8, 16, 16)}
    given = an_outsider(tmp_path, a_plan(network=network))
    folder = write_scans(tmp_path / "scans", "p1", OBLIQUE)
    predicted(given, tmp_path / "scans", tmp_path / "out")
    tumour = middle_mm(folder / "p1_flair.nii.gz", 140)
    assert np.linalg.norm(middle_mm(tmp_path / "out" / "p1.nii.gz", 0.5) - tumour) < 1.0


def test_a_network_of_the_sites_own_is_refused(tmp_path: Path) -> None:
    network = {"architecture": "external", "tensors": ("w F32 2 2",)}
    given = an_outsider(tmp_path, a_plan(network=network))
    write_scans(tmp_path / "scans", "p1", ALONG_LPS)
    with pytest.raises(PlanError, match="external"):
        predicted(given, tmp_path / "scans", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_modality_is_no_obstacle_unless_the_plan_requires_it(tmp_path: Path) -> None:
    given = an_outsider(tmp_path, a_plan(**FOUR))
    write_scans(tmp_path / "scans", "p1", ALONG_LPS, modalities=("t1", "flair"))
    write_scans(tmp_path / "scans", "p2", ALONG_LPS, seed=1, modalities=("t1", "t2"))
    with pytest.raises(RefusedPredictionsError) as caught:
        predicted(given, tmp_path / "scans", tmp_path / "out")
    first, second = caught.value.result.rows
    assert (first.status, first.reference) == (Status.PREDICTED, Modality.T1)
    assert (second.status, second.reason) == (Status.REFUSED, "Missing: flair: t1, t2")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "cases.csv",
        "p1.nii.gz",
        "p1.png",
    ]


def test_the_folder_of_one_case_does(tmp_path: Path) -> None:
    given = an_outsider(tmp_path)
    folder = write_scans(tmp_path / "scans", "p1", ALONG_LPS)
    assert predicted(given, folder, tmp_path / "out").rows[0].name == "p1"


def test_a_label_that_is_there_changes_nothing(tmp_path: Path) -> None:
    given = an_outsider(tmp_path)
    write_case_folder(tmp_path / "with", "p1")
    shutil.copytree(tmp_path / "with", tmp_path / "without")
    (tmp_path / "without" / "p1" / "p1_seg.nii.gz").unlink()
    (tmp_path / "with" / "p1" / "p1_seg.nii.gz").write_bytes(b"no image at all")
    maps = []
    for name in ("with", "without"):
        predicted(given, tmp_path / name, tmp_path / f"out-{name}")
        maps.append((tmp_path / f"out-{name}" / "p1.nii.gz").read_bytes())
    assert maps[0] == maps[1]


def test_no_file_is_written_over_and_a_stopped_command_goes_on(tmp_path: Path) -> None:
    given = an_outsider(tmp_path)
    for number in (1, 2):
        write_scans(tmp_path / "scans", f"p{number}", ALONG_LPS, seed=number)

    class StoppedError(Exception):
        pass

    def stop(what: str, done: int, total: int, note: str = "") -> None:
        raise StoppedError

    wish = Wish(
        weights=given.weights,
        scans=tmp_path / "scans",
        out=tmp_path / "out",
        protocol=LabelProtocol.WHOLE_TUMOUR,
    )
    with pytest.raises(StoppedError):
        predict(wish, None, tell=nobody, device="cpu", progress=stop)
    first = (tmp_path / "out" / "p1.nii.gz").read_bytes()
    assert not (tmp_path / "out" / "p2.nii.gz").exists()
    result = predict(wish, None, tell=nobody, device="cpu")
    assert [row.status for row in result.rows] == [Status.KEPT, Status.PREDICTED]
    assert result.rows[0].remarks == ()
    assert (tmp_path / "out" / "p1.nii.gz").read_bytes() == first


def test_a_corrected_label_map_stays_and_is_read_back_as_a_label(tmp_path: Path) -> None:
    given = an_outsider(tmp_path, a_plan(**ALL), 1.5, 1.8, 2.4)
    write_scans(tmp_path / "scans", "p1", OBLIQUE)
    plan = given.small.known.first_plan
    out, protocol = tmp_path / "out", LabelProtocol.BRATS2023
    predicted(given, tmp_path / "scans", out, protocol=protocol)
    table = out / cases_csv.FILE_NAME
    assert mode_of(table) == 0o600
    with pytest.raises(ScanError, match="refused"):  # nobody has looked
        preprocess_folder(tmp_path / "data", table, plan, PreprocessWish())

    path = out / "p1.nii.gz"
    image = sitk.ReadImage(str(path))
    place = [n // 2 for n in image.GetSize()]
    image[place] = 2
    image.EraseMetaData("ITK_FileNotes")
    sitk.WriteImage(image, str(path))
    (row,) = cases_csv.read(table)
    corrected = type(row)(
        **{name: getattr(row, name) for name in row.__slots__}
        | {"label_origin": LabelOrigin.CORRECTED, "doubts": {}}
    )
    cases_csv.write(table, [corrected])
    made = preprocess_folder(tmp_path / "data", table, plan, PreprocessWish())
    entry = made.rows[0].entry
    assert entry is not None
    assert entry.n_tumour_voxels > 0

    again = predicted(given, tmp_path / "scans", out, protocol=protocol)
    assert again.rows[0].status is Status.KEPT
    assert "left as it is" in again.rows[0].remarks[0]
    assert sitk.ReadImage(str(path))[place] == 2
    assert cases_csv.read(table)[0].label_origin is LabelOrigin.CORRECTED


def test_in_a_workspace_its_federation_vouches(tmp_path: Path) -> None:
    given = an_outsider(tmp_path)
    site = given.small.sites["hospital-a"]
    carry(given.small.coordinator, site, given.small.medium("start"))
    write_scans(tmp_path / "scans", "p1", ALONG_LPS)
    told: list[Trusted] = []
    (given.folder / "start.json").unlink()
    wish = Wish(
        weights=given.weights,
        scans=tmp_path / "scans",
        out=tmp_path / "out",
        protocol=LabelProtocol.WHOLE_TUMOUR,
    )
    predict(wish, site, tell=told.append, device="cpu")
    assert told[0].start_path is None
    update = sign(train(site), site)
    with pytest.raises(WrongRoundError, match="not global"):
        predict(Wish(**{**fields_of(wish), "weights": update}), site, tell=nobody, device="cpu")


def fields_of(wish: Wish) -> dict[str, object]:
    return {name: getattr(wish, name) for name in wish.__slots__}


def unsigned(given: Outsider) -> None:
    signature_path(given.weights).unlink()


def unsigned_start(given: Outsider) -> None:
    signature_path(given.start).unlink()


def tampered_start(given: Outsider) -> None:
    given.start.write_bytes(given.start.read_bytes().replace(b"uni-lead", b"uni-leaf"))


def signed_by_a_site(given: Outsider) -> None:
    sign(given.weights, given.small.sites["hospital-a"])


def start_signed_by_a_site(given: Outsider) -> None:
    sign(given.start, given.small.sites["hospital-a"])


def changed_weights(given: Outsider) -> None:
    data = bytearray(given.weights.read_bytes())
    data[-1] ^= 1
    given.weights.write_bytes(data)


def no_start(given: Outsider) -> None:
    given.start.unlink()


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (unsigned, UnsignedError),
        (unsigned_start, UnsignedError),
        (tampered_start, SignatureError),
        (changed_weights, SignatureError),
        (signed_by_a_site, StrangerError),
        (start_signed_by_a_site, StrangerError),
        (no_start, UsageError),
    ],
)
def test_weights_that_nothing_vouches_for_write_nothing(
    tmp_path: Path, harm: object, expected: type[BrainfedError]
) -> None:
    given = an_outsider(tmp_path)
    write_scans(tmp_path / "scans", "p1", ALONG_LPS)
    harm(given)  # type: ignore[operator]
    with pytest.raises(expected):
        predicted(given, tmp_path / "scans", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_of_another_federation_or_network_are_refused(tmp_path: Path) -> None:
    given, other = an_outsider(tmp_path / "one"), an_outsider(tmp_path / "two")
    write_scans(tmp_path / "scans", "p1", ALONG_LPS)
    with pytest.raises(FileRefusedError):
        predicted(given, tmp_path / "scans", tmp_path / "out", start=other.start)
    assert not (tmp_path / "out").exists()
    # The same coordinator's key in another federation.
    sign(other.weights, given.small.coordinator)
    with pytest.raises(WrongFederationError):
        predicted(other, tmp_path / "scans", tmp_path / "out", start=given.start)
    wide = an_outsider(tmp_path / "three", a_plan(network={"channels": (8, 8)}))
    sign(wide.weights, given.small.coordinator)
    with pytest.raises(FileRefusedError, match=r"[Tt]ensor"):
        predicted(wide, tmp_path / "scans", tmp_path / "out", start=given.start)


def test_an_output_among_the_scans_is_refused(tmp_path: Path) -> None:
    given = an_outsider(tmp_path)
    write_scans(tmp_path / "scans", "p1", ALONG_LPS)
    for out in (tmp_path / "scans", tmp_path / "scans" / "out"):
        with pytest.raises(UsageError, match="within"):
            predicted(given, tmp_path / "scans", out)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError):
        predicted(given, tmp_path / "scans", tmp_path / "file")


def test_an_output_that_cannot_be_made_is_an_error_of_the_disk(tmp_path: Path) -> None:
    given = an_outsider(tmp_path)
    write_scans(tmp_path / "scans", "p1", ALONG_LPS)
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError):
        predicted(given, tmp_path / "scans", tmp_path / "file" / "out")


def test_a_full_disk_leaves_no_half_label_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = an_outsider(tmp_path)
    write_scans(tmp_path / "scans", "p1", ALONG_LPS)
    whole = sitk.WriteImage

    def cut_off(image: sitk.Image, name: str, *more: object) -> None:
        whole(image, name, *more)
        path = Path(name)
        path.write_bytes(path.read_bytes()[:-40])

    monkeypatch.setattr(sitk, "WriteImage", cut_off)
    with pytest.raises(ResourceError):
        predicted(given, tmp_path / "scans", tmp_path / "out")
    assert not (tmp_path / "out" / "p1.nii.gz").exists()
    assert leftovers(tmp_path / "out") == []


def test_a_registered_case_is_outlined_where_its_reference_has_the_tumour(tmp_path: Path) -> None:
    plan = a_plan(
        scans={"required": ("t1ce", "flair")},
        preparation={"space": "reference", "n4": False},
        grid={"in_plane_mm": 1.0, "size": (256, 256)},
    )
    given = an_outsider(tmp_path, plan, 2.5)
    native = simulator.two_scans(2.0)
    simulator.write(native, tmp_path / "scans", "head")
    result = predicted(given, tmp_path / "scans", tmp_path / "out")
    assert result.rows[0].reference is Modality.T1CE
    found = sitk.ReadImage(str(tmp_path / "out" / "head.nii.gz"))
    reference = sitk.ReadImage(str(tmp_path / "scans" / "head" / "head_t1ce.nii.gz"))
    assert geometry_of(found).difference(geometry_of(reference)) is None
    flair = sitk.ReadImage(str(tmp_path / "scans" / "head" / "head_flair.nii.gz"))
    outlined = points_of(found)
    bright = np.quantile(sitk.GetArrayFromImage(flair), 0.95)
    there = values_at(flair, simulator.mapped(native.truth[Modality.FLAIR], outlined))
    assert (there > bright).mean() > 0.9
    assert (values_at(flair, outlined) > bright).mean() < 0.7  # the head moved in between


def points_of(label: sitk.Image) -> np.ndarray:
    """Where the voxels of a label map are, in mm."""
    index = np.argwhere(sitk.GetArrayFromImage(label) > 0)[:, ::-1].tolist()
    return np.array([label.TransformIndexToPhysicalPoint(place) for place in index])


def values_at(image: sitk.Image, points: np.ndarray) -> np.ndarray:
    """The values of the nearest voxels; 0 outside."""
    values = []
    for point in points.tolist():
        place = image.TransformPhysicalPointToIndex(point)
        inside = all(0 <= at < n for at, n in zip(place, image.GetSize(), strict=True))
        values.append(image[place] if inside else 0.0)
    return np.array(values)


def test_of_dicom_no_patient_id_is_in_a_file_name(tmp_path: Path) -> None:
    pytest.importorskip("dcm2niix", reason="needs dcm2niix")
    series = pytest.importorskip("tests.dicom_series", reason="needs pydicom")
    given = an_outsider(tmp_path, a_plan(), 1.0)
    series.write_series(
        tmp_path / "scans" / "visit-7",
        bad_scans.voxels(1),
        series.a_turned_geometry(bad_scans.SHAPE, (10.0, 3.2, 3.2)),
        patient="Secret-4711",
        description="t2 flair tra",
        tags={"EchoTime": "120", "RepetitionTime": "9000", "InversionTime": "2500"},
    )
    (row,) = predicted(given, tmp_path / "scans", tmp_path / "out").rows
    assert row.name == "visit-7"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cases.csv",
        "visit-7.nii.gz",
        "visit-7.png",
    ]
    assert b"Secret" not in gzip.decompress((tmp_path / "out" / "visit-7.nii.gz").read_bytes())


def test_names_that_would_be_one_file_get_a_sign_of_their_own(tmp_path: Path) -> None:
    given = an_outsider(tmp_path)
    for number, name in enumerate(("a b", "a_b")):
        write_scans(tmp_path / "scans", name, ALONG_LPS, seed=number)
    rows = predicted(given, tmp_path / "scans", tmp_path / "out").rows
    assert len({row.name for row in rows}) == 2
    assert all((tmp_path / "out" / f"{row.name}.nii.gz").exists() for row in rows)
