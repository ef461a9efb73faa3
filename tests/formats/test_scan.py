import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from brainfed.core.flaws import Flaw, FlawedScanError, Severity
from brainfed.core.labels import LabelProtocol
from brainfed.core.volume import Geometry
from brainfed.errors import ConflictError
from brainfed.formats import nifti, scan
from brainfed.formats.found_case import ScanFile
from brainfed.formats.scan import Scan, read_image, read_label, read_mask, write_scan
from brainfed.plan import Modality
from tests import bad_scans
from tests.builders import SHARED_DATA, a_geometry, a_head, write_nifti


def image_at(path: Path, volume: int | None = None) -> Scan:
    return read_image(ScanFile(path, volume), Modality.FLAIR)


def label_at(path: Path, protocol: LabelProtocol = LabelProtocol.BRATS2017) -> Scan:
    return read_label(ScanFile(path), protocol)


def mask_at(path: Path) -> Scan:
    return read_mask(ScanFile(path))


def flaws(read: Scan) -> list[Flaw]:
    return [finding.flaw for finding in read.findings]


def of_bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# --- what is refused ----------------------------------------------------------------------------


def refusal(path: Path, kind: str) -> FlawedScanError:
    read = {"image": image_at, "label": label_at, "mask": mask_at}[kind]
    with pytest.raises(FlawedScanError) as caught:
        read(path)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("image", name) for name in bad_scans.IMAGES),
        *(("label", name) for name in bad_scans.LABELS),
        *(("mask", name) for name in bad_scans.MASKS),
    ],
)
def test_a_bad_scan_is_refused_by_the_name_of_its_flaw(
    tmp_path: Path, kind: str, name: str
) -> None:
    table = {"image": bad_scans.IMAGES, "label": bad_scans.LABELS, "mask": bad_scans.MASKS}[kind]
    bad = table[name]
    path = bad.write(tmp_path / "scan")
    error = refusal(path, kind)
    assert error.flaw is bad.flaw
    assert bad.flaw.severity is Severity.ERROR
    assert error.where == str(path)
    assert error.hint
    assert str(tmp_path) not in str(error).replace(error.where, "")


def test_what_a_bad_scan_spoils_is_good(tmp_path: Path) -> None:
    assert image_at(bad_scans.good(tmp_path / "a")).findings == ()
    assert image_at(bad_scans.good(tmp_path / "b", ending=".nii")).findings == ()
    assert label_at(bad_scans.good_label(tmp_path / "c")).findings == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_nobody_may_read_is_refused(tmp_path: Path) -> None:
    path = bad_scans.CLOSED.write(tmp_path / "scan")
    assert refusal(path, "image").flaw is Flaw.UNREADABLE


