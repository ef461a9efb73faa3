from dataclasses import replace

import numpy as np
import pytest

from brainfed.core.phantom import Phantom, Scanner, make_phantom
from brainfed.plan import Modality

PLAIN = Scanner()


def a_phantom(seed: int = 1, scanner: Scanner = PLAIN) -> Phantom:
    return make_phantom(np.random.default_rng(seed), scanner)


def test_the_same_seed_gives_the_same_head() -> None:
    one, same, other = a_phantom(1), a_phantom(1), a_phantom(2)
    for modality in Modality:
        np.testing.assert_array_equal(one.images[modality], same.images[modality])
    assert not np.array_equal(one.label, other.label)


def test_the_anatomy_does_not_depend_on_the_scanner() -> None:
    loud = Scanner(gain=50, gamma=2, noise=0.2, blur_mm=4, bias=0.3, weighting=0.2)
    np.testing.assert_array_equal(a_phantom(3).label, a_phantom(3, loud).label)


@pytest.mark.parametrize("seed", range(6))
def test_each_head_has_a_tumour_inside_the_brain(seed: int) -> None:
    phantom = a_phantom(seed)
    assert {0, 2, 4} <= set(np.unique(phantom.label)) <= {0, 1, 2, 4}  # some lack necrosis
    assert 100 < (phantom.label > 0).sum() < 4500
    _, y, x = np.nonzero(phantom.label)
    assert y.min() > 2
    assert x.min() > 2
    assert y.max() < 61
    assert x.max() < 61


def test_the_tumour_looks_as_in_text_books() -> None:
    phantom = a_phantom(4, replace(PLAIN, noise=0.001, bias=0))
    means = {
        modality: [float(image[phantom.label == value].mean()) for value in (1, 2, 4)]
        for modality, image in phantom.images.items()
    }
    necrosis, oedema, rim = range(3)
    assert means[Modality.T1CE][rim] > 1.4 * means[Modality.T1CE][oedema]
    assert means[Modality.T1CE][rim] > 1.4 * means[Modality.T1CE][necrosis]
    assert means[Modality.FLAIR][oedema] > means[Modality.FLAIR][necrosis]


def test_brightness_alone_does_not_give_the_tumour_away() -> None:
    """The best threshold of FLAIR must be far from a good outline: learning is needed."""
    best = []
    for seed in range(4):
        phantom = a_phantom(seed)
        flair, tumour = phantom.images[Modality.FLAIR], phantom.label > 0
        dice = [
            2 * np.sum((flair > level) & tumour) / (np.sum(flair > level) + tumour.sum())
            for level in np.quantile(flair, np.linspace(0.8, 0.999, 40))
        ]
        best.append(max(dice))
    assert np.mean(best) < 0.75


def test_a_scanner_without_noise_leaves_the_air_black() -> None:
    phantom = a_phantom(1, replace(PLAIN, noise=0))
    assert not phantom.images[Modality.T1][:, 0, 0].any()


def test_noise_and_blur_do_what_they_say() -> None:
    def roughness(scanner: Scanner) -> float:
        image = a_phantom(1, scanner).images[Modality.T2].astype(float) / scanner.gain
        return float(np.abs(np.diff(image, axis=2)).mean())

    plain = roughness(PLAIN)
    assert roughness(replace(PLAIN, noise=0.1)) > 1.5 * plain
    assert roughness(replace(PLAIN, blur_mm=4)) < 0.8 * plain


def test_poor_fluid_suppression_makes_ventricles_bright_in_flair_alone() -> None:
    good, poor = a_phantom(5), a_phantom(5, replace(PLAIN, fluid_suppression=0))
    fluid = good.images[Modality.T2] > 850
    assert fluid.sum() > 100
    assert poor.images[Modality.FLAIR][fluid].mean() > 2 * good.images[Modality.FLAIR][fluid].mean()
    np.testing.assert_array_equal(good.images[Modality.T1], poor.images[Modality.T1])
