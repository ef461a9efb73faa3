import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st

from brainfed.core.labels import LabelProtocol
from brainfed.errors import ConflictError, ScanError
from brainfed.formats import scan
from brainfed.formats.nifti import check
from brainfed.formats.scan import read_image, read_label, write_scan
from tests.builders import SHARED_DATA, a_geometry, a_head, write_nifti


def a_scan(folder: Path, ending: str = ".nii") -> Path:
    path = folder / f"head{ending}"
    images, _ = a_head()
    write_scan(path, images["flair"], a_geometry())
    return path


def with_header(path: Path, offset: int, code: str, *values: float) -> Path:
    data = bytearray(path.read_bytes())
    struct.pack_into(f"<{code}", data, offset, *values)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("ending", scan.ENDINGS)
def test_what_was_written_is_read(tmp_path: Path, ending: str) -> None:
    images, _ = a_head()
    read = read_image(a_scan(tmp_path, ending))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read.image), images["flair"])
    assert read.geometry.difference(a_geometry()) is None


def test_the_digest_of_the_voxels_is_the_same_packed_or_not(tmp_path: Path) -> None:
    assert check(a_scan(tmp_path, ".nii")) == check(a_scan(tmp_path, ".nii.gz"))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = a_scan(tmp_path)
    with pytest.raises(ConflictError):
        write_scan(path, np.ones((2, 2, 2), np.uint8), a_geometry((2, 2, 2)))


@pytest.mark.parametrize("n_missing", [1, 1000, 38_300])
def test_a_truncated_file_is_refused(tmp_path: Path, n_missing: int) -> None:
    path = a_scan(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:-n_missing])
    with pytest.raises(ScanError, match=r"truncated|NIfTI-1"):
        read_image(path)


@settings(max_examples=30)
@given(share=st.floats(0, 0.999))
def test_a_packed_file_cut_anywhere_is_refused(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    path = a_scan(folder, ".nii.gz")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ScanError):
        check(path)


def test_a_file_with_bytes_behind_its_voxels_is_refused(tmp_path: Path) -> None:
    path = a_scan(tmp_path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ScanError, match="longer"):
        read_image(path)


def test_a_bomb_is_unpacked_no_further_than_its_header_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = a_scan(tmp_path).read_bytes()[:352]
    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(header)
    bomb += b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(bomb)
    n_read = 0
    real = gzip.GzipFile.read

    def counted(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        nonlocal n_read
        data = real(self, size)
        n_read += len(data)
        return data

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    with pytest.raises(ScanError, match="longer"):
        read_image(path)
    assert n_read == 352 + 6 * 40 * 40 * 4 + 1


def test_a_header_that_claims_too_many_voxels_is_refused(tmp_path: Path) -> None:
    path = with_header(a_scan(tmp_path), 40, "8h", 3, 2000, 2000, 2000, 1, 1, 1, 1)
    with pytest.raises(ScanError, match="too large"):
        read_image(path)


@pytest.mark.parametrize(
    ("dimensions", "words"),
    [
        ((4, 40, 40, 3, 2, 1, 1, 1), "4-D: 40 x 40 x 3 x 2"),
        ((5, 40, 40, 3, 1, 2, 1, 1), "5-D"),
        ((2, 40, 240, 1, 1, 1, 1, 1), "2-D"),
        ((0, 40, 40, 6, 1, 1, 1, 1), "0"),
        ((9, 40, 40, 6, 1, 1, 1, 1), "9"),
        ((3, -40, -40, 6, 1, 1, 1, 1), "-40"),
        ((3, 9600, 1, 1, 1, 1, 1, 1), "9600 x 1 x 1"),
    ],
)
def test_what_is_not_three_dimensional_is_refused(
    tmp_path: Path, dimensions: tuple[int, ...], words: str
) -> None:
    path = with_header(a_scan(tmp_path), 40, "8h", *dimensions)
    with pytest.raises(ScanError) as caught:
        read_image(path)
    assert words in str(caught.value)


def test_a_fourth_dimension_of_one_is_no_dimension(tmp_path: Path) -> None:
    path = with_header(a_scan(tmp_path), 40, "8h", 4, 40, 40, 6, 1, 1, 1, 1)
    assert read_image(path).geometry.size == (40, 40, 6)


@pytest.mark.parametrize(
    ("offset", "code", "value"),
    [(70, "h", 128), (70, "h", 32), (72, "h", 7), (108, "f", 12), (108, "f", np.nan), (0, "i", 9)],
)
def test_a_header_that_makes_no_sense_is_refused(
    tmp_path: Path, offset: int, code: str, value: float
) -> None:
    with pytest.raises(ScanError):
        read_image(with_header(a_scan(tmp_path), offset, code, value))


@settings(max_examples=60, deadline=None)
@given(header=st.binary(min_size=0, max_size=360))
def test_any_bytes_give_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, header: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.nii"
    path.write_bytes(b"\x5c\x01\x00\x00" + header[4:340] + b"n+1\0" + header)
    with pytest.raises(ScanError):
        read_image(path)


def test_an_orientation_that_is_no_rotation_is_refused(tmp_path: Path) -> None:
    path = with_header(a_scan(tmp_path), 280, "12f", *[1.0, 1, 1, 0] * 3)  # the sform
    with_header(path, 252, "2h", 0, 1)
    with pytest.raises(ScanError) as caught:
        read_image(path)
    assert "orthonormal" in str(caught.value) or "SimpleITK" in caught.value.message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    images, _ = a_head()
    images["flair"][3, 3, 3] = value
    path = tmp_path / "x.nii"
    write_nifti(path, images["flair"])
    with pytest.raises(ScanError, match="not finite"):
        read_image(path)
    # The reason for a check of our own.
    assert np.isfinite(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))).all()


