"""Augmentation moves image and outline together, repeats with its seed, and invents nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainfed.core.augmentation import augment
from brainfed.plan import Augmentation

EVERYTHING = Augmentation(
    flip=0.5,
    rotate_degrees=20,
    scale_fraction=0.15,
    intensity_shift=0.5,
    intensity_scale_fraction=0.3,
)


def a_batch(n: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Slices of two modalities with one off-centre bright square, which is the region."""
    image = torch.zeros(n, 2, 32, 24)
    image[:, :, 8:16, 3:9] = 1.0
    regions = (image[:, :1] > 0.5).float()
    return image, regions, torch.ones(n, 2, dtype=torch.bool)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_nothing_asked_is_nothing_changed() -> None:
    image, regions, present = a_batch()
    changed, outline = augment(image, regions, present, Augmentation(), seeded())
    assert torch.equal(changed, image)
    assert torch.equal(outline, regions)


def test_the_same_seed_gives_the_same_batch_and_another_seed_another() -> None:
    batch = a_batch()
    first = augment(*batch, EVERYTHING, seeded(1))
    again = augment(*batch, EVERYTHING, seeded(1))
    other = augment(*batch, EVERYTHING, seeded(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_the_given_batch_is_not_written_to() -> None:
    image, regions, present = a_batch()
    before = image.clone(), regions.clone()
    augment(image, regions, present, EVERYTHING, seeded())
    assert torch.equal(image, before[0])
    assert torch.equal(regions, before[1])


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_missing_modality_stays_a_zero_channel_and_regions_stay_binary(seed: int) -> None:
    image, regions, present = a_batch()
    present[1, 1] = False
    image[1, 1] = 0.0
    changed, outline = augment(image, regions, present, EVERYTHING, seeded(seed))
    assert not changed[1, 1].any()
    assert changed[1, 0].any()
    assert set(outline.unique().tolist()) <= {0.0, 1.0}
    assert torch.isfinite(changed).all()


def test_a_certain_flip_mirrors_left_and_right_only() -> None:
    image, regions, present = a_batch()
    changed, outline = augment(image, regions, present, Augmentation(flip=1.0), seeded())
    assert torch.equal(changed, image.flip(-1))
    assert torch.equal(outline, regions.flip(-1))


def test_about_half_of_the_slices_are_flipped_at_a_half() -> None:
    image, regions, present = a_batch(400)
    changed, _ = augment(image, regions, present, Augmentation(flip=0.5), seeded())
    n_flipped = int((changed != image).flatten(1).any(1).sum())
    assert 150 < n_flipped < 250


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_the_outline_moves_with_the_image_also_on_a_slice_that_is_not_square(seed: int) -> None:
    image, regions, present = a_batch()
    moving = Augmentation(flip=0.5, rotate_degrees=20, scale_fraction=0.15)
    changed, outline = augment(image, regions, present, moving, seeded(seed))
    bright = changed[:, :1] > 0.5
    both = (bright & (outline > 0.5)).sum((1, 2, 3))
    assert ((2 * both) / (bright.sum((1, 2, 3)) + outline.sum((1, 2, 3))) > 0.9).all()


def test_a_turn_keeps_the_area_and_a_scaling_does_not() -> None:
    image, regions, present = a_batch(100)
    area = regions[0].sum().item()
    _, turned = augment(image, regions, present, Augmentation(rotate_degrees=20), seeded())
    _, scaled = augment(image, regions, present, Augmentation(scale_fraction=0.4), seeded())
    assert turned.sum((1, 2, 3)).mean().item() == pytest.approx(area, rel=0.05)
    assert scaled.sum((1, 2, 3)).max() > 1.5 * area
    assert scaled.sum((1, 2, 3)).min() < 0.7 * area


def test_each_modality_gets_its_own_intensity_within_the_plan_s_bounds() -> None:
    image, regions, present = a_batch(200)
    settings_ = Augmentation(intensity_shift=0.5, intensity_scale_fraction=0.3)
    changed, outline = augment(image, regions, present, settings_, seeded())
    shift, scale = changed[:, :, 0, 0], changed[:, :, 10, 5] - changed[:, :, 0, 0]
    assert torch.equal(outline, regions)
    assert 0.45 < shift.abs().max() <= 0.5
    assert 0.7 <= scale.min() < 0.75
    assert 1.25 < scale.max() <= 1.3001
    assert not torch.equal(shift[:, 0], shift[:, 1])
