from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from brainfed.core.brain_surface import _mesh, classical
from brainfed.core.brainmask import doubts
from brainfed.errors import ScanError
from brainfed.plan import Modality
from tests.core.heads import dice, phantom_head

COLIN = Path(__file__).resolve().parents[3] / "shared" / "data" / "colin27"


def test_the_sphere_is_closed_round_and_faces_outwards() -> None:
    mesh = _mesh(3)
    assert mesh.sphere.shape == (642, 3)
    a, b, c = np.moveaxis(mesh.sphere[mesh.faces], 1, 0)
    volumes = np.einsum("fx,fx->f", a, np.cross(b, c)) / 6
    assert volumes.min() > 0
    assert volumes.sum() == pytest.approx(4 / 3 * np.pi, rel=0.02)


def test_each_corner_knows_its_five_or_six_neighbours_evenly() -> None:
    mesh = _mesh(3)
    np.testing.assert_allclose(mesh.weights.sum(axis=1), 1)
    assert np.count_nonzero((mesh.weights > 0).sum(axis=1) == 5) == 12
    apart = np.linalg.norm(mesh.sphere[mesh.neighbours] - mesh.sphere[:, None], axis=2)
    assert apart.max() < 0.17


def test_a_phantoms_brain_is_found() -> None:
    head, truth = phantom_head(1, Modality.FLAIR)
    mask = classical(head)
    assert mask.GetPixelID() == sitk.sitkUInt8
    assert dice(mask, truth) >= 0.93
    assert doubts(mask) == ()


def test_the_mask_lies_on_the_scans_own_grid_and_is_the_same_each_time() -> None:
    head, truth = phantom_head(2, Modality.T1)
    turned = sitk.DICOMOrient(head, "PIR")
    mask = classical(turned)
    assert dice(mask, sitk.DICOMOrient(truth, "PIR")) >= 0.90  # refuses another grid
    again = classical(turned)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(again))


@pytest.mark.slow
def test_another_scale_and_offset_of_brightness_changes_next_to_nothing() -> None:
    head, _ = phantom_head(2, Modality.T2)
    other = sitk.Cast(head, sitk.sitkFloat32) * 0.01 - 300
    assert dice(classical(head), classical(other)) > 0.99


def test_a_scan_of_nothing_is_refused() -> None:
    empty = sitk.Image([40, 40, 20], sitk.sitkFloat32)
    with pytest.raises(ScanError, match="No head"):
        classical(empty)


@pytest.mark.slow
@pytest.mark.parametrize("modality", list(Modality))
@pytest.mark.parametrize("seed", range(4))
def test_many_phantoms_in_all_modalities(modality: Modality, seed: int) -> None:
    head, truth = phantom_head(seed, modality)
    assert dice(classical(head), truth) >= 0.90


@pytest.mark.real
def test_of_a_real_head_the_mask_agrees_with_bet() -> None:
    if not COLIN.is_dir():
        pytest.skip("../shared/data/colin27 is not here")
    mask = classical(sitk.ReadImage(str(COLIN / "ch2.nii.gz")))
    assert dice(mask, sitk.ReadImage(str(COLIN / "ch2bet.nii.gz"))) >= 0.93
    assert doubts(mask) == ()
