"""The training set in memory: batches hold what they should, in the promised order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core.labels import region_mask
from brainfed.core.slices import Slices, Volume, batch_numbers
from brainfed.core.training import n_steps_of
from brainfed.plan import Plan, Training
from tests.builders import a_case, a_plan


def a_volume(plan: Plan, seed: int = 0) -> Volume:
    case = a_case(plan, seed=seed)
    regions = [region_mask(case.label, case.protocol, region) for region in plan.scans.regions]
    return Volume(case.image, np.stack(regions), case.present)


def test_a_missing_modality_is_a_zero_channel_in_every_batch() -> None:
    plan = a_plan(scans={"required": ("flair",), "optional": ("t1",)})
    volume = a_volume(plan)
    volume.image[1] = 0
    image, regions, present = Slices([Volume(volume.image, volume.regions, (True, False))]).batch(
        np.arange(3)
    )
    assert image.shape == (3, 2, 32, 32)
    assert regions.shape == (3, 1, 32, 32)
    assert present.tolist() == [[True, False]] * 3
    assert not image[:, 1].any()


def test_a_batch_holds_the_slices_of_its_numbers() -> None:
    plan = a_plan()
    slices = Slices([a_volume(plan, 0), a_volume(plan, 1)])
    image, regions, _ = slices.batch(np.array([7, 2]))
    second, first = slices.volumes[1], slices.volumes[0]
    assert np.array_equal(image[0].numpy(), second.image[:, 1].astype(np.float32))
    assert np.array_equal(regions[1].numpy(), first.regions[:, 2].astype(np.float32))


def settings_of(batch: int, share: float) -> Training:
    return Training(batch=batch, foreground_fraction=share)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**31))
def test_the_natural_mix_takes_every_slice_once_an_epoch(n: int, batch: int, seed: int) -> None:
    foreground = np.zeros(n, bool)
    batches = batch_numbers(foreground, settings_of(batch, 0), np.random.default_rng(seed))
    n_steps = n_steps_of(settings_of(batch, 0), n)
    epoch = np.concatenate([next(batches) for _ in range(n_steps)])
    assert sorted(epoch) == list(range(n))


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 12), st.floats(0.01, 1))
def test_each_batch_has_the_plan_s_share_of_foreground(
    n_with: int, n_without: int, batch: int, share: float
) -> None:
    foreground = np.arange(n_with + n_without) < n_with
    size = min(batch, len(foreground))
    batches = batch_numbers(foreground, settings_of(batch, share), np.random.default_rng(1))
    for _ in range(5):
        numbers = next(batches)
        assert len(numbers) == size
        assert foreground[numbers].sum() == max(1, int(share * size + 0.5))


def test_foreground_alone_fills_the_batch_where_no_other_slice_is() -> None:
    batches = batch_numbers(np.ones(5, bool), settings_of(4, 0.5), np.random.default_rng(1))
    assert len(next(batches)) == 4


def test_a_kind_of_slice_is_used_up_before_it_comes_again() -> None:
    foreground = np.arange(9) < 6
    batches = batch_numbers(foreground, settings_of(4, 0.5), np.random.default_rng(1))
    numbers = np.concatenate([next(batches) for _ in range(3)])
    assert sorted(numbers[foreground[numbers]]) == [0, 1, 2, 3, 4, 5]


def test_a_slice_with_any_region_is_foreground() -> None:
    plan = a_plan(scans={"regions": ("ET", "WT")})
    volume = a_volume(plan)
    volume.regions[:] = False
    volume.regions[1, 2, 5, 5] = True
    assert Slices([volume]).foreground.tolist() == [False, False, True, False, False, False]
