"""The training set as batches: they hold what they should, at any step, whoever asks."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainfed.core.labels import region_mask
from brainfed.core.samples import Batch, Volume, samples_of
from brainfed.errors import ScanError
from brainfed.plan import Plan
from tests.builders import a_case, a_plan

PATCH = (8, 16, 12)


def a_volume(plan: Plan, seed: int = 0, *, radius_mm: float = 12, n_slices: int = 6) -> Volume:
    case = a_case(plan, seed=seed, tumour_radius_mm=radius_mm, n_slices=n_slices)
    regions = [region_mask(case.label, case.protocol, region) for region in plan.scans.regions]
    return Volume(case.image, np.stack(regions), case.present, f"case {seed}")


def a_3d_plan(**training: Any) -> Plan:
    return a_plan(network={"architecture": "unet-3d", "patch": PATCH}, training=training)


def numbered(foreground: list[bool]) -> list[Volume]:
    """Cases of two slices of 8 x 8; every pixel of a slice is the slice's number."""
    n = len(foreground) + len(foreground) % 2
    has = np.zeros(n, bool)
    has[: len(foreground)] = foreground
    image = np.broadcast_to(np.arange(n, dtype=np.float16)[None, :, None, None], (1, n, 8, 8))
    regions = np.broadcast_to(has[None, :, None, None], (1, n, 8, 8))
    return [
        Volume(image[:, z : z + 2].copy(), regions[:, z : z + 2].copy(), (True,))
        for z in range(0, n, 2)
    ]


def a_small_plan(batch: int, share: float = 0.0) -> Plan:
    return a_plan(grid={"size": (8, 8)}, training={"batch": batch, "foreground_fraction": share})


def slices_in(batch: Batch) -> list[int]:
    return [int(number) for number in batch.image[:, 0, 0, 0]]


def same(a: Batch, b: Batch) -> bool:
    return (
        torch.equal(a.image, b.image)
        and torch.equal(a.regions, b.regions)
        and torch.equal(a.present, b.present)
        and a.seeds == b.seeds
    )


def test_a_missing_modality_is_a_zero_channel_and_a_flag_in_every_batch() -> None:
    plan = a_plan(scans={"required": ("flair",), "optional": ("t1",)})
    volume = a_volume(plan)
    volume.image[1] = 0
    lacking = Volume(volume.image, volume.regions, (True, False))
    batch = samples_of([lacking], plan, seed=1).batch(0)
    assert batch.image.shape == (4, 2, 32, 32)
    assert batch.regions.shape == (4, 1, 32, 32)
    assert batch.present.tolist() == [[True, False]] * 4
    assert batch.image[:, 0].any()
    assert not batch.image[:, 1].any()


def test_image_and_regions_of_a_row_are_of_one_slice() -> None:
    plan = a_plan()
    volumes = [a_volume(plan, 0), a_volume(plan, 1, radius_mm=8)]
    known = {
        v.image[:, z].astype(np.float32).tobytes(): v.regions[:, z].astype(np.float32).tobytes()
        for v in volumes
        for z in range(6)
    }
    samples = samples_of(volumes, plan, seed=1)
    assert (samples.n_samples, samples.n_slices, samples.n_cases) == (12, 12, 2)
    for step in range(3):
        batch = samples.batch(step)
        for image, regions in zip(batch.image, batch.regions, strict=True):
            assert known[image.numpy().tobytes()] == regions.numpy().tobytes()


