from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from brainfed.core.brainmask import PLAUSIBLE_ML, depths, doubts, foreground, is_stripped
from brainfed.plan import Modality
from tests.core.heads import phantom_head

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def a_ball(radius: float = 0.7, n: int = 32) -> np.ndarray:
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n)] * 3, indexing="ij")
    return z**2 + y**2 + x**2 < radius**2


def test_of_a_stripped_image_all_but_the_background_value_is_brain() -> None:
    ball = a_ball()
    noise = np.random.default_rng(0).normal(0, 1, ball.shape)
    # A z-scored image: its background is neither 0 nor the smallest value.
    image = np.where(ball, noise, -0.42).astype(np.float32)
    np.testing.assert_array_equal(foreground([image]), ball)


def test_of_a_whole_head_the_noise_around_it_is_left_out() -> None:
    ball = a_ball()
    noise = np.abs(np.random.default_rng(0).normal(0, 3, ball.shape))
    mask = foreground([(100.0 * ball + noise).astype(np.float32)])
    assert np.count_nonzero(mask != ball) < 0.01 * ball.sum()


def test_a_padded_frame_around_a_noisy_head_is_not_taken_for_a_stripped_background() -> None:
    ball = a_ball(0.6)
    noise = np.abs(np.random.default_rng(0).normal(0, 3, ball.shape)) + 0.01
    image = (100.0 * ball + noise).astype(np.float32)
    image[:, [0, -1], :] = 0
    image[:, :, [0, -1]] = 0
    mask = foreground([image])
    assert np.count_nonzero(mask != ball) < 0.01 * ball.sum()


def test_holes_are_filled_and_specks_dropped() -> None:
    ball = a_ball()
    image = np.where(ball, 100, 0).astype(np.float32)
    image[16, 16, 14:18] = 0
    image[16, 1, 1] = 100
    np.testing.assert_array_equal(foreground([image]), ball)


def test_what_one_modality_does_not_show_another_may() -> None:
    ball = a_ball()
    upper = ball.copy()
    upper[:16] = False
    images = [np.where(m, 50, 0).astype(np.float32) for m in (upper, ball)]
    np.testing.assert_array_equal(foreground(images), ball)


def a_stripped_brain(*, background: float = 0.0, mm: float = 4.0) -> sitk.Image:
    """An egg of 1400 ml or so with uneven tissue, in a frame of one value."""
    z, y, x = np.meshgrid(*[(np.arange(60) - 29.5) * mm] * 3, indexing="ij")
    tissue = 2 + 0.3 * np.random.default_rng(1).normal(size=x.shape)
    inside = (z / 65) ** 2 + (y / 80) ** 2 + (x / 65) ** 2 < 1
    image = sitk.GetImageFromArray(np.where(inside, tissue, background).astype(np.float32))
    image.SetSpacing([mm] * 3)
    return image


def a_head(*, noise: float = 0.0, mm: float = 4.0) -> sitk.Image:
    """The same brain in bone and scalp; the background is 0, or noise where there is any."""
    z, y, x = np.meshgrid(*[(np.arange(60) - 29.5) * mm] * 3, indexing="ij")
    far = np.sqrt((z / 65) ** 2 + (y / 80) ** 2 + (x / 65) ** 2)
    brightness = np.select([far < 1, far < 1.12, far < 1.24], [2.0, 0.2, 3.0], 0.0)
    random = np.random.default_rng(1).normal(size=x.shape)
    image = sitk.GetImageFromArray((brightness + noise * np.abs(random)).astype(np.float32))
    image.SetSpacing([mm] * 3)
    return image


@pytest.mark.parametrize("background", [0.0, -3.6, 1000.0])
def test_a_brain_in_a_frame_of_any_one_value_is_stripped(background: float) -> None:
    assert is_stripped(a_stripped_brain(background=background))


@pytest.mark.parametrize("orientation", ["RAS", "PIR", "SAL"])
def test_the_order_of_the_axes_doesnt_matter(orientation: str) -> None:
    cut = a_stripped_brain()[:, :, 20:]
    assert is_stripped(sitk.DICOMOrient(cut, orientation))


