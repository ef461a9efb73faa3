"""Small, honest test data: plans, heads, cases and folders of scans, made by functions."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813

from brainfed import plan as plans
from brainfed.core.labels import LabelProtocol
from brainfed.core.volume import Geometry, to_image
from brainfed.formats import dataset, identities
from brainfed.formats.case_file import IDENTITY, Native, Quality
from brainfed.formats.dataset import Case, CaseEntry, Index, Source, SplitFile, Subset, Verdict
from brainfed.plan import Plan

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Real scans; tests that need them skip where they are absent."""


def a_plan(**changes: Any) -> Plan:
    """A plan that trains in a blink: two levels of 4 and 8 channels, 32 x 32 pixels, floor 1.

    Weights travel in the clear, since encryption gives other bytes each time.

    A change names a top-level key or table; of a table, only the named keys change:
    `a_plan(rounds=3, scans={"required": ("t1", "flair")})`.
    """
    content: dict[str, Any] = {
        "name": "test",
        "seed": 1,
        "rounds": 2,
        "scans": {"required": ("flair",)},
        "grid": {"size": (32, 32)},
        "network": {"channels": (4, 8)},
        "training": {"batch": 4},
        "participation": {"floor": 1},
        "exchange": {"encryption": "off"},
    }
    for key, value in changes.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, Mapping) else value
    return Plan.model_validate(content)


def a_geometry(
    shape: tuple[int, int, int] = (6, 40, 40), spacing_mm: tuple[float, float, float] = (3, 2, 2)
) -> Geometry:
    """The geometry of an array `(z, y, x)` with this spacing `(z, y, x)`, axes along LPS."""
    return Geometry(
        size=(shape[2], shape[1], shape[0]),
        spacing_mm=(spacing_mm[2], spacing_mm[1], spacing_mm[0]),
        origin_mm=(-10.0, 5.0, 2.0),
        direction=(1, 0, 0, 0, 1, 0, 0, 0, 1),
    )


def a_label(
    shape: tuple[int, int, int] = (6, 40, 40),
    *,
    tumour_radius_mm: float = 12,
    spacing_mm: tuple[float, float, float] = (3, 2, 2),
    centre_mm: tuple[float, float, float] = (0, 0, 0),
) -> npt.NDArray[np.uint8]:
    """A ball of tumour beside the middle: oedema 2, around a rim 4, around a core 1 (brats2017)."""
    away = [
        (np.arange(n) - (n - 1) / 2) * step - shift
        for n, step, shift in zip(shape, spacing_mm, centre_mm, strict=True)
    ]
    z, y, x = np.meshgrid(*away, indexing="ij")
    distance = np.sqrt(z**2 + y**2 + x**2)
    label = np.zeros(shape, np.uint8)
    if tumour_radius_mm > 0:
        label[distance <= tumour_radius_mm] = 2
        label[distance <= 0.7 * tumour_radius_mm] = 4
        label[distance <= 0.4 * tumour_radius_mm] = 1
    return label


def a_head(
    shape: tuple[int, int, int] = (6, 40, 40),
    *,
    tumour_radius_mm: float = 12,
    seed: int = 0,
    modalities: tuple[str, ...] = ("flair",),
    centre_mm: tuple[float, float, float] = (0, 0, 0),
) -> tuple[dict[str, npt.NDArray[np.float32]], npt.NDArray[np.uint8]]:
    """A skull-stripped disc of brain with a bright ball in it: the modalities and the label."""
    random = np.random.default_rng(seed)
    label = a_label(shape, tumour_radius_mm=tumour_radius_mm, centre_mm=centre_mm)
    y, x = np.meshgrid(np.linspace(-1, 1, shape[1]), np.linspace(-1, 1, shape[2]), indexing="ij")
    brain = np.broadcast_to(y**2 + x**2 < 0.8, shape)
    images = {}
    for modality in modalities:
        image = 100 + 10 * random.standard_normal(shape) + 60 * (label > 0)
        images[modality] = np.where(brain, image, 0).astype(np.float32)
    return images, label


