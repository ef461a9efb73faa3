"""Augmentation moves image and outline together, repeats with its seed, and invents nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainfed.core.augmentation import _rotations, augment
from brainfed.plan import Augmentation

EVERYTHING = Augmentation(
    flip=0.5,
    rotate_degrees=20,
    scale_fraction=0.15,
    intensity_shift=0.5,
    intensity_scale_fraction=0.3,
    gamma=0.5,
    noise=0.3,
    low_resolution=2.0,
    drop_modality=0.2,
)
MANY = tuple(range(1000, 1400))


def a_batch(n: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Slices of two modalities with one off-centre bright square, which is the region."""
    image = torch.zeros(n, 2, 32, 24)
    image[:, :, 8:16, 3:9] = 1.0
    regions = (image[:, :1] > 0.5).float()
    return image, regions, torch.ones(n, 2, dtype=torch.bool)


def a_patch_batch(n: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same in 3-D, the edges all different."""
    image = torch.zeros(n, 2, 12, 20, 16)
    image[:, :, 2:8, 5:12, 3:9] = 1.0
    regions = (image[:, :1] > 0.5).float()
    return image, regions, torch.ones(n, 2, dtype=torch.bool)


def seeded(seed: int = 1, n: int = 6) -> tuple[int, ...]:
    return tuple(range(seed * 1000, seed * 1000 + n))


def test_nothing_asked_is_nothing_changed() -> None:
    image, regions, present = a_batch()
    changed, outline = augment(image, regions, present, Augmentation(), seeds=seeded())
    assert torch.equal(changed, image)
    assert torch.equal(outline, regions)


def test_the_same_seed_gives_the_same_batch_and_another_seed_another() -> None:
    batch = a_batch()
    first = augment(*batch, EVERYTHING, seeds=seeded(1))
    again = augment(*batch, EVERYTHING, seeds=seeded(1))
    other = augment(*batch, EVERYTHING, seeds=seeded(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_the_given_batch_is_not_written_to() -> None:
    image, regions, present = a_batch()
    before = image.clone(), regions.clone()
    augment(image, regions, present, EVERYTHING, seeds=seeded())
    assert torch.equal(image, before[0])
    assert torch.equal(regions, before[1])


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_missing_modality_stays_a_zero_channel_and_regions_stay_binary(seed: int) -> None:
    image, regions, present = a_batch()
    present[1, 1] = False
    image[1, 1] = 0.0
    changed, outline = augment(image, regions, present, EVERYTHING, seeds=seeded(seed))
    assert not changed[1, 1].any()
    assert changed[1, 0].any()
    assert set(outline.unique().tolist()) <= {0.0, 1.0}
    assert torch.isfinite(changed).all()


def test_a_certain_flip_mirrors_left_and_right_only() -> None:
    image, regions, present = a_batch()
    changed, outline = augment(image, regions, present, Augmentation(flip=1.0), seeds=seeded())
    assert torch.equal(changed, image.flip(-1))
    assert torch.equal(outline, regions.flip(-1))


def test_about_half_of_the_slices_are_flipped_at_a_half() -> None:
    image, regions, present = a_batch(400)
    changed, _ = augment(image, regions, present, Augmentation(flip=0.5), seeds=seeded(n=400))
    n_flipped = int((changed != image).flatten(1).any(1).sum())
    assert 150 < n_flipped < 250


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_the_outline_moves_with_the_image_also_on_a_slice_that_is_not_square(seed: int) -> None:
    image, regions, present = a_batch()
    moving = Augmentation(flip=0.5, rotate_degrees=20, scale_fraction=0.15)
    changed, outline = augment(image, regions, present, moving, seeds=seeded(seed))
    bright = changed[:, :1] > 0.5
    both = (bright & (outline > 0.5)).sum((1, 2, 3))
    assert ((2 * both) / (bright.sum((1, 2, 3)) + outline.sum((1, 2, 3))) > 0.9).all()


def test_a_turn_keeps_the_area_and_a_scaling_does_not() -> None:
    image, regions, present = a_batch(100)
    area = regions[0].sum().item()
    _, turned = augment(
        image, regions, present, Augmentation(rotate_degrees=20), seeds=seeded(n=100)
    )
    _, scaled = augment(
        image, regions, present, Augmentation(scale_fraction=0.4), seeds=seeded(n=100)
    )
    assert turned.sum((1, 2, 3)).mean().item() == pytest.approx(area, rel=0.05)
    assert scaled.sum((1, 2, 3)).max() > 1.5 * area
    assert scaled.sum((1, 2, 3)).min() < 0.7 * area


def test_each_modality_gets_its_own_intensity_within_the_plan_s_bounds() -> None:
    image, regions, present = a_batch(200)
    settings_ = Augmentation(intensity_shift=0.5, intensity_scale_fraction=0.3)
    changed, outline = augment(image, regions, present, settings_, seeds=seeded(n=200))
    shift, scale = changed[:, :, 0, 0], changed[:, :, 10, 5] - changed[:, :, 0, 0]
    assert torch.equal(outline, regions)
    assert 0.45 < shift.abs().max() <= 0.5
    assert 0.7 <= scale.min() < 0.75
    assert 1.25 < scale.max() <= 1.3001
    assert not torch.equal(shift[:, 0], shift[:, 1])


@pytest.mark.parametrize("batch", [a_batch(6), a_patch_batch(4)], ids=["slices", "patches"])
def test_a_sample_changes_by_its_seed_alone_whatever_its_batch_mates(
    batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    torch.manual_seed(1)
    image, regions, present = batch[0] + torch.randn(batch[0].shape), batch[1], batch[2]
    seeds = seeded(3, len(image))
    together = augment(image, regions, present, EVERYTHING, seeds=seeds)
    for row in reversed(range(len(image))):
        part = slice(row, row + 1)
        alone = augment(image[part], regions[part], present[part], EVERYTHING, seeds=seeds[part])
        assert torch.equal(alone[0], together[0][part])
        assert torch.equal(alone[1], together[1][part])


def test_augmentation_neither_takes_from_nor_touches_the_global_random_state() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = augment(*a_batch(), EVERYTHING, seeds=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(augment(*a_batch(), EVERYTHING, seeds=seeded())[0], first[0])


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_patches_keep_outlines_binary_and_on_the_image(seed: int) -> None:
    image, regions, present = a_patch_batch()
    moving = Augmentation(flip=0.5, rotate_degrees=15, scale_fraction=0.1)
    changed, outline = augment(image, regions, present, moving, seeds=seeded(seed, 3))
    assert set(outline.unique().tolist()) <= {0.0, 1.0}
    bright = changed[:, :1] > 0.5
    both = (bright & (outline > 0.5)).flatten(1).sum(1)
    assert ((2 * both) / (bright.flatten(1).sum(1) + outline.flatten(1).sum(1)) > 0.85).all()


def test_a_turn_of_a_quarter_is_exact_in_the_plane_and_about_each_axis() -> None:
    torch.manual_seed(1)
    cube = torch.randn(1, 1, 9, 9, 9)
    for number, axes in enumerate([(-2, -1), (-3, -1), (-3, -2)]):
        angles = np.zeros((1, 3))
        angles[0, number] = np.pi / 2
        matrix = _rotations(angles, 3)[0]
        # x, y, z of the array are its last, middle and first axis.
        place = np.stack(np.meshgrid(*[np.arange(9) - 4] * 3, indexing="ij"))[::-1]
        x, y, z = np.rint(np.einsum("ij,j...->i...", matrix, place)).astype(int) + 4
        turned = cube[0, 0].numpy()[z, y, x]
        either = [np.rot90(cube[0, 0].numpy(), k, axes) for k in (1, 3)]
        assert any(np.array_equal(turned, way) for way in either)
    assert np.allclose(
        _rotations(np.full((1, 3), 0.3), 2)[0], _rotations(np.array([[0.3, 0, 0]]), 3)[0, :2, :2]
    )


def test_about_a_third_is_bent_and_keeps_mean_spread_and_order() -> None:
    torch.manual_seed(1)
    image = torch.randn(400, 2, 16, 16)
    regions, present = torch.zeros(400, 1, 16, 16), torch.ones(400, 2, dtype=torch.bool)
    changed, _ = augment(image, regions, present, Augmentation(gamma=1.0), seeds=MANY)
    bent = (changed != image).flatten(1).any(1)
    assert 0.2 < bent.float().mean() < 0.4
    before, after = image[bent].flatten(2), changed[bent].flatten(2)
    assert torch.allclose(after.mean(2), before.mean(2), atol=1e-4)
    assert torch.allclose(after.std(2), before.std(2), atol=1e-4)
    assert torch.equal(after.argmax(2), before.argmax(2))
    assert torch.equal(after.argmin(2), before.argmin(2))
    assert (after - before).abs().max() > 0.1


def test_a_flat_modality_stays_flat_when_bent() -> None:
    image, regions = torch.full((400, 2, 8, 8), -0.7), torch.zeros(400, 1, 8, 8)
    present = torch.ones(400, 2, dtype=torch.bool)
    changed, _ = augment(image, regions, present, Augmentation(gamma=1.0), seeds=MANY)
    assert torch.allclose(changed, image, atol=1e-5)


def test_about_a_tenth_gets_noise_of_at_most_the_plan_s_strength() -> None:
    image = torch.zeros(400, 2, 32, 32)
    regions, present = torch.zeros(400, 1, 32, 32), torch.ones(400, 2, dtype=torch.bool)
    changed, _ = augment(image, regions, present, Augmentation(noise=0.5), seeds=MANY)
    noisy = changed.flatten(1).any(1)
    assert 0.05 < noisy.float().mean() < 0.16
    spread = changed[noisy].flatten(2).std(2)
    assert 0.35 < spread.max() < 0.55
    assert changed.mean().abs() < 0.01


def test_about_a_quarter_loses_resolution_each_modality_its_own() -> None:
    torch.manual_seed(1)
    image = torch.randn(400, 2, 32, 24)
    regions, present = torch.zeros(400, 1, 32, 24), torch.ones(400, 2, dtype=torch.bool)
    changed, _ = augment(image, regions, present, Augmentation(low_resolution=3.0), seeds=MANY)
    coarse = (changed != image).flatten(1).any(1)
    assert 0.17 < coarse.float().mean() < 0.33
    left = changed[coarse].flatten(2).std(2)
    assert left.min() < 0.5
    assert (left[:, 0] - left[:, 1]).abs().max() > 0.1
    assert changed[coarse].mean().abs() < 0.05


@given(st.integers(0, 10_000), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_of_the_modalities_that_are_there_one_always_stays(seed: int, chance: float) -> None:
    image, regions = torch.ones(6, 3, 4, 4), torch.zeros(6, 1, 4, 4)
    present = torch.ones(6, 3, dtype=torch.bool)
    present[1, 0] = present[2, :2] = False
    image *= present[:, :, None, None]
    changed, _ = augment(
        image, regions, present, Augmentation(drop_modality=chance), seeds=seeded(seed)
    )
    kept = changed.flatten(2).any(2)
    assert kept.any(1).all()
    assert not (kept & ~present).any()
    assert kept[2, 2]


def test_modalities_are_dropped_at_the_plan_s_rate() -> None:
    image, regions = torch.ones(400, 4, 2, 2), torch.zeros(400, 1, 2, 2)
    present = torch.ones(400, 4, dtype=torch.bool)
    changed, _ = augment(image, regions, present, Augmentation(drop_modality=0.3), seeds=MANY)
    assert 0.26 < 1 - changed.mean() < 0.34
