"""Lesion-wise scores are BraTS 2023's, restated in `plain_lesions`, and obey their laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from brainfed.core.lesions import RULES, find_lesions, lesion_dice, lesion_hd95
from brainfed.core.surface import crop
from brainfed.plan import LesionPreset
from tests.core.plain_lesions import Plain, plain_lesions

FARTHEST_MM = 374.0
SHAPE = (6, 7, 8)
Spacing = tuple[float, float, float]
masks = arrays(np.bool_, SHAPE)
presets = st.sampled_from(LesionPreset)


def scores(
    prediction: np.ndarray,
    truth: np.ndarray,
    preset: LesionPreset,
    spacing_mm: Spacing = (1, 1, 1),
) -> tuple[float, float]:
    found = find_lesions(prediction, truth, preset)
    away_mm = lesion_hd95(found, spacing_mm=spacing_mm, farthest_mm=FARTHEST_MM)
    return lesion_dice(found), away_mm


def a_ball(mask: np.ndarray, centre: np.ndarray, radius: float) -> None:
    axes = np.ogrid[tuple(slice(n) for n in mask.shape)]
    mask |= sum((axis - at) ** 2 for axis, at in zip(axes, centre, strict=True)) <= radius**2


def many_lesions(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Balls of all sizes: hit, missed, split, or made up; often near each other or the edge."""
    random = np.random.default_rng(seed)
    shape = (26, 30, 34)
    truth, prediction = np.zeros(shape, bool), np.zeros(shape, bool)
    for _ in range(random.integers(0, 7)):
        centre, radius = random.uniform(0, shape), random.uniform(0.6, 5)
        a_ball(truth, centre, radius)
        if random.random() < 0.7:
            a_ball(prediction, centre + random.uniform(-2, 2, 3), radius * random.uniform(0.5, 1.2))
        if random.random() < 0.4:
            a_ball(prediction, centre + random.uniform(-5, 5, 3), random.uniform(0.6, 2))
    for _ in range(random.integers(0, 3)):
        a_ball(prediction, random.uniform(0, shape), random.uniform(0.6, 3))
    if random.random() < 0.3:
        prediction[:, int(random.integers(shape[1]))] = False
    return prediction, truth


def restate(seed: int, preset: LesionPreset, spacing_mm: Spacing) -> Plain:
    return plain_lesions(
        *many_lesions(seed), preset.value, spacing_mm=spacing_mm, farthest_mm=FARTHEST_MM
    )


@pytest.mark.parametrize("preset", list(LesionPreset))
def test_sixty_random_volumes_score_as_in_the_plain_restatement(preset: LesionPreset) -> None:
    """Of each preset, three hundred in all."""
    seen: list[Plain] = []
    for seed in range(60):
        spacing_mm = (1, 1, 1) if seed % 3 else (2.5, 0.8, 1.1)
        seen.append(restate(seed, preset, spacing_mm))
        prediction, truth = many_lesions(seed)
        expected = pytest.approx((seen[-1].dice, seen[-1].hd95_mm), abs=1e-6)
        assert scores(prediction, truth, preset, spacing_mm) == expected, seed
        assert scores(*crop(prediction, truth), preset, spacing_mm) == expected, seed
        assert find_lesions(prediction, truth, preset).n_false == seen[-1].n_false
    assert sum(volume.n_kept > 1 for volume in seen) > 20
    assert sum(volume.n_missed > 0 for volume in seen) > 5
    assert sum(volume.n_false > 0 for volume in seen) > 20
    assert sum(volume.n_ignored > 0 for volume in seen) > 2
    assert sum(volume.n_matched_by_many > 0 for volume in seen) > 2


@given(masks, masks, presets)
def test_noise_scores_as_in_the_plain_restatement(
    prediction: np.ndarray, truth: np.ndarray, preset: LesionPreset
) -> None:
    plain = plain_lesions(
        prediction, truth, preset.value, spacing_mm=(1, 1, 1), farthest_mm=FARTHEST_MM
    )
    assert scores(prediction, truth, preset) == pytest.approx((plain.dice, plain.hd95_mm))


@given(masks, masks, presets)
def test_scores_stay_within_their_range(
    prediction: np.ndarray, truth: np.ndarray, preset: LesionPreset
) -> None:
    dice, away_mm = scores(prediction, truth, preset)
    assert 0 <= dice <= 1
    assert 0 <= away_mm <= FARTHEST_MM


@given(masks, presets)
def test_a_perfect_answer_scores_1_and_0_whatever_is_ignored(
    truth: np.ndarray, preset: LesionPreset
) -> None:
    assert scores(truth, truth, preset)[1] == 0
    assert find_lesions(truth, truth, preset).n_false == 0


def test_the_presets_are_those_of_the_five_challenges() -> None:
    found = {str(preset): (r.n_dilations, r.n_voxels_ignored) for preset, r in RULES.items()}
    assert found == {"gli": (3, 50), "ssa": (3, 50), "ped": (3, 50), "men": (1, 50), "met": (1, 2)}


@pytest.mark.parametrize("preset", list(LesionPreset))
def test_nothing_against_nothing_is_1_and_0_a_miss_or_a_false_alarm_0_and_374(
    preset: LesionPreset,
) -> None:
    empty, tumour = np.zeros((9, 9, 9), bool), np.zeros((9, 9, 9), bool)
    tumour[2:7, 2:7, 2:7] = True
    assert scores(empty, empty, preset) == (1, 0)
    assert scores(empty, tumour, preset) == (0, FARTHEST_MM)
    assert scores(tumour, empty, preset) == (0, FARTHEST_MM)
    assert scores(*crop(empty, empty), preset) == (1, 0)


def a_far_pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two blocks of 64 voxels far apart, each alone, and a block of 8 between them."""
    large, small, tiny = (np.zeros((8, 8, 60), bool) for _ in range(3))
    large[2:6, 2:6, 2:6] = True
    small[2:6, 2:6, 50:54] = True
    tiny[3:5, 3:5, 26:28] = True
    return large, small, tiny


def test_one_lesion_of_two_missed_halves_the_score() -> None:
    first, second, _ = a_far_pair()
    assert scores(first, first | second, LesionPreset.GLI) == (0.5, FARTHEST_MM / 2)


def test_a_false_piece_counts_as_much_as_a_missed_lesion_however_small() -> None:
    first, second, tiny = a_far_pair()
    assert scores(first | tiny, first, LesionPreset.GLI) == (0.5, FARTHEST_MM / 2)
    assert scores(first | second, first, LesionPreset.GLI) == (0.5, FARTHEST_MM / 2)


def test_a_lesion_of_few_voxels_counts_for_metastases_only() -> None:
    first, _, tiny = a_far_pair()
    assert scores(first, first | tiny, LesionPreset.GLI) == (1, 0)
    assert scores(first, first | tiny, LesionPreset.MET) == (0.5, FARTHEST_MM / 2)


def test_finding_a_lesion_that_does_not_count_is_no_false_alarm() -> None:
    first, _, tiny = a_far_pair()
    assert scores(first | tiny, first | tiny, LesionPreset.GLI) == (1, 0)


@pytest.mark.parametrize(("preset", "n_lesions"), [("gli", 1), ("men", 2), ("met", 2)])
def test_lesions_four_voxels_apart_are_one_by_three_dilations_and_two_by_one(
    preset: str, n_lesions: int
) -> None:
    truth = np.zeros((8, 8, 20), bool)
    truth[2:6, 2:6, 2:6] = truth[2:6, 2:6, 10:14] = True
    found = find_lesions(truth, truth, LesionPreset(preset))
    assert len(found.dice) == n_lesions
