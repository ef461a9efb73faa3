import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st

from brainfed.core.flaws import Flaw, FlawedScanError
from brainfed.errors import ScanError
from brainfed.formats import nifti
from brainfed.formats.found_case import ScanFile
from brainfed.formats.nifti_header import Header, parse_header
from brainfed.formats.nifti_space import ORTHONORMAL_TOLERANCE, geometry_in
from brainfed.formats.scan import read_image
from brainfed.plan import Modality
from tests import bad_scans


def header_of(content: bytes) -> Header:
    return parse_header(content[:348])


def turn(x: float, y: float, z: float) -> np.ndarray:
    """A rotation about the three axes, in degrees."""
    a, b, c = np.deg2rad([x, y, z])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


# --- length and packing -------------------------------------------------------------------------


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_digest_of_the_voxels_is_the_same_packed_or_not_and_in_either_byte_order(
    tmp_path: Path, order: str, pack: object
) -> None:
    content = bad_scans.nifti(bad_scans.voxels(), order=order)
    path = tmp_path / ("x.nii" if pack is bytes else "x.nii.gz")
    path.write_bytes(pack(content))  # type: ignore[operator]
    assert nifti.check(path) == nifti.check(bad_scans.good(tmp_path / "good"))


@settings(max_examples=30)
@given(share=st.floats(0, 0.999))
def test_a_packed_file_cut_anywhere_is_refused(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    path = bad_scans.good(tmp_path_factory.mktemp("cut") / "x")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ScanError):
        nifti.check(path)


def test_a_bomb_is_unpacked_no_further_than_its_header_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bad_scans.IMAGES["a bomb"].write(tmp_path / "bomb")
    n_read = 0
    real = gzip.GzipFile.read

    def counted(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        nonlocal n_read
        data = real(self, size)
        n_read += len(data)
        return data

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    with pytest.raises(ScanError, match="longer"):
        nifti.check(path)
    assert n_read == 352 + 2 * bad_scans.voxels().size + 1


def test_a_packed_file_of_several_members_is_one_file(tmp_path: Path) -> None:
    content = bad_scans.nifti(bad_scans.voxels())
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
    assert nifti.check(path) == nifti.check(bad_scans.good(tmp_path / "good"))


def test_a_file_is_digested_whatever_it_holds_but_never_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    assert nifti.digest_of_file(tmp_path / "a").startswith("ca978112")
    with pytest.raises(FlawedScanError) as caught:
        nifti.digest_of_file(bad_scans.IMAGES["a pipe"].write(tmp_path / "b"))
    assert caught.value.flaw is Flaw.NOT_A_FILE


# --- dimensions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dimensions", "words"),
    [
        ((5, 40, 40, 3, 1, 2, 1, 1), "5-D: 40 x 40 x 3 x 1 x 2"),
        ((2, 40, 240, 1, 1, 1, 1, 1), "2-D"),
        ((0, 40, 40, 6, 1, 1, 1, 1), "0"),
        ((9, 40, 40, 6, 1, 1, 1, 1), "9"),
        ((3, -40, -40, 6, 1, 1, 1, 1), "-40"),
        ((3, 9600, 1, 1, 1, 1, 1, 1), "9600 x 1 x 1"),
        ((3, 2000, 2000, 2000, 1, 1, 1, 1), "too large"),
        ((4, 40, 40, 6, -1, 1, 1, 1), "40 x 40 x 6 x -1"),
    ],
)
def test_sizes_that_no_scan_has_are_refused(dimensions: tuple[int, ...], words: str) -> None:
    content = bad_scans.nifti(bad_scans.voxels(), changes={(40, "8h"): dimensions})
    with pytest.raises(ScanError) as caught:
        header_of(content)
    assert words in str(caught.value)