def test_a_missing_file_is_an_error_of_ours(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.nii", "image").flaw is Flaw.UNREADABLE


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/\xff.nii"))
    odd.write_bytes(bad_scans.nifti(bad_scans.voxels()))
    error = refusal(odd, "image")
    assert error.flaw is Flaw.BAD_NAME
    str(error).encode()  # can be printed
    assert refusal(Path("a\0b.nii"), "image").flaw is Flaw.BAD_NAME
    with pytest.raises(FlawedScanError, match="not valid text"):
        nifti.digest_of_file(odd)


def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bad_scans.good(tmp_path / "scan", ending=".nii")
    real = np.empty

    def touched(*arguments: object, **more: object) -> object:
        os.utime(path, ns=(1, 1))
        return real(*arguments, **more)  # type: ignore[call-overload]

    monkeypatch.setattr("brainfed.formats.nifti.np.empty", touched)
    assert refusal(path, "image").flaw is Flaw.CHANGED


def test_a_pipe_with_a_writer_is_not_waited_for(tmp_path: Path) -> None:
    path = bad_scans.IMAGES["a pipe"].write(tmp_path / "scan")
    found: list[FlawedScanError] = []
    reader = threading.Thread(target=lambda: found.append(refusal(path, "image")), daemon=True)
    reader.start()
    reader.join(10)
    assert [error.flaw for error in found] == [Flaw.NOT_A_FILE]


def test_nothing_refused_costs_memory() -> None:
    code = """
import resource, sys, tempfile
from pathlib import Path
from tests import bad_scans
from brainfed.errors import ScanError
from brainfed.formats.found_case import ScanFile
from brainfed.formats.scan import read_image
from brainfed.plan import Modality
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with tempfile.TemporaryDirectory() as folder:
    for name in ("a bomb", "10^12 voxels", "thousands of empty members", "10^4 volumes"):
        try:
            read_image(ScanFile(bad_scans.IMAGES[name].write(Path(folder, "x"))), Modality.T1)
        except ScanError:
            continue
        sys.exit(name)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 20 * 1024  # KiB


# --- what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", scan.ENDINGS)
def test_what_was_written_is_read(tmp_path: Path, ending: str) -> None:
    images, _ = a_head()
    path = tmp_path / f"head{ending}"
    write_scan(path, images["flair"], a_geometry())
    read = image_at(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read.image), images["flair"])
    assert read.image.GetPixelID() == sitk.sitkFloat32
    assert read.geometry == a_geometry()


@pytest.mark.parametrize("code", ["u1", "i2", "i4", "f4", "f8", "i1", "u2"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("scaling", [(1, 0), (0, 0), (0, 7), (np.nan, 3), (0.37, 11.5)])
def test_voxels_and_geometry_are_those_that_simpleitk_reads(
    tmp_path: Path, code: str, order: str, scaling: tuple[float, float]
) -> None:
    array = (bad_scans.voxels() // 8).astype(code)
    content = bad_scans.nifti(array, order=order, changes={(112, "2f"): scaling})
    read = image_at(of_bytes(tmp_path / "x.nii", content))
    slope, inter = scaling if scaling[0] in (1, 0.37) else (1, 0)
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(read.image),
        (np.float64(np.float32(slope)) * array + inter).astype(np.float32),
        rtol=1e-7,
    )
    theirs = sitk.ReadImage(str(tmp_path / "x.nii"))
    if scaling in ((1, 0), (0.37, 11.5)):  # in the odd ones it is not the standard's reader
        np.testing.assert_allclose(
            sitk.GetArrayFromImage(read.image), sitk.GetArrayFromImage(theirs), rtol=1e-6
        )
    np.testing.assert_allclose(read.image.GetOrigin(), theirs.GetOrigin())
    np.testing.assert_allclose(read.image.GetDirection(), theirs.GetDirection())
    np.testing.assert_allclose(read.image.GetSpacing(), theirs.GetSpacing())


def test_a_volume_of_four_dimensions_is_read_by_its_number(tmp_path: Path) -> None:
    both = np.stack([bad_scans.voxels(0), bad_scans.voxels(1)])
    path = of_bytes(tmp_path / "both.nii", bad_scans.nifti(both))
    for number in (0, 1):
        alone = image_at(bad_scans.good(tmp_path / f"{number}", seed=number))
        read = image_at(path, number)
        assert read.voxel_digest == alone.voxel_digest
        assert read.geometry == alone.geometry
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read.image), both[number])
    for number in (2, -1):
        with pytest.raises(FlawedScanError, match="no such volume"):
            image_at(path, number)


def test_an_error_about_the_voxels_of_one_volume_names_it(tmp_path: Path) -> None:
    both = np.stack([bad_scans.voxels(), np.zeros(bad_scans.SHAPE, np.int16)])
    path = of_bytes(tmp_path / "both.nii", bad_scans.nifti(both))
    with pytest.raises(FlawedScanError, match="all zero") as caught:
        image_at(path, 1)
    assert caught.value.where == f"{path}#1"


def test_a_four_dimensional_file_is_checked_to_its_end(tmp_path: Path) -> None:
    both = np.stack([bad_scans.voxels(0), bad_scans.voxels(1)])
    path = of_bytes(tmp_path / "both.nii", bad_scans.nifti(both)[:-1])
    with pytest.raises(FlawedScanError, match="truncated"):
        image_at(path, 0)


def test_a_fourth_dimension_of_one_is_no_dimension(tmp_path: Path) -> None:
    path = of_bytes(tmp_path / "x.nii", bad_scans.nifti(bad_scans.voxels()[None]))
    assert image_at(path).geometry.size == (64, 64, 12)
    assert image_at(path, 0).voxel_digest == image_at(path).voxel_digest


@pytest.mark.parametrize(
    "name", ["a b.nii.gz", "größe.nii", "50%d.nii", "x\ny.nii", "'\";$(x).nii", "X.NII.GZ"]
)
def test_special_characters_in_a_name_are_no_matter(tmp_path: Path, name: str) -> None:
    made = bad_scans.good(tmp_path / "plain", ending=".nii.gz" if "gz" in name.lower() else ".nii")
    assert image_at(made.rename(tmp_path / name)).findings == ()


# --- what is said -------------------------------------------------------------------------------


def test_a_header_of_two_places_is_held_and_its_sform_taken(tmp_path: Path) -> None:
    content = bad_scans.nifti(bad_scans.voxels(), changes={(268, "f"): (-99.8,)})
    read = image_at(of_bytes(tmp_path / "x.nii", content))
    assert flaws(read) == [Flaw.TWO_PLACES]
    assert read.findings[0].severity is Severity.HELD
    assert read.findings[0].modality is Modality.FLAIR
    assert "0.2 mm" in read.findings[0].words
    assert read.geometry.origin_mm == (100, 100, -60)


def test_two_places_less_than_a_tenth_of_a_millimetre_apart_are_one(tmp_path: Path) -> None:
    content = bad_scans.nifti(bad_scans.voxels(), changes={(268, "f"): (-99.95,)})
    assert image_at(of_bytes(tmp_path / "x.nii", content)).findings == ()


def test_voxel_sizes_other_than_those_of_a_lone_sform_are_held(tmp_path: Path) -> None:
    content = bad_scans.nifti(bad_scans.voxels(), changes={(76, "4f"): (1, 1, 1, 1)}, qform=False)
    read = image_at(of_bytes(tmp_path / "x.nii", content))
    assert Flaw.TWO_PLACES in flaws(read)
    np.testing.assert_allclose(read.geometry.spacing_mm, (3.2, 3.2, 10), rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((12, 64, 64), (1, 1, 10), [Flaw.SMALL_FIELD]),
        ((9, 64, 64), (3.2, 3.2, 10), [Flaw.FEW_SLICES]),
        ((12, 64, 64), (8, 8, 10), [Flaw.LARGE_FIELD]),
        ((20, 128, 128), (1.875, 1.875, 5), []),  # lgg-sites
        ((155, 240, 240), (1, 1, 1), []),  # BraTS
    ],
)
def test_fields_of_view_that_no_head_needs_are_said(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], expected: list[Flaw]
) -> None:
    geometry = Geometry(shape[::-1], spacing, (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    assert [finding.flaw for finding in scan.inspect_grid(geometry)] == expected


def test_an_empty_label_is_blank_and_said(tmp_path: Path) -> None:
    write_nifti(tmp_path / "seg.nii", np.zeros((12, 40, 40), np.uint8), a_geometry((12, 40, 40)))
    read = label_at(tmp_path / "seg.nii", LabelProtocol.MSD)
    assert read.is_blank
    assert Flaw.EMPTY_LABEL in flaws(read)


def test_a_label_stored_as_floats_is_read(tmp_path: Path) -> None:
    content = bad_scans.nifti(bad_scans.label().astype("f8"))
    read = label_at(of_bytes(tmp_path / "seg.nii", content))
    assert sitk.GetArrayFromImage(read.image).dtype == np.uint8
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read.image), bad_scans.label())
    assert not read.is_blank
    assert read.findings == ()


def test_a_label_that_is_scaled_to_other_values_is_held(tmp_path: Path) -> None:
    half = (bad_scans.label() // 2).astype(np.uint8)  # 0, 1, 2 mean 0, 2, 4
    content = bad_scans.nifti(half, changes={(112, "2f"): (2, 0)})
    read = label_at(of_bytes(tmp_path / "seg.nii", content))
    assert flaws(read) == [Flaw.LABEL_SCALED]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read.image), 2 * half)


@pytest.mark.parametrize("inside", [1, 255, -3])
def test_a_brain_mask_is_one_inside_whatever_the_file_has(tmp_path: Path, inside: int) -> None:
    mask = bad_scans.voxels() > 200
    content = bad_scans.nifti(np.where(mask, inside, 0).astype(np.int16))
    read = mask_at(of_bytes(tmp_path / "mask.nii", content))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read.image), mask)
    assert read.image.GetPixelID() == sitk.sitkUInt8


# --- writing ------------------------------------------------------------------------------------


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = bad_scans.good(tmp_path / "x")
    with pytest.raises(ConflictError):
        write_scan(path, np.ones((2, 2, 2), np.uint8), a_geometry((2, 2, 2)))


# --- real scans ---------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs ../shared/data")
def test_real_scans_are_read_without_a_false_alarm() -> None:
    paths = sorted((SHARED_DATA / "lgg-sites").glob("*/*/*.nii.gz"))
    assert len(paths) >= 260
    for path in paths:
        if path.name.endswith("_seg.nii.gz"):
            read = label_at(path, LabelProtocol.WHOLE_TUMOUR)
        else:
            read = image_at(path)
        assert read.findings == (), path


@pytest.mark.real
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs ../shared/data")
def test_real_normalised_scans_are_recognised() -> None:
    folders = sorted((SHARED_DATA / "deepmedic-brats2013").glob("*/*/"))
    assert len(folders) == 6
    for folder in folders:
        for path in sorted(folder.glob("*DivStd.nii.gz")):
            read = image_at(path)
            assert flaws(read) == [Flaw.NORMALISED]
            assert read.findings[0].severity is Severity.WARNING
            theirs = sitk.ReadImage(str(path))
            np.testing.assert_array_equal(
                sitk.GetArrayFromImage(read.image), sitk.GetArrayFromImage(theirs)
            )
            np.testing.assert_allclose(read.geometry.direction, theirs.GetDirection(), atol=1e-6)
        assert label_at(folder / "OTMultiClass.nii.gz", LabelProtocol.BRATS2012).findings == ()
        assert mask_at(folder / "brainmask.nii.gz").findings == ()
