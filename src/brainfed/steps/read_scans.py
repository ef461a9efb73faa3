"""The scans of one case as images in memory: converted where they are DICOM, checked, turned."""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call, no-any-return"

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from brainfed.core import series, slice_stack, volume
from brainfed.core.flaws import IN_MILLIMETRES, Finding
from brainfed.core.labels import LabelProtocol
from brainfed.core.volume import Geometry, geometry_of, turned
from brainfed.errors import ScanError
from brainfed.formats import (
    cache,
    dcm2niix,
    dicom,
    dicom_elements,
    dicom_header,
    dicom_series,
    nifti,
    scan,
)
from brainfed.formats.cache import CaseCache
from brainfed.formats.found_case import LABEL, FoundCase, ScanFile
from brainfed.formats.scan import Scan
from brainfed.plan import Modality

BRAIN_MASK = "brain-mask"
CONVERTS = (
    *(dicom, dicom_elements, dicom_header, dicom_series, dcm2niix),
    *(series, slice_stack, volume),
)
"""The code that makes a NIfTI file of a DICOM series and checks it."""


@dataclass(frozen=True, slots=True)
class Scans:
    """What was read of one case, axes along LPS."""

    images: Mapping[Modality, Scan]
    label: Scan | None
    brain_mask: Scan | None
    """The site's own mask, on the grid of one of the images."""
    findings: tuple[Finding, ...] = ()
    remarks: tuple[str, ...] = ()
    """What the conversion had to say."""
    spacing_nominal: bool = False
    """Whether the spacing in the headers is a convention, so that no distance is known."""


def read_scans(
    found: FoundCase,
    modalities: Sequence[Modality],
    *,
    others: Sequence[Modality] = (),
    protocol: LabelProtocol | None,
    kept: CaseCache,
) -> Scans:
    """Read what there is of a case.

    Args:
        found: The case.
        modalities: Those to read; a missing one is passed over.
        others: One of these is read too, if the label or the brain mask lies on its grid alone.
        protocol: What the label's values mean; without one the label isn't read.
        kept: Where what was converted from DICOM is kept.

    Raises:
        ScanError: A scan can't be trusted (`core.inspection`, `formats.nifti`, `formats.dicom`),
            two modalities are one image, or there is none.
        NotReadyError: DICOM, and no converter is installed.
    """
    remarks: list[str] = []

    def read(modality: Modality) -> Scan:
        file = _as_nifti(str(modality), found.images[modality], kept, remarks)
        return _turned(scan.read_image(file, modality))

    images = {modality: read(modality) for modality in modalities if modality in found.images}
    if not images:
        raise ScanError(
            "The case has no scan that the plan takes",
            expected=" or ".join(str(modality) for modality in modalities),
            hint="complete the case, or leave it out with --skip-incomplete",
        )
    label = mask = None
    if found.label is not None and protocol is not None:
        file = _as_nifti(LABEL, found.label, kept, remarks)
        label = _turned(scan.read_label(file, protocol))
    if found.brain_mask is not None:
        file = _as_nifti(BRAIN_MASK, found.brain_mask, kept, remarks)
        mask = _turned(scan.read_mask(file))
    for drawn in (label, mask):
        _add_its_grid(images, drawn, (m for m in others if m in found.images), read)
    _refuse_same_image(images)
    there = [one for one in (*images.values(), label, mask) if one is not None]
    return Scans(
        images=images,
        label=label,
        brain_mask=mask,
        findings=tuple(
            said
            for said in _each_once(there)
            if not (found.spacing_nominal and said.flaw in IN_MILLIMETRES)
        ),
        remarks=tuple(remarks),
        spacing_nominal=bool(found.spacing_nominal),
    )


def _each_once(there: Iterable[Scan]) -> tuple[Finding, ...]:
    """All findings; what a label shares with its image, a small grid above all, is said once."""
    said: dict[str, Finding] = {}
    for read in there:
        for finding in read.findings:
            said.setdefault(f"{finding.words} {finding.modality or ''}", finding)
    of_images = {finding.words for finding in said.values() if finding.modality}
    return tuple(f for f in said.values() if f.modality or f.words not in of_images)


