import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from brainfed.core.bias import flatten, one_thread
from brainfed.core.brainmask import foreground
from brainfed.core.phantom import Scanner, make_phantom
from brainfed.core.volume import to_image
from brainfed.plan import Modality
from tests.builders import a_geometry

SHAPE, SPACING = (44, 50, 44), (4.5, 4.5, 4.5)


@pytest.fixture(scope="module")
def shaded() -> tuple[sitk.Image, sitk.Image, np.ndarray]:
    """A phantom's T1 under a known smooth field, the head's mask, and the field's logarithm."""
    head = make_phantom(
        np.random.default_rng(3), Scanner(noise=0.01, bias=0.0), shape=SHAPE, spacing_mm=SPACING
    ).images[Modality.T1]
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    log_field = 0.25 * x - 0.2 * y + 0.2 * z**2 + 0.15 * x * z
    geometry = a_geometry(SHAPE, SPACING)
    image = to_image((head * np.exp(log_field)).astype(np.float32), geometry)
    mask = foreground([head.astype(np.float32)])
    return image, to_image(mask.astype(np.uint8), geometry), log_field


def test_a_known_field_is_flattened(shaded: tuple[sitk.Image, sitk.Image, np.ndarray]) -> None:
    image, mask, log_field = shaded
    inside = (sitk.GetArrayFromImage(mask) > 0) & (sitk.GetArrayFromImage(image) > 50)
    flat = flatten(image, mask)
    ratio = sitk.GetArrayFromImage(image)[inside] / sitk.GetArrayFromImage(flat)[inside]
    left = log_field[inside] - np.log(ratio)
    assert left.std() < 0.4 * log_field[inside].std()


def test_the_grid_stays_and_the_bits_are_the_same_each_time(
    shaded: tuple[sitk.Image, sitk.Image, np.ndarray],
) -> None:
    image, mask, _ = shaded
    first, second = flatten(image, mask), flatten(image, mask)
    assert first.GetSize() == image.GetSize()
    assert first.GetOrigin() == image.GetOrigin()
    assert np.array_equal(sitk.GetArrayFromImage(first), sitk.GetArrayFromImage(second))


def test_what_no_field_can_be_fitted_to_comes_back_as_it_is() -> None:
    geometry = a_geometry((3, 40, 40))
    thin = to_image(np.ones((3, 40, 40), np.float32), geometry)
    everywhere = to_image(np.ones((3, 40, 40), np.uint8), geometry)
    assert np.array_equal(sitk.GetArrayFromImage(flatten(thin, everywhere)), np.ones((3, 40, 40)))
    image = to_image(np.ones((16, 40, 40), np.float32), a_geometry((16, 40, 40)))
    assert np.array_equal(
        sitk.GetArrayFromImage(flatten(image, sitk.Cast(image * 0, sitk.sitkUInt8))),
        np.ones((16, 40, 40)),
    )


def test_the_number_of_threads_is_put_back_even_after_an_error() -> None:
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()

    def fail() -> None:
        with one_thread():
            assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 1
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == before
