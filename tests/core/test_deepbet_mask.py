from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from brainfed.core import deepbet_mask
from brainfed.errors import NotReadyError, ScanError

COLIN = Path(__file__).resolve().parents[3] / "shared" / "data" / "colin27"


@pytest.fixture
def installed() -> None:
    try:
        metadata.distribution("deepbet")
    except metadata.PackageNotFoundError:
        pytest.skip("deepbet is not installed (extra brain)")


def a_noisy_box() -> sitk.Image:
    noise = np.random.default_rng(0).normal(0, 1, (20, 24, 22)).astype(np.float32)
    return sitk.GetImageFromArray(noise)


def test_without_the_package_its_name_and_version_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(NotReadyError) as caught:
        deepbet_mask.brain(a_noisy_box())
    assert "pip install --no-deps deepbet==1.0.2" in str(caught.value.hint)


def test_weights_of_another_digest_are_refused_before_they_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bbox_model.pt"
    file.write_bytes(b"not the network")
    package = SimpleNamespace(locate_file=lambda name: tmp_path / Path(name).name)
    monkeypatch.setattr(metadata, "distribution", lambda name: package)
    with pytest.raises(NotReadyError) as caught:
        deepbet_mask.brain(a_noisy_box())
    assert caught.value.where == str(file)
    assert "--force-reinstall" in str(caught.value.hint)


def test_the_box_is_that_of_the_brain_with_a_tenth_on_each_side() -> None:
    found = np.zeros((128, 128, 128), np.bool_)
    found[32:96, 40:90, 64:128] = True
    x, y, z = deepbet_mask._box(found, (256, 128, 64))
    assert (x.start, x.stop) == (51, 205)
    assert (y.start, y.stop) == (35, 95)
    assert (z.start, z.stop) == (29, 64)


def test_where_the_network_finds_nothing_the_scan_is_refused() -> None:
    with pytest.raises(ScanError, match="no brain"):
        deepbet_mask._box(np.zeros((128, 128, 128), np.bool_), (30, 30, 30))


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("orientation", ["LPS", "PIR"])
def test_of_a_real_head_the_mask_agrees_with_bet(orientation: str) -> None:
    if not COLIN.is_dir():
        pytest.skip("../shared/data/colin27 is not here")
    head = sitk.DICOMOrient(sitk.ReadImage(str(COLIN / "ch2.nii.gz")), orientation)
    reference = sitk.DICOMOrient(sitk.ReadImage(str(COLIN / "ch2bet.nii.gz")), orientation) > 0
    mask = deepbet_mask.brain(head)
    assert mask.GetPixelID() == sitk.sitkUInt8
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(mask, reference)  # raises where the two aren't on one grid
    assert overlap.GetDiceCoefficient() >= 0.95