def test_a_head_whose_background_was_zeroed_is_not_stripped() -> None:
    assert not is_stripped(a_head())


def test_a_head_no_larger_than_a_brain_shows_its_skull() -> None:
    small = a_head()
    small.SetSpacing([3.2] * 3)
    array = sitk.GetArrayViewFromImage(small)
    assert np.count_nonzero(array) * 3.2**3 / 1000 < PLAUSIBLE_ML[1]
    assert not is_stripped(small)


def test_a_measured_background_is_not_a_stripped_one() -> None:
    assert not is_stripped(a_head(noise=0.05))


def test_a_label_is_no_stripped_brain() -> None:
    image = a_stripped_brain()
    image.SetSpacing([2.0] * 3)
    assert not is_stripped(image)


@pytest.mark.parametrize("modality", list(Modality))
def test_a_phantom_head_is_not_stripped_until_it_is(modality: Modality) -> None:
    head, truth = phantom_head(3, modality)
    assert not is_stripped(head)
    assert not is_stripped(sitk.Mask(head, _around(truth)))
    assert is_stripped(sitk.Mask(head, truth))


def _around(brain: sitk.Image) -> sitk.Image:
    """Brain, skull and scalp: all within 16 mm."""
    return sitk.SignedMaurerDistanceMap(brain, squaredDistance=False, useImageSpacing=True) < 16


@pytest.mark.real
def test_real_scans_are_told_apart() -> None:
    if not DATA.is_dir():
        pytest.skip("../shared/data is not here")
    heads = [f for f in DATA.glob("lgg-sites/*/*/*.nii.gz") if "_seg" not in f.name]
    heads.append(DATA / "colin27" / "ch2.nii.gz")
    brains = [*DATA.glob("deepmedic-brats2013/*/*/*DivStd.nii.gz")]
    brains += [DATA / "sri24" / f"{name}.nii.gz" for name in ("spgr", "late", "erly")]
    brains.append(DATA / "colin27" / "ch2bet.nii.gz")
    assert len(heads) > 150
    assert len(brains) > 12
    wrong = [f.name for f in heads if is_stripped(sitk.ReadImage(str(f)))]
    wrong += [f.name for f in brains if not is_stripped(sitk.ReadImage(str(f)))]
    assert wrong == []


def a_mask(shape: tuple[int, int, int], *, mm: float = 1.0) -> sitk.Image:
    """A block in the middle of a frame of 140 x 180 x 160 voxels."""
    array = np.zeros((140, 180, 160), np.uint8)
    array[
        tuple(slice((n - m) // 2, (n + m) // 2) for n, m in zip(array.shape, shape, strict=True))
    ] = 1
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([mm] * 3)
    return image


def test_a_mask_of_the_size_of_a_brain_raises_no_doubt() -> None:
    assert doubts(a_mask((100, 130, 110))) == ()


def test_an_empty_mask_is_no_brain() -> None:
    assert doubts(a_mask((0, 0, 0))) == ("no brain was found",)


@pytest.mark.parametrize("mm", [0.75, 1.3])
def test_a_mask_of_a_volume_no_brain_has_is_doubted(mm: float) -> None:
    (sentence,) = doubts(a_mask((100, 130, 110), mm=mm))
    assert "ml" in sentence


def test_a_mask_that_is_cut_off_by_the_frame_is_doubted() -> None:
    (sentence,) = doubts(a_mask((140, 110, 90)))
    assert "cut off" in sentence


def test_depths_are_counted_in_millimetres_and_go_on_beyond_the_frame() -> None:
    inside = np.zeros((3, 4, 9), np.bool_)
    inside[:, :, 2:7] = True
    np.testing.assert_allclose(
        depths(inside, (2.0, 1.0, 1.0))[1, 0], [0, 0, 2, 4, 6, 4, 2, 0, 0], rtol=1e-6
    )