def a_case(
    plan: Plan | None = None,
    *,
    name: str = "one",
    tumour_radius_mm: float = 12,
    n_slices: int = 6,
    seed: int = 0,
) -> Case:
    """A finished case on the plan's grid, ids hashed from the name without a key."""
    plan = plan or a_plan()
    shape = (n_slices, *plan.grid.size)
    modalities = tuple(str(m) for m in plan.scans.modalities)
    images, label = a_head(
        shape, tumour_radius_mm=tumour_radius_mm, seed=seed, modalities=modalities
    )
    image = np.stack([images[m] for m in modalities])
    brain = image[0] > 0
    geometry = a_geometry(shape)
    return Case(
        id=_hash(f"case {name}")[:16],
        patient=_hash(f"patient {name}")[:16],
        image=np.where(brain, (image - 110) / 30, 0).astype(np.float16),
        label=label,
        brain_mask=brain,
        protocol=LabelProtocol.BRATS2017,
        label_origin=None,
        spacing_mm=(3.0, 2.0, 2.0),
        spacing_nominal=False,
        present=tuple(True for _ in modalities),
        data_digest=plans.data_digest(plan),
        natives=tuple(Native(geometry, IDENTITY) for _ in modalities),
        geometry=geometry,
        quality=Quality(
            verdict=Verdict.OK,
            findings=(),
            tumour_lost_fraction=0.0,
            tumour_outside_brain_fraction=0.0,
            brain_lost_fraction=0.0,
        ),
        source=Source(
            digest=_hash(f"source {name} {seed}"),
            scan_digests=(_hash(f"scan {name} {seed}"),),
            recipe=_hash("recipe"),
        ),
    )


def write_dataset(
    data_folder: Path,
    plan: Plan | None = None,
    *,
    n_train: int = 3,
    n_validation: int = 2,
    n_test: int = 1,
    n_slices: int = 6,
) -> tuple[CaseEntry, ...]:
    """A site's finished data: cases of growing tumours, their index, identities and split."""
    plan = plan or a_plan()
    (data_folder / "cases").mkdir(parents=True)
    subsets = [Subset.TRAIN] * n_train + [Subset.VALIDATION] * n_validation + [Subset.TEST] * n_test
    entries, assignments = [], {}
    for number, subset in enumerate(subsets):
        case = a_case(
            plan,
            name=f"patient {number}",
            tumour_radius_mm=10 + number,
            n_slices=n_slices,
            seed=number,
        )
        digest = dataset.write_case(dataset.case_path(data_folder, case.id), case)
        entries.append(dataset.entry_of(case, digest))
        assignments[case.patient] = subset
    entries.sort(key=lambda entry: entry.id)
    dataset.write_index(
        data_folder, Index(data_digest=plans.data_digest(plan), cases=tuple(entries))
    )
    split = SplitFile(rule=plan.split.rule, seed=plan.seed, assignments=assignments)
    dataset.write_split(data_folder, split)
    identities.write(data_folder, identities.Identities(key=bytes(32)))
    return tuple(entries)


def write_nifti(path: Path, array: npt.NDArray[Any], geometry: Geometry | None = None) -> None:
    """Write an array `(z, y, x)` as NIfTI."""
    image = to_image(array, geometry or a_geometry(array.shape))
    sitk.WriteImage(image, str(path), useCompression=path.name.endswith(".gz"))


def write_case_folder(
    scans: Path,
    name: str,
    *,
    modalities: tuple[str, ...] = ("t1", "t1ce", "t2", "flair"),
    tumour_radius_mm: float = 12,
    seed: int = 0,
    shape: tuple[int, int, int] = (6, 40, 40),
    ending: str = ".nii.gz",
) -> Path:
    """A folder of scans as BraTS 2017 to 2021 names them; gives the folder."""
    folder = scans / name
    folder.mkdir(parents=True)
    images, label = a_head(
        shape,
        tumour_radius_mm=tumour_radius_mm,
        seed=seed,
        modalities=modalities,
        centre_mm=(0, 2 * (seed % 5), 0),  # no two cases may have one and the same label
    )
    for modality in modalities:
        write_nifti(folder / f"{name}_{modality}{ending}", images[modality])
    write_nifti(folder / f"{name}_seg{ending}", label)
    return folder


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
