"""Folders of scans as the BraTS challenges hand them out: a folder per case, named files in it.

Files are `<case>_t1`, `_t1ce` (or `_t1gd`), `_t2`, `_flair`, `_seg` (BraTS 2017 to 2021, and
`lgg-sites`), or `<case>-t1n`, `-t1c`, `-t2w`, `-t2f`, `-seg` (BraTS 2023 and later), as `.nii` or
`.nii.gz`, where `<case>` is the folder's name; capitals don't matter.

Patient and visit follow from the folder's name:

* `BraTS-GLI-00005-100`, as in BraTS 2023 and later: patient `BraTS-GLI-00005`, visit 100;
* `Brats18_TCIA02_606_1`, as in BraTS 2017 to 2019: patient `Brats18_TCIA02_606`, visit 1;
* any other name: one patient a folder, visit 1.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from brainfed.errors import ScanError
from brainfed.formats.scan import ENDINGS
from brainfed.plan import Modality, Scans

_TOKENS: dict[Modality, tuple[str, ...]] = {
    Modality.T1: ("t1", "t1n"),
    Modality.T1CE: ("t1ce", "t1gd", "t1c"),
    Modality.T2: ("t2", "t2w"),
    Modality.FLAIR: ("flair", "t2f"),
}
_VISITS = (
    re.compile(r"(?P<patient>BraTS-[A-Za-z]+-\d+)-(?P<visit>\d{3})", re.ASCII),
    re.compile(r"(?P<patient>Brats1[789]_[^_]+_[^_]+)_(?P<visit>\d+)", re.ASCII | re.IGNORECASE),
)
# BraTS 2020's `BraTS20_Training_001` must not become patient `BraTS20_Training`: years 17 to 19
# have the site between, and a fourth part.


@dataclass(frozen=True, slots=True)
class CaseFolder:
    """One folder of scans."""

    path: Path
    patient: str
    """Real name of the patient; stays at the site."""
    visit: int

    @property
    def name(self) -> str:
        """The folder's real name; stays at the site."""
        return self.path.name


@dataclass(frozen=True, slots=True)
class ScanFiles:
    """The files of one case that the plan takes."""

    images: Mapping[Modality, Path]
    label: Path


def patient_and_visit(name: str) -> tuple[str, int]:
    """Patient and visit from a folder's name, by the rules above."""
    for pattern in _VISITS:
        match = pattern.fullmatch(name)
        if match:
            return match["patient"], int(match["visit"])
    return name, 1


def list_case_folders(scans: Path) -> tuple[CaseFolder, ...]:
    """All folders in `scans`, by name, hidden ones left out.

    Raises:
        ScanError: There is no such folder, it can't be read, or it holds no folder.
    """
    try:
        inside = sorted(path for path in scans.iterdir() if not path.name.startswith("."))
        folders = [path for path in inside if path.is_dir()]
    except OSError as error:
        raise ScanError(
            "The folder of scans can't be read",
            found=error.strerror,
            where=scans,
            hint="name the folder that holds one folder per case",
        ) from error
    if not folders:
        loose = any(path.name.endswith(ENDINGS) for path in inside)
        raise ScanError(
            "There is no case in this folder",
            expected="one folder per case",
            found=f"{len(inside)} files" if inside else "nothing",
            where=scans,
            hint="this may be a single case: name the folder above it"
            if loose
            else "name the folder that holds one folder per case",
        )
    return tuple(CaseFolder(path, *patient_and_visit(path.name)) for path in folders)


def find_scans(folder: CaseFolder, scans: Scans) -> ScanFiles:
    """Find the label and the plan's modalities in a case folder; other files don't count.

    Raises:
        ScanError: The label or a required modality is missing, or one is there twice.
    """
    try:
        files = {path.name.lower(): path for path in folder.path.iterdir() if path.is_file()}
    except OSError as error:
        raise ScanError(
            "The case folder can't be read", found=error.strerror, where=folder.path
        ) from error
    images = {m: _find(folder, files, _TOKENS[m], m) for m in scans.modalities}
    label = _find(folder, files, ("seg",), "seg")
    missing = [str(m) for m in scans.required if images[m] is None]
    missing += [] if label else ["seg"]
    if missing or label is None:
        nested = not files and any(path.is_dir() for path in folder.path.iterdir())
        raise ScanError(
            f"Missing: {', '.join(missing)}",
            expected=f"<case>_{missing[0]}.nii.gz, where <case> is the name of its folder",
            found=f"{len(files)} files",
            where=folder.path,
            hint="this folder holds folders: name it in place of the one above"
            if nested
            else "complete the case, or leave it out with --skip-incomplete",
        )
    return ScanFiles({m: path for m, path in images.items() if path is not None}, label)


def _find(
    folder: CaseFolder, files: Mapping[str, Path], tokens: tuple[str, ...], kind: str
) -> Path | None:
    names = [
        f"{folder.name}{between}{token}{ending}".lower()
        for token in tokens
        for between in "_-"
        for ending in ENDINGS
    ]
    found = [files[name] for name in names if name in files]
    if len(found) > 1:
        raise ScanError(
            f"Two files for {kind}",
            expected="one",
            found=", ".join(path.name for path in found),
            where=folder.path,
            hint="leave the right one in the folder and move the other away",
        )
    return found[0] if found else None


def printable(text: str) -> str:
    """The text with line ends and other unprintable characters written as ASCII escapes.

    A folder's name is any bytes; on a screen it could otherwise move the cursor or fake a line.
    """
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