def _add_its_grid(
    images: dict[Modality, Scan],
    drawn: Scan | None,
    others: Iterable[Modality],
    read: Callable[[Modality], Scan],
) -> None:
    """Add the scan that a label or mask was drawn on, if the plan takes another modality."""
    if drawn is None or any(_share_grid(drawn, image) for image in images.values()):
        return
    for modality in others:
        image = read(modality)
        if _share_grid(drawn, image):
            images[modality] = image
            return


def _share_grid(one: Scan, other: Scan) -> bool:
    return one.geometry.difference(other.geometry) is None


def fitting_grids(
    geometry: Geometry, images: Mapping[Modality, Scan], reference: Modality
) -> list[Modality]:
    """The scans whose grid this is, the reference first."""
    order = sorted(images, key=lambda modality: modality is not reference)
    return [m for m in order if images[m].geometry.difference(geometry) is None]


def stray(what: str, read: Scan, images: Mapping[Modality, Scan], reference: Modality) -> ScanError:
    """The error for a label or mask that lies on the grid of no scan."""
    return ScanError(
        f"The {what} lies on the grid of none of the case's scans",
        expected="the grid of " + " or ".join(str(modality) for modality in images),
        found=read.geometry.difference(images[reference].geometry),
        hint=f"export the {what} on the grid of the scan that it was made on",
    )


def identity_of(read: Scan) -> str:
    """What a scan is to a cache: its voxels and where they lie."""
    return f"{read.voxel_digest} {read.geometry}"


def distinctive(scans: Scans) -> tuple[str, ...]:
    """Digests that no other case may share: all but those of a label without tumour and a mask."""
    there = [*scans.images.values(), *([scans.label] if scans.label else [])]
    return tuple(sorted(read.voxel_digest for read in there if not read.is_blank))


def digest_of_files(found: FoundCase, modalities: Iterable[Modality]) -> str:
    """SHA-256 (hexadecimal) over the bytes of all files of a case, each with what it is.

    Raises:
        ScanError: One can't be read.
    """
    digest = hashlib.sha256()
    for kind, file in _files(found, modalities):
        digest.update(f"{kind} {_file_digest(file)}\n".encode())
    return digest.hexdigest()


def _files(found: FoundCase, modalities: Iterable[Modality]) -> Iterator[tuple[str, ScanFile]]:
    for modality in modalities:
        if modality in found.images:
            yield str(modality), found.images[modality]
    if found.label is not None:
        yield LABEL, found.label
    if found.brain_mask is not None:
        yield BRAIN_MASK, found.brain_mask


def _file_digest(file: ScanFile) -> str:
    if file.series is not None:
        parts = [f"{nifti.digest_of_file(path)}\n" for path in dicom.files_of(file)]
        return hashlib.sha256("".join(parts).encode()).hexdigest()
    content = nifti.digest_of_file(file.path)
    return content if file.volume is None else f"{content} {file.volume}"


def _as_nifti(step: str, file: ScanFile, kept: CaseCache, remarks: list[str]) -> ScanFile:
    """The file itself, or what dcm2niix made of the series, now or in an earlier command."""
    if file.series is None:
        return file
    step, step_key = (
        f"convert-{step}",
        cache.key(
            source=_file_digest(file),
            converter=dicom.converter_version(),
            code=cache.code_digest(*CONVERTS, libraries=("pydicom",)),
        ),
    )
    path = kept.path(step, step_key, "nii.gz")
    said = kept.fetch(f"{step}-remarks", step_key)
    if said is None or not path.exists():
        kept.make()
        said = "\n".join(dicom.convert(file, path)).encode()
        kept.forget_others(step, path)
        kept.store(f"{step}-remarks", step_key, said)
    remarks += said.decode().splitlines()
    return ScanFile(path)


def _turned(read: Scan) -> Scan:
    image = turned(read.image)
    return replace(read, image=image, geometry=geometry_of(image), stored=read.geometry)


def _refuse_same_image(images: Mapping[Modality, Scan]) -> None:
    uses = Counter(read.voxel_digest for read in images.values())
    same = [str(m) for m, read in images.items() if uses[read.voxel_digest] > 1]
    if same:
        raise ScanError(
            f"{' and '.join(same)} are one and the same image",
            expected="an image of its own for each modality",
            hint="remove the file that is under a wrong name",
        )
