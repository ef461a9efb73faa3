import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from brainfed.core import brainmask
from brainfed.core.assembly import Assembled, Placed, assemble
from brainfed.core.labels import LabelProtocol
from brainfed.core.volume import geometry_of, to_image, turned
from brainfed.errors import ScanError
from brainfed.plan import Modality, Plan
from tests.builders import a_geometry, a_head, a_plan

SHAPE = (6, 40, 40)


Scans = tuple[dict[Modality, sitk.Image], sitk.Image]


def scans(*names: str, radius_mm: float = 12) -> Scans:
    images, label = a_head(SHAPE, tumour_radius_mm=radius_mm, modalities=names)
    geometry = a_geometry(SHAPE)
    return {Modality(n): to_image(images[n], geometry) for n in names}, to_image(label, geometry)


def put_together(
    images: dict[Modality, sitk.Image],
    label: sitk.Image,
    plan: Plan,
    moved: sitk.Transform | None = None,
) -> Assembled:
    """A case of scans that share a space, or of which the label and all images were moved."""
    brain = brainmask.foreground([sitk.GetArrayFromImage(image) for image in images.values()])
    mask = to_image(brain.astype(np.uint8), geometry_of(label))
    return assemble(
        {m: Placed(turned(image), moved) for m, image in images.items()},
        Placed(turned(label), moved),
        Placed(turned(mask), moved),
        plan,
        space=geometry_of(turned(label)) if moved is None else a_geometry(SHAPE),
        protocol=LabelProtocol.BRATS2017,
    )


def a_two_modality_plan(**changes: object) -> Plan:
    return a_plan(scans={"required": ("flair",), "optional": ("t1",)}, **changes)


def test_a_case_is_on_the_plans_grid() -> None:
    made = put_together(*scans("flair", "t1"), a_two_modality_plan())
    assert made.image.shape == (2, 6, 32, 32)
    assert made.image.dtype == np.float16
    assert made.label.shape == made.brain_mask.shape == (6, 32, 32)
    assert made.geometry.size == (32, 32, 6)
    assert made.n_tumour_voxels == np.count_nonzero(made.label) > 0
    assert made.tumour_lost_fraction == 0


def test_a_missing_modality_is_a_zero_channel() -> None:
    made = put_together(*scans("flair"), a_two_modality_plan())
    assert made.image[0].any()
    assert not made.image[1].any()


def test_channels_follow_the_plan_not_the_files() -> None:
    images, label = scans("t1", "flair")
    both = put_together(images, label, a_two_modality_plan())
    alone = put_together({Modality.FLAIR: images[Modality.FLAIR]}, label, a_plan())
    np.testing.assert_array_equal(both.image[0], alone.image[0])


def test_image_label_and_mask_stay_together_through_turning_and_resampling() -> None:
    images, label = scans("flair")
    other_way = {m: sitk.DICOMOrient(image, "RAI") for m, image in images.items()}
    plan = a_plan(grid={"in_plane_mm": 2.5, "size": (32, 32)})
    one = put_together(images, label, plan)
    other = put_together(other_way, sitk.DICOMOrient(label, "RAI"), plan)
    np.testing.assert_array_equal(one.label, other.label)
    np.testing.assert_allclose(one.image, other.image, atol=0.01)
    inside = one.image[0][one.label > 0].mean()
    outside = one.image[0][one.brain_mask & (one.label == 0)].mean()
    assert inside > outside + 1  # the tumour of `a_head` is bright


def test_a_crop_through_the_tumour_tells_what_was_lost() -> None:
    images, label = scans("flair", radius_mm=24)
    plan = a_plan(grid={"size": (16, 16)})
    made = put_together(images, label, plan)
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
        put_together(images, label, plan)


def test_scans_that_were_moved_come_back_to_their_place() -> None:
    images, label = scans("flair")
    plain = put_together(images, label, a_plan())
    shift = (4.0, -6.0, 3.0)  # whole voxels, so that nothing is blurred
    for image in (*images.values(), label):
        image.SetOrigin([o + s for o, s in zip(image.GetOrigin(), shift, strict=True)])
    moved = put_together(images, label, a_plan(), sitk.TranslationTransform(3, shift))
    np.testing.assert_array_equal(moved.label, plain.label)
    np.testing.assert_array_equal(moved.image, plain.image)
    assert moved.tumour_lost_fraction == plain.tumour_lost_fraction


def test_a_tumour_outside_the_brain_and_a_brain_outside_the_grid_are_measured() -> None:
    images, label = scans("flair")
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, :, :20] = 1  # half of the tumour of `a_head` lies on the other side
    placed = Placed(to_image(mask, a_geometry(SHAPE)))
    made = assemble(
        {m: Placed(image) for m, image in images.items()},
        Placed(label),
        placed,
        a_plan(),
        space=a_geometry(SHAPE),
        protocol=LabelProtocol.BRATS2017,
    )
    assert made.tumour_outside_brain_fraction == pytest.approx(0.5, abs=0.05)
    n_kept = mask[:, 4:36, 4:36].sum()
    assert made.brain_lost_fraction == pytest.approx(1 - n_kept / mask.sum())
