import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from brainfed.core.assembly import assemble
from brainfed.core.labels import LabelProtocol
from brainfed.core.volume import to_image
from brainfed.errors import ScanError
from brainfed.plan import Modality, Plan
from tests.builders import a_geometry, a_head, a_plan

SHAPE = (6, 40, 40)


def scans(*names: str, radius_mm: float = 12) -> tuple[dict[Modality, sitk.Image], sitk.Image]:
    images, label = a_head(SHAPE, tumour_radius_mm=radius_mm, modalities=names)
    geometry = a_geometry(SHAPE)
    return {Modality(n): to_image(images[n], geometry) for n in names}, to_image(label, geometry)


def a_two_modality_plan(**changes: object) -> Plan:
    return a_plan(scans={"required": ("flair",), "optional": ("t1",)}, **changes)


def test_a_case_is_on_the_plans_grid() -> None:
    made = assemble(*scans("flair", "t1"), a_two_modality_plan(), protocol=LabelProtocol.BRATS2017)
    assert made.image.shape == (2, 6, 32, 32)
    assert made.image.dtype == np.float16
    assert made.label.shape == made.brain_mask.shape == (6, 32, 32)
    assert made.geometry.size == (32, 32, 6)
    assert made.n_tumour_voxels == np.count_nonzero(made.label) > 0
    assert made.tumour_lost_fraction == 0


def test_a_missing_modality_is_a_zero_channel() -> None:
    made = assemble(*scans("flair"), a_two_modality_plan(), protocol=LabelProtocol.BRATS2017)
    assert made.image[0].any()
    assert not made.image[1].any()


def test_channels_follow_the_plan_not_the_files() -> None:
    images, label = scans("t1", "flair")
    both = assemble(images, label, a_two_modality_plan(), protocol=LabelProtocol.BRATS2017)
    alone = assemble(
        {Modality.FLAIR: images[Modality.FLAIR]},
        label,
        a_plan(),
        protocol=LabelProtocol.BRATS2017,
    )
    np.testing.assert_array_equal(both.image[0], alone.image[0])


def test_image_label_and_mask_stay_together_through_turning_and_resampling() -> None:
    images, label = scans("flair")
    turned = {m: sitk.DICOMOrient(image, "RAI") for m, image in images.items()}
    plan = a_plan(grid={"in_plane_mm": 2.5, "size": (32, 32)})
    one = assemble(images, label, plan, protocol=LabelProtocol.BRATS2017)
    other = assemble(turned, sitk.DICOMOrient(label, "RAI"), plan, protocol=LabelProtocol.BRATS2017)
    np.testing.assert_array_equal(one.label, other.label)
    np.testing.assert_allclose(one.image, other.image, atol=0.01)
    inside = one.image[0][one.label > 0].mean()
    outside = one.image[0][one.brain_mask & (one.label == 0)].mean()
    assert inside > outside + 1  # the tumour of `a_head` is bright


def test_a_crop_through_the_tumour_tells_what_was_lost() -> None:
    images, label = scans("flair", radius_mm=24)
    plan = a_plan(grid={"size": (16, 16)})
    made = assemble(images, label, plan, protocol=LabelProtocol.BRATS2017)
    n_before = np.count_nonzero(sitk.GetArrayFromImage(label))
    assert made.tumour_lost_fraction == pytest.approx(1 - made.n_tumour_voxels / n_before)
    assert 0 < made.tumour_lost_fraction < 1


def test_an_image_that_is_empty_within_the_crop_is_refused() -> None:
    images, label = scans("flair")
    array = sitk.GetArrayFromImage(images[Modality.FLAIR])
    array[:, 4:36, 4:36] = 0
    images = {Modality.FLAIR: to_image(array, a_geometry(SHAPE))}
    plan = a_plan(intensity={"zscore": "volume"})
    with pytest.raises(ScanError, match="single value"):
        assemble(images, label, plan, protocol=LabelProtocol.BRATS2017)