def test_an_image_too_large_for_float32_is_refused(tmp_path: Path) -> None:
    values = np.ones((4, 8, 8))
    values[1, 1, 1] = 1e300
    write_nifti(tmp_path / "x.nii", values)
    with pytest.raises(ScanError, match="not finite"):
        read_image(tmp_path / "x.nii")


def test_an_empty_image_is_refused(tmp_path: Path) -> None:
    write_nifti(tmp_path / "zero.nii", np.zeros((4, 8, 8), np.int16))
    write_nifti(tmp_path / "seven.nii", np.full((4, 8, 8), 7, np.int16))
    with pytest.raises(ScanError, match="all zero"):
        read_image(tmp_path / "zero.nii")
    with pytest.raises(ScanError, match="single value"):
        read_image(tmp_path / "seven.nii")


@pytest.mark.parametrize("value", [3, 0.5, -1, 257])
def test_a_label_outside_the_protocol_is_refused(tmp_path: Path, value: float) -> None:
    label = np.zeros((4, 8, 8), np.float32)
    label[1, 1, 1] = value
    write_nifti(tmp_path / "seg.nii", label)
    with pytest.raises(ScanError) as caught:
        read_label(tmp_path / "seg.nii", LabelProtocol.BRATS2017)
    assert caught.value.expected == "0, 1, 2, 4"
    assert caught.value.found == f"{value:g}"


def test_a_label_stored_as_floats_is_read(tmp_path: Path) -> None:
    label = np.zeros((4, 8, 8), np.float64)
    label[1, 1, 1] = 4
    write_nifti(tmp_path / "seg.nii", label)
    read = read_label(tmp_path / "seg.nii", LabelProtocol.BRATS2017)
    assert sitk.GetArrayFromImage(read.image).dtype == np.uint8
    assert not read.is_blank


def test_a_label_without_tumour_is_blank(tmp_path: Path) -> None:
    write_nifti(tmp_path / "seg.nii", np.zeros((4, 8, 8), np.uint8))
    assert read_label(tmp_path / "seg.nii", LabelProtocol.MSD).is_blank


@pytest.mark.parametrize(
    "name", ["a b.nii.gz", "größe.nii", "50%d.nii", "x\ny.nii", "'\";$(x).nii"]
)
def test_special_characters_in_a_name_are_no_matter(tmp_path: Path, name: str) -> None:
    images, _ = a_head()
    write_nifti(tmp_path / "plain.nii", images["flair"])
    plain = (tmp_path / "plain.nii").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(plain) if name.endswith("gz") else plain)
    assert read_image(tmp_path / name).geometry.size == (40, 40, 6)


def test_a_missing_file_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="can't be read"):
        read_image(tmp_path / "none.nii")


@pytest.mark.real
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs ../shared/data")
def test_real_scans_pass_the_check() -> None:
    paths = sorted((SHARED_DATA / "lgg-sites" / "CS").glob("*/*.nii.gz"))
    assert len(paths) >= 30
    for path in paths[:12]:
        assert len(check(path)) == 64