@given(st.integers(1, 20), st.integers(1, 12), st.integers(0, 2**63 - 1))
@settings(deadline=None)
def test_the_natural_mix_takes_every_slice_once_an_epoch(pairs: int, batch: int, seed: int) -> None:
    n = 2 * pairs
    samples = samples_of(numbered([False] * n), a_small_plan(batch), seed=seed)
    n_steps = -(-n // min(batch, n))
    for epoch in (0, 3):
        steps = range(epoch * n_steps, (epoch + 1) * n_steps)
        taken = [number for step in steps for number in slices_in(samples.batch(step))]
        assert sorted(taken) == list(range(n))


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 12), st.floats(0.01, 1))
@settings(deadline=None)
def test_each_batch_has_the_plan_s_share_of_foreground(
    n_with: int, n_without: int, batch: int, share: float
) -> None:
    volumes = numbered([True] * n_with + [False] * n_without)
    samples = samples_of(volumes, a_small_plan(batch, share), seed=1)
    size = min(batch, samples.n_slices)
    for step in range(4):
        found = samples.batch(step).regions.flatten(1).any(1)
        assert len(found) == size
        assert int(found.sum()) == max(1, int(share * size + 0.5))


def test_foreground_alone_fills_the_batch_where_no_other_slice_is() -> None:
    samples = samples_of(numbered([True] * 6), a_small_plan(4, 0.5), seed=1)
    assert len(samples.batch(0).seeds) == 4


def test_without_any_foreground_the_share_is_filled_with_the_rest() -> None:
    samples = samples_of(numbered([False] * 6), a_small_plan(4, 0.5), seed=1)
    assert not samples.has_foreground
    assert len(samples.batch(0).seeds) == 4


def test_a_kind_of_slice_is_used_up_before_it_comes_again() -> None:
    samples = samples_of(numbered([True] * 6 + [False] * 4), a_small_plan(4, 0.5), seed=1)
    taken = [number for step in range(3) for number in slices_in(samples.batch(step))]
    assert sorted(number for number in taken if number < 6) == [0, 1, 2, 3, 4, 5]


def test_a_slice_with_any_region_is_foreground() -> None:
    plan = a_plan(scans={"regions": ("ET", "WT")}, training={"batch": 1, "foreground_fraction": 1})
    volume = a_volume(plan)
    volume.regions[:] = False
    volume.regions[1, 2, 5, 5] = True
    samples = samples_of([volume], plan, seed=1)
    assert samples.has_foreground
    assert all(samples.batch(step).regions[0, 1, 5, 5] == 1 for step in range(4))


@pytest.mark.parametrize("plan", [a_plan(), a_3d_plan(foreground_fraction=0.5)])
def test_a_batch_does_not_depend_on_what_was_asked_before(plan: Plan) -> None:
    volumes = [a_volume(plan, seed, n_slices=9) for seed in range(3)]
    in_order = samples_of(volumes, plan, seed=7)
    batches = [in_order.batch(step) for step in range(12)]
    backwards = samples_of(volumes, plan, seed=7)
    assert all(same(backwards.batch(step), batches[step]) for step in reversed(range(12)))
    other = samples_of(volumes, plan, seed=8)
    assert not any(same(other.batch(step), batches[step]) for step in range(12))


@pytest.mark.parametrize("plan", [a_plan(), a_3d_plan(foreground_fraction=0.5)])
def test_processes_share_out_the_rows_of_one_process(plan: Plan) -> None:
    samples = samples_of([a_volume(plan, seed, n_slices=9) for seed in range(2)], plan, seed=7)
    for step in range(6):
        whole = samples.batch(step)
        for rank in (2, 0, 1):
            part = samples.batch(step, rank=rank, n_ranks=3)
            assert torch.equal(part.image, whole.image[rank::3])
            assert torch.equal(part.regions, whole.regions[rank::3])
            assert part.seeds == whole.seeds[rank::3]


def test_a_process_may_get_no_row_of_a_small_batch() -> None:
    samples = samples_of(numbered([True, True]), a_small_plan(4), seed=1)
    assert samples.batch(0, rank=3, n_ranks=4).image.shape == (0, 1, 8, 8)
    assert samples.batch(0, rank=3, n_ranks=4).present.shape == (0, 1)


