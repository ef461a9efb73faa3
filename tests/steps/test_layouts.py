"""The same two visits in every layout of NIfTI files become the same cases."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from brainfed.core.labels import LabelProtocol, region_mask
from brainfed.formats import dataset, identities
from brainfed.formats.case_file import Case
from brainfed.plan import Modality, Region
from brainfed.steps.preprocess import Wish, preprocess_folder
from tests import bad_scans
from tests.builders import a_plan

PLAN = a_plan(
    scans={"required": ("t1ce", "flair"), "regions": ("WT", "TC", "ET")},
    grid={"size": (64, 64)},
    cohort={"treatment": "any", "minimum_age_years": 0},
)
SEEDS = (1, 2)
_IN_MSD = np.array([0, 2, 1, 0, 3], np.uint8)
"""Values of brats2017 (1 core, 2 oedema, 4 enhancing) as MSD has them."""


def voxels(seed: int, modality: str) -> np.ndarray:
    return bad_scans.voxels(10 * seed + (modality == "flair"))


def label(seed: int) -> np.ndarray:
    values = bad_scans.label()
    values[0, 0, : 1 + seed] = 2  # no two labels alike
    return values


def put(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bad_scans.nifti(array))
    return path


def brats(scans: Path) -> Path:
    for seed in SEEDS:
        case = f"BraTS-GLI-00001-10{seed}"
        put(scans / case / f"{case}-t1c.nii", voxels(seed, "t1ce"))
        put(scans / case / f"{case}-t2f.nii", voxels(seed, "flair"))
        put(scans / case / f"{case}-seg.nii", label(seed))
    return scans


def fets(scans: Path) -> Path:
    rows = ["SubjectID,Timepoint,T1GD,T2FLAIR,Segmentation"]
    for seed in SEEDS:
        kinds = [("c", voxels(seed, "t1ce")), ("f", voxels(seed, "flair")), ("s", label(seed))]
        files = [put(scans / f"{seed}" / f"{kind}.nii", array) for kind, array in kinds]
        rows.append(",".join(["P1", f"2008.03.{seed}0", *map(str, files)]))
    (scans / "cases.csv").write_text("\n".join(rows))
    return scans


def msd(scans: Path) -> Path:
    pairs = []
    for seed in SEEDS:
        image = f"imagesTr/sub-1_ses-{seed}.nii"
        both = np.stack([voxels(seed, "flair"), voxels(seed, "t1ce")])
        put(scans / image, both)
        put(scans / image.replace("images", "labels"), _IN_MSD[label(seed)])
        pairs.append({"image": f"./{image}", "label": f"./{image.replace('images', 'labels')}"})
    about = {
        "modality": {"0": "FLAIR", "1": "T1gd"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor"}
        | {"3": "enhancing tumour"},
        "training": pairs,
    }
    (scans / "dataset.json").write_text(json.dumps(about))
    return scans


def nnunet(scans: Path) -> Path:
    for seed in SEEDS:
        case = f"Brats18_TCIA02_1_{seed}"
        put(scans / "imagesTr" / f"{case}_0000.nii", voxels(seed, "t1ce"))
        put(scans / "imagesTr" / f"{case}_0001.nii", voxels(seed, "flair"))
        put(scans / "labelsTr" / f"{case}.nii", label(seed))
    about = {"channel_names": {"0": "T1ce", "1": "FLAIR"}, "labels": {"background": 0, "x": 1}}
    (scans / "dataset.json").write_text(json.dumps(about))
    return scans


def bids(scans: Path) -> Path:
    for seed in SEEDS:
        name = f"sub-1_ses-{seed}"
        anat = scans / "sub-1" / f"ses-{seed}" / "anat"
        put(anat / f"{name}_ce-gadavist_T1w.nii", voxels(seed, "t1ce"))
        put(anat / f"{name}_acq-3d_run-1_FLAIR.nii", voxels(seed, "flair"))
        (anat / f"{name}_acq-3d_run-1_FLAIR.json").write_text("{}")
        put(
            scans
            / "derivatives"
            / "manual"
            / anat.relative_to(scans)
            / f"{name}_label-tumor_mask.nii",
            label(seed),
        )
    return scans


def cases_of(data: Path) -> list[Case]:
    """By the order of their visits."""
    known = identities.open_or_new(data)
    entries = sorted(dataset.read_index(data), key=lambda entry: known.visits[entry.id])
    return [dataset.read_case(dataset.case_path(data, e.id), e.digest) for e in entries]


@pytest.mark.parametrize("lay_out", [brats, fets, msd, nnunet, bids])
def test_every_layout_gives_the_same_cases_of_one_patient(
    tmp_path: Path, lay_out: Callable[[Path], Path]
) -> None:
    brats(tmp_path / "as-brats")
    wish = Wish(protocol=LabelProtocol.BRATS2017)
    preprocess_folder(tmp_path / "expected", tmp_path / "as-brats", PLAN, wish)
    scans = lay_out(tmp_path / "scans")
    before = {path: path.read_bytes() for path in scans.rglob("*") if path.is_file()}

    preprocess_folder(tmp_path / "data", scans, PLAN, wish)

    expected, found = cases_of(tmp_path / "expected"), cases_of(tmp_path / "data")
    assert len(expected) == len(found) == len(SEEDS)
    assert len({case.patient for case in found}) == 1
    for wanted, case in zip(expected, found, strict=True):
        np.testing.assert_array_equal(case.image, wanted.image)
        assert case.present == (True,) * len(case.present)
        assert case.protocol is (LabelProtocol.MSD if lay_out is msd else wish.protocol)
        for region in Region:
            np.testing.assert_array_equal(
                region_mask(case.label, case.protocol, region),
                region_mask(wanted.label, wanted.protocol, region),
            )
    assert {path: path.read_bytes() for path in before} == before
    assert not list((tmp_path / "data").rglob("*FLAIR*"))


def test_the_two_modalities_differ_so_that_a_swap_would_show() -> None:
    assert PLAN.scans.modalities == (Modality.T1CE, Modality.FLAIR)
    assert not np.array_equal(voxels(1, "t1ce"), voxels(1, "flair"))
