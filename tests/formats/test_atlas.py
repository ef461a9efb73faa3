import hashlib
import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from brainfed.core.volume import geometry_of
from brainfed.errors import NotReadyError, ScanError
from brainfed.formats import atlas
from brainfed.plan import Preparation
from tests.builders import SHARED_DATA, a_geometry, write_nifti


def an_atlas(folder: Path, seed: int = 0) -> Path:
    """A ball of brain before a black background, with its digest to be had by `preparation`."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in (20, 30, 30)], indexing="ij")
    noise = np.random.default_rng(seed).integers(90, 110, (20, 30, 30))
    path = folder / "brain.nii.gz"
    write_nifti(
        path,
        np.where(z**2 + y**2 + x**2 < 0.7, noise, 0).astype(np.int16),
        a_geometry((20, 30, 30), (8, 6, 6)),
    )
    return path


def preparation(path: Path) -> Preparation:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Preparation(space="atlas", atlas="brain.nii.gz", atlas_sha256=digest, brain="classical")


def test_an_atlas_is_given_once_and_then_found(tmp_path: Path) -> None:
    path = an_atlas(tmp_path)
    wanted, data = preparation(path), tmp_path / "data"
    with pytest.raises(NotReadyError, match="not here yet") as caught:
        atlas.find(data, wanted)
    assert "--atlas" in (caught.value.hint or "")
    atlas.lay_down(data, path, wanted)
    atlas.lay_down(data, path, wanted)  # again does no harm
    found = atlas.find(data, wanted)
    assert found == data / "atlas" / "brain.nii.gz"
    read = atlas.read(found)
    values = sitk.GetArrayFromImage(read.image)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read.brain_mask), values > 0)
    assert geometry_of(read.image) == geometry_of(read.brain_mask)


def test_another_file_is_refused_when_given_and_when_found(tmp_path: Path) -> None:
    path = an_atlas(tmp_path)
    wanted, data = preparation(path), tmp_path / "data"
    atlas.lay_down(data, path, wanted)
    an_atlas(tmp_path, seed=1)
    with pytest.raises(ScanError, match="not the plan's atlas"):
        atlas.lay_down(tmp_path / "other", path, wanted)
    assert not (tmp_path / "other").exists()
    (data / "atlas" / "brain.nii.gz").write_bytes(path.read_bytes())
    with pytest.raises(ScanError, match="not the plan's atlas"):
        atlas.find(data, wanted)


def test_a_plan_without_an_atlas_takes_none(tmp_path: Path) -> None:
    path = an_atlas(tmp_path)
    assert atlas.find(tmp_path, Preparation()) is None
    assert atlas.find(tmp_path, Preparation(space="reference")) is None
    with pytest.raises(ScanError, match="takes no atlas file"):
        atlas.lay_down(tmp_path, path, Preparation(space="reference"))


def test_a_whole_head_is_no_atlas(tmp_path: Path) -> None:
    path = tmp_path / "head.nii.gz"
    noise = np.random.default_rng(0).integers(1, 300, (20, 30, 30)).astype(np.int16)
    noise[0, 0, 0] = 0
    write_nifti(path, noise, a_geometry((20, 30, 30), (8, 6, 6)))
    with pytest.raises(ScanError, match="not skull-stripped"):
        atlas.read(path)


def test_the_template_of_nilearn_is_found_by_its_digest(tmp_path: Path) -> None:
    try:
        importlib.metadata.version("nilearn")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("nilearn is not installed (extra [atlas])")
    found = atlas.find(tmp_path, Preparation(space="mni152", brain="classical"))
    assert found is not None
    read = atlas.read(found)
    assert read.image.GetSize() == (197, 233, 189)
    assert read.digest == atlas.MNI152_SHA256
    voxel_ml = 0.001
    assert 1500 < sitk.GetArrayFromImage(read.brain_mask).sum() * voxel_ml < 2200


def test_without_nilearn_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(NotReadyError) as caught:
        atlas.find(tmp_path, Preparation(space="mni152", brain="classical"))
    assert "brainfed[atlas]" in (caught.value.hint or "")


@pytest.mark.real
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs ../shared/data")
def test_sri24_is_an_atlas() -> None:
    read = atlas.read(SHARED_DATA / "sri24" / "spgr.nii.gz")
    assert read.image.GetSize() == (240, 240, 155)
    assert 1200 < sitk.GetArrayFromImage(read.brain_mask).sum() / 1000 < 1800