def test_every_sample_of_many_steps_has_a_seed_of_its_own() -> None:
    samples = samples_of(numbered([True] * 8), a_small_plan(8), seed=1)
    seeds = [seed for step in range(200) for seed in samples.batch(step).seeds]
    assert len(set(seeds)) == 1600
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_patch_is_a_part_of_its_case_image_and_regions_alike() -> None:
    plan = a_3d_plan(batch=6, foreground_fraction=0.5)
    volume = a_volume(plan, n_slices=20)
    # Every voxel its own number, so that the place of a patch can be read from it.
    place = np.stack(np.meshgrid(*map(np.arange, volume.regions.shape[1:]), indexing="ij"))
    plan = a_plan(
        network={"architecture": "unet-3d", "patch": PATCH},
        training={"batch": 6, "foreground_fraction": 0.5},
        scans={"required": ("t1", "t2", "flair")},
    )
    marked = Volume(place.astype(np.float16), volume.regions, (True,) * 3)
    samples = samples_of([marked], plan, seed=3)
    for step in range(5):
        batch = samples.batch(step)
        assert batch.image.shape == (6, 3, *PATCH)
        for image, regions in zip(batch.image.int().numpy(), batch.regions.numpy(), strict=True):
            z, y, x = image
            assert np.array_equal(regions[0], volume.regions[0, z, y, x])
            assert all(np.ptp(axis) == edge - 1 for axis, edge in zip(image, PATCH, strict=True))


def test_the_share_of_patches_shows_tumour_even_of_a_single_voxel_in_a_corner() -> None:
    plan = a_3d_plan(batch=4, foreground_fraction=0.5)
    volumes = [a_volume(plan, seed, radius_mm=0, n_slices=40) for seed in range(3)]
    volumes[1].regions[0, 39, 0, 31] = True
    samples = samples_of(volumes, plan, seed=3)
    assert samples.has_foreground
    for step in range(10):
        assert samples.batch(step).regions[:2].flatten(1).any(1).all()


def test_patches_besides_reach_every_voxel_of_every_case() -> None:
    plan = a_3d_plan(batch=8)
    volumes = [a_volume(plan, seed, n_slices=10) for seed in range(2)]
    for number, volume in enumerate(volumes):
        volume.image[:] = np.arange(10 * 32 * 32).reshape(1, 10, 32, 32) % 2048
        volume.regions[:] = bool(number)
    samples = samples_of(volumes, plan, seed=1)
    taken = [samples.batch(step) for step in range(60)]
    of_second = torch.cat([batch.regions[:, 0, 0, 0, 0] for batch in taken])
    assert int(of_second.sum()) == 240  # half of them
    assert len(torch.cat([batch.image.flatten() for batch in taken]).unique()) == 2048


def test_an_epoch_in_3d_is_as_many_patches_as_hold_all_voxels_once() -> None:
    plan = a_3d_plan()
    samples = samples_of([a_volume(plan, n_slices=9), a_volume(plan, 1, n_slices=8)], plan, seed=1)
    assert samples.n_samples == -(-17 * 32 * 32 // (8 * 16 * 12))
    assert samples.n_slices == 17


def test_of_a_large_tumour_only_some_voxels_are_kept() -> None:
    plan = a_3d_plan(batch=2, foreground_fraction=1)
    volume = a_volume(plan, n_slices=20)
    volume.regions[:] = True
    first, again = (samples_of([volume], plan, seed=3) for _ in range(2))
    assert all(len(found) == 4096 for found in first._tumours)
    assert same(first.batch(5), again.batch(5))


def test_a_case_smaller_than_a_patch_is_refused_by_its_id() -> None:
    plan = a_3d_plan()
    with pytest.raises(ScanError, match="smaller than the patches") as caught:
        samples_of([a_volume(plan, n_slices=9), a_volume(plan, 4, n_slices=7)], plan, seed=1)
    assert "case 4" in (caught.value.where or "")
    assert caught.value.found == "7 x 32 x 32"
    assert "8 x 16 x 12" in (caught.value.expected or "")
    assert "network.patch" in (caught.value.hint or "")
