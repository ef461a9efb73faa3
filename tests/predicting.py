"""A federation whose global weights outline what is bright, and somebody outside who has them."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from brainfed import plan as plans
from brainfed.core.volume import Geometry
from brainfed.formats import rounds
from brainfed.formats.signature import signature_path
from brainfed.plan import Plan
from brainfed.steps.admit import admit
from brainfed.steps.start import start_federation
from tests.builders import a_head, a_plan, write_nifti
from tests.federation import (
    TODAY,
    Small,
    an_unstarted_federation,
    enrolment_of,
    random_weights,
    say_yes,
)
from tests.thresholding import thresholding_weights

THRESHOLD = 1.8
OBLIQUE = Geometry(
    size=(40, 36, 12),
    spacing_mm=(2.0, 2.2, 4.0),
    origin_mm=(31.5, -22.25, 7.0),
    direction=(-0.8, 0.0, 0.6, 0.0, -1.0, 0.0, 0.6, 0.0, 0.8),
)
"""Neither along LPS nor of one spacing."""


@dataclass(frozen=True)
class Outsider:
    """Somebody who was given three files and the signatures of two."""

    folder: Path
    weights: Path
    start: Path
    small: Small


def an_outsider(root: Path, plan: Plan | None = None, *thresholds: float) -> Outsider:
    """A folder with global weights, start.json and their signatures, and nothing else."""
    plan = plan or a_plan()
    small = an_unstarted_federation(root / "federation")
    admit(small.coordinator, [enrolment_of(site) for site in small.sites.values()], confirm=say_yes)
    path = small.root / "plan.toml"
    path.write_text(plans.render(plan))

    def weights(plan: Plan) -> dict[str, np.ndarray]:
        if plan.network.n_dimensions == 0:
            return random_weights(plan, seed=1)
        return thresholding_weights(plan, *(thresholds or (THRESHOLD,)))

    start_federation(small.coordinator, path, initial_weights=weights, today=TODAY)
    folder = root / "given"
    folder.mkdir()
    found = rounds.global_path(small.coordinator, 0)
    assert found is not None
    start = small.coordinator.federation_folder / "start.json"
    for one in (found, start):
        shutil.copy(one, folder)
        shutil.copy(signature_path(one), folder)
    return Outsider(folder, folder / found.name, folder / "start.json", small)


def write_scans(
    scans: Path,
    name: str,
    geometry: Geometry,
    *,
    seed: int = 0,
    modalities: tuple[str, ...] = ("t1", "t1ce", "t2", "flair"),
) -> Path:
    """The images of one case, without a label, on this grid."""
    folder = scans / name
    folder.mkdir(parents=True)
    images, _ = a_head(geometry.size[::-1], seed=seed, modalities=modalities)
    for modality, image in images.items():
        write_nifti(folder / f"{name}_{modality}.nii.gz", image, geometry)
    return folder


def middle_mm(path: Path, above: float) -> np.ndarray:
    """Centre of mass of what is above a value, in the patient's space, by SimpleITK alone."""
    image = sitk.ReadImage(str(path))
    index = np.argwhere(sitk.GetArrayFromImage(image) > above)[:, ::-1].mean(axis=0)
    return np.array(image.TransformContinuousIndexToPhysicalPoint(index.tolist()))
