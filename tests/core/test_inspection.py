import pickle
import re
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from brainfed.core.flaws import Flaw, FlawedScanError, Severity, finding
from brainfed.core.inspection import (
    FEWEST_SLICES,
    FIELD_MM,
    SPACING_MM,
    inspect_image,
    inspect_means,
    inspect_tumour,
    tissue_means,
)
from brainfed.core.labels import LabelProtocol, Tissue
from brainfed.core.phantom import Scanner, make_phantom
from brainfed.formats.found_case import ScanFile
from brainfed.formats.scan import read_image, read_label
from brainfed.plan import Modality
from brainfed.steps.phantoms import CONSORTIUM
from tests.builders import SHARED_DATA

PAGE = Path(__file__).parents[2] / "docs" / "formats" / "inspection.md"
SHAPE = (16, 40, 40)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, SHAPE).astype(np.float32)


def brain() -> np.ndarray:
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return z**2 + y**2 + x**2 < 0.6


def flaws(image: np.ndarray) -> list[Flaw]:
    return [found.flaw for found in inspect_image(image, Modality.T1)]


# --- the list of flaws --------------------------------------------------------------------------


def test_every_flaw_is_on_the_page_with_its_severity() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (\w+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert rows == [(str(flaw), str(flaw.severity)) for flaw in Flaw]


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    text = PAGE.read_text("utf-8")
    for words in (
        f"{SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm",
        f"{FIELD_MM[1]:g} mm",
        f"{FIELD_MM[0]:g} mm",
        f"{FEWEST_SLICES} voxels",
    ):
        assert words in text


def test_a_flawed_scan_comes_back_whole_from_a_worker_process() -> None:
    error = FlawedScanError(Flaw.SPACING, "Wrong", expected=1, found=2, hint="do this")
    error.where = "a/b"
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is FlawedScanError
    assert back.flaw is Flaw.SPACING
    assert str(back) == str(error)


def test_a_finding_has_the_severity_of_its_flaw() -> None:
    assert finding(Flaw.TWO_PLACES, "x").severity is Severity.HELD
    assert finding(Flaw.NORMALISED, "x").severity is Severity.WARNING


# --- images -------------------------------------------------------------------------------------


def test_a_magnitude_image_has_no_flaw() -> None:
    assert flaws(np.abs(300 * brain() + 20 * noise()).astype(np.float32)) == []


@pytest.mark.parametrize("background", [0.0, -3.6, -7.0])
def test_an_image_z_scored_within_the_brain_is_recognised(background: float) -> None:
    assert flaws(np.where(brain(), 1.4 * noise(), np.float32(background))) == [Flaw.NORMALISED]


def test_a_whole_volume_that_was_z_scored_is_recognised() -> None:
    image = np.abs(300 * brain() + 20 * noise())
    assert flaws(((image - image.mean()) / image.std()).astype(np.float32)) == [Flaw.NORMALISED]


def test_the_undershoot_of_splines_is_said() -> None:
    image = sitk.GetImageFromArray((300 * brain()).astype(np.float32))
    grid = [2 * n for n in image.GetSize()]
    fine = sitk.Resample(image, grid, sitk.Transform(), sitk.sitkBSpline, (0, 0, 0), (0.5,) * 3)
    assert flaws(sitk.GetArrayFromImage(fine)) == [Flaw.UNDERSHOOT]


def test_noise_about_zero_in_large_units_is_refused() -> None:
    with pytest.raises(FlawedScanError) as caught:
        inspect_image(1000 * noise(), Modality.T1)
    assert caught.value.flaw is Flaw.NEGATIVE


def test_an_image_of_few_values_is_held() -> None:
    assert flaws(brain().astype(np.float32) + (noise() > 0)) == [Flaw.FEW_VALUES]
    assert Flaw.FEW_VALUES.severity is Severity.HELD


# --- tumours ------------------------------------------------------------------------------------


def a_phantom(seed: int = 1, scanner: Scanner | None = None):  # type: ignore[no-untyped-def]
    made = make_phantom(np.random.default_rng(seed), scanner or Scanner())
    return {m: image.astype(np.float32) for m, image in made.images.items()}, made.label


def found_in(images, label, protocol: LabelProtocol) -> set[Flaw]:  # type: ignore[no-untyped-def]
    return {found.flaw for found in inspect_tumour(images, label, protocol)}


@pytest.mark.parametrize("site", CONSORTIUM, ids=lambda site: site.name)
def test_phantoms_give_no_false_alarm(site) -> None:  # type: ignore[no-untyped-def]
    for seed in range(5):
        images, label = a_phantom(seed, site.scanner)
        assert found_in(images, label, LabelProtocol.BRATS2017) == set()


def test_oedema_and_enhancing_tumour_under_each_others_value_are_seen() -> None:
    images, label = a_phantom()
    wrong = np.choose(label, [0, 1, 3, 0, 2]).astype(np.uint8)  # oedema 3, enhancing 2
    assert Flaw.OEDEMA_ENHANCES in found_in(images, wrong, LabelProtocol.BRATS2023)


def test_t1_in_place_of_flair_is_seen() -> None:
    images, label = a_phantom()
    swapped = {**images, Modality.FLAIR: images[Modality.T1]}
    assert found_in(swapped, label, LabelProtocol.BRATS2017) == {Flaw.TUMOUR_DARK}


def test_t1_and_t1ce_swapped_are_seen() -> None:
    images, label = a_phantom()
    swapped = {
        **images,
        Modality.T1: images[Modality.T1CE],
        Modality.T1CE: images[Modality.T1],
    }
    assert Flaw.CONTRAST_SWAPPED in found_in(swapped, label, LabelProtocol.BRATS2017)


def test_enhancing_tumour_that_is_dark_in_t1ce_is_seen() -> None:
    images, label = a_phantom()
    dark = {Modality.T1CE: np.where(label == 4, 1, images[Modality.T1CE]).astype(np.float32)}
    assert Flaw.ENHANCING_DARK in found_in(dark, label, LabelProtocol.BRATS2017)


def test_the_means_are_those_of_the_tissues() -> None:
    label = np.zeros(SHAPE, np.uint8)
    label[6:10, 16:24, 16:24] = 2
    label[7:9, 18:22, 18:22] = 3
    label[7:9, 19:21, 19:21] = 1
    values = np.select([label == 2, label == 3, label == 1], [150, 300, 50], 100)
    image = np.where(brain(), values, 0).astype(np.float32) + np.float32(0.01) * noise()
    rows = tissue_means({Modality.T1CE: image}, label, LabelProtocol.BRATS2023, brain=brain())
    means = {row.tissue: (round(row.mean), row.n_voxels) for row in rows}
    whole = label > 0
    assert means == {
        None: (100, int((brain() & ~whole).sum())),
        Tissue.TUMOUR: (round(float(values[whole].mean())), int(whole.sum())),
        Tissue.OEDEMA: (150, int((label == 2).sum())),
        Tissue.ENHANCING: (300, int((label == 3).sum())),
        Tissue.CORE: (50, 8),
    }
    assert [row.contrast > 0 for row in rows[1:]] == [row.mean > 100 for row in rows[1:]]


def test_tissues_that_the_protocol_does_not_tell_apart_are_left_out() -> None:
    images, label = a_phantom()
    rows = tissue_means(images, (label > 0).astype(np.uint8), LabelProtocol.WHOLE_TUMOUR)
    assert {row.tissue for row in rows} == {None, Tissue.TUMOUR}


def test_an_empty_label_and_an_empty_brain_have_nothing_to_judge() -> None:
    images, label = a_phantom()
    assert found_in(images, np.zeros_like(label), LabelProtocol.BRATS2017) == set()
    nowhere = np.zeros(label.shape, bool)
    assert tissue_means(images, label, LabelProtocol.BRATS2017, brain=nowhere) == ()
    assert inspect_means(()) == []


def test_a_volume_of_brats_is_inspected_in_half_a_second() -> None:
    random = np.random.default_rng(0)
    image = random.normal(0, 1, (155, 240, 240)).astype(np.float32)
    label = np.zeros(image.shape, np.uint8)
    label[60:90, 100:140, 100:140] = 4
    seconds = []
    for _ in range(3):
        start = time.process_time()
        inspect_image(image, Modality.FLAIR)
        inspect_tumour({Modality.FLAIR: image}, label, LabelProtocol.BRATS2017)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.5


# --- real scans ---------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs ../shared/data")
def test_real_tumours_give_no_false_alarm() -> None:
    cases = sorted((SHARED_DATA / "lgg-sites").glob("*/*/"))
    assert len(cases) >= 68
    for folder in cases:
        paths = {m: folder / f"{folder.name}_{m}.nii.gz" for m in Modality}
        images = {
            m: sitk.GetArrayFromImage(read_image(ScanFile(path), m).image)
            for m, path in paths.items()
            if path.exists()
        }
        file = ScanFile(folder / f"{folder.name}_seg.nii.gz")
        label = sitk.GetArrayFromImage(read_label(file, LabelProtocol.WHOLE_TUMOUR).image)
        assert inspect_tumour(images, label, LabelProtocol.WHOLE_TUMOUR) == [], folder


@pytest.mark.real
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs ../shared/data")
def test_a_real_label_under_a_wrong_protocol_is_seen() -> None:
    for folder in sorted((SHARED_DATA / "deepmedic-brats2013").glob("*/*/")):
        images = {
            m: sitk.GetArrayFromImage(
                read_image(ScanFile(folder / f"{name}_subtrMeanDivStd.nii.gz"), m).image
            )
            for m, name in ((Modality.FLAIR, "Flair"), (Modality.T1CE, "T1c"))
        }
        file = ScanFile(folder / "OTMultiClass.nii.gz")
        label = sitk.GetArrayFromImage(read_label(file, LabelProtocol.BRATS2012).image)
        assert inspect_tumour(images, label, LabelProtocol.BRATS2012) == [], folder
        # Oedema and enhancing tumour under each other's value.
        wrong = np.choose(label, [0, 1, 4, 3, 2]).astype(np.uint8)
        assert Flaw.OEDEMA_ENHANCES in {
            found.flaw for found in inspect_tumour(images, wrong, LabelProtocol.BRATS2012)
        }