# --- place --------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4])
def test_rounding_of_the_directions_is_tolerated_and_mended(noise: float) -> None:
    axes = turn(10, -20, 30)
    rough = axes + noise * np.random.default_rng(1).uniform(-1, 1, (3, 3))
    sform = np.column_stack([rough * bad_scans.SPACING_MM, [-100, -100, -60]])
    content = bad_scans.nifti(bad_scans.voxels(), sform=sform, qform=False)
    geometry, findings = geometry_in(header_of(content))
    found = np.array(geometry.direction).reshape(3, 3)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(found, np.diag([-1, -1, 1]) @ axes, atol=2 * noise + 1e-6)
    assert findings == []


def test_more_is_tolerated_than_itk_does_itself(tmp_path: Path) -> None:
    sform = bad_scans.sheared(0.8 * ORTHONORMAL_TOLERANCE)
    path = tmp_path / "x.nii"
    path.write_bytes(bad_scans.nifti(bad_scans.voxels(), sform=sform, qform=False))
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(path))
    assert read_image(ScanFile(path), Modality.T1).findings == ()


@settings(max_examples=60, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    mirror=st.booleans(),
    forms=st.sampled_from([(True, False), (False, True), (True, True)]),
)
def test_every_rotation_and_mirror_image_is_read_as_simpleitk_reads_it(
    tmp_path_factory: pytest.TempPathFactory,
    angles: tuple[float, float, float],
    mirror: bool,
    forms: tuple[bool, bool],
) -> None:
    path = tmp_path_factory.mktemp("turned") / "x.nii"
    image = sitk.GetImageFromArray(bad_scans.voxels())
    axes = turn(*angles) @ np.diag([1, 1, -1 if mirror else 1])
    image.SetDirection([float(cosine) for cosine in axes.ravel()])
    image.SetSpacing((0.9, 0.9, 5))
    image.SetOrigin((-31.0, 17.5, 4.25))
    sitk.WriteImage(image, str(path))
    content = bytearray(path.read_bytes())
    struct.pack_into("<2h", content, 252, *(int(form) for form in forms))
    geometry, findings = geometry_in(header_of(bytes(content)))
    # A quaternion in single precision is exact to a few 1e-4 near half a turn.
    np.testing.assert_allclose(geometry.direction, axes.ravel(), atol=1e-6 if forms[1] else 1e-3)
    np.testing.assert_allclose(geometry.spacing_mm, (0.9, 0.9, 5), rtol=1e-6)
    np.testing.assert_allclose(geometry.origin_mm, (-31.0, 17.5, 4.25), rtol=1e-6)
    assert findings == []


# --- any bytes ----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(header=st.binary(min_size=0, max_size=360))
def test_any_bytes_give_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, header: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.nii"
    path.write_bytes(b"\x5c\x01\x00\x00" + header[4:340] + b"n+1\0" + header)
    with pytest.raises(ScanError):
        read_image(ScanFile(path), Modality.T1)


NUMBERS = st.one_of(st.sampled_from([0, 1, 2, 3, 4, 255, 0x7F, 0x80]), st.integers(0, 255))
WORDS = st.sampled_from(
    [struct.pack("<f", value) for value in (0, -1, 1e38, -1e38, 1e-40, np.nan, np.inf, 1e10)]
    + [struct.pack("<2h", *pair) for pair in ((32767, 32767), (-1, 1), (0, 0), (4, 64))]
)


@settings(max_examples=200, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 87), st.one_of(WORDS, st.tuples(*[NUMBERS] * 4).map(bytes))),
        min_size=1,
        max_size=4,
    ),
    packed=st.booleans(),
)
def test_a_mutated_header_gives_a_scan_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[int, bytes]],
    packed: bool,
) -> None:
    content = bytearray(bad_scans.nifti(bad_scans.voxels()))
    for place, value in changes:
        content[4 * place : 4 * place + 4] = value
    path = tmp_path_factory.mktemp("mutated") / ("x.nii.gz" if packed else "x.nii")
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    try:
        read = read_image(ScanFile(path), Modality.T1)
    except FlawedScanError as error:
        assert error.where == str(path)
        return
    axes = np.array(read.geometry.direction).reshape(3, 3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    assert np.isfinite(sitk.GetArrayViewFromImage(read.image)).all()
    assert read.image.GetNumberOfPixels() == bad_scans.voxels().size
