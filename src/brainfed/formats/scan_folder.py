"""Folders of scans as the BraTS challenges hand them out: a folder per case, named files in it.

Files are `<case>_t1`, `_t1ce` (or `_t1gd`), `_t2`, `_flair`, `_seg` (BraTS 2017 to 2021, and
`lgg-sites`), or `<case>-t1n`, `-t1c`, `-t2w`, `-t2f`, `-seg` (BraTS 2023 and later), as `.nii` or
`.nii.gz`, where `<case>` is the folder's name; capitals don't matter.

Patient and visit follow from the folder's name:

* `BraTS-GLI-00005-100`, as in BraTS 2023 and later: patient `BraTS-GLI-00005`, visit 100;
* `Brats18_TCIA02_606_1`, as in BraTS 2017 to 2019: patient `Brats18_TCIA02_606`, visit 1;
* `sub-004_ses-02`, as BIDS names them: patient `sub-004`, visit 2;
* any other name, `FeTS2022_01341` among them: one patient a folder, visit 1.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from brainfed.errors import ScanError
from brainfed.formats.found_case import LABEL, WHOLE_CASE, FoundCase, LeftOver, ScanFile
from brainfed.formats.modality_names import modality_named
from brainfed.formats.scan import ENDINGS
from brainfed.plan import Modality

OTHER_ENDINGS = (".mhd", ".mha", ".nrrd", ".nhdr", ".img", ".hdr", ".mgz", ".mgh", ".mnc")
"""Images of other kinds: worth a word, never read."""

_VISITS = (
    re.compile(r"(?P<patient>BraTS-[A-Za-z]+-\d+)-(?P<visit>\d{3})", re.ASCII),
    re.compile(r"(?P<patient>Brats1[789]_[^_]+_[^_]+)_(?P<visit>\d+)", re.ASCII | re.IGNORECASE),
    re.compile(r"(?P<patient>sub-[A-Za-z0-9]+)_ses-(?P<visit>[A-Za-z0-9]+)", re.ASCII),
)
# BraTS 2020's `BraTS20_Training_001` must not become patient `BraTS20_Training`: years 17 to 19
# have the site between, and a fourth part.


def patient_and_visit(name: str) -> tuple[str, str]:
    """Patient and visit from a case's name, by the rules above."""
    for pattern in _VISITS:
        match = pattern.fullmatch(name)
        if match:
            return match["patient"], plain_visit(match["visit"])
    return name, "1"


def plain_visit(visit: str) -> str:
    """A visit as we write it: a number without leading zeros, anything else as it is."""
    return str(int(visit)) if re.fullmatch("[0-9]+", visit) else visit


def find_cases(scans: Path) -> tuple[tuple[FoundCase, ...], tuple[LeftOver, ...]]:
    """A case for each folder in `scans`, by name, hidden ones left out; none is looked into deeper.

    Returns:
        The cases, complete or not, and the images that are named otherwise.

    Raises:
        ScanError: There is no such folder, it can't be read, or it holds no folder.
    """
    cases: list[FoundCase] = []
    left: list[LeftOver] = []
    for folder in _case_folders(scans):
        case, unnamed = find_case(folder)
        cases.append(case)
        left += unnamed
    return tuple(cases), tuple(left)


def _case_folders(scans: Path) -> list[Path]:
    try:
        inside = sorted(path for path in scans.iterdir() if not path.name.startswith("."))
        folders = [path for path in inside if path.is_dir()]
    except OSError as error:
        raise ScanError(
            "The folder of scans can't be read",
            found=error.strerror,
            where=scans,
            hint="name the folder that holds one folder per case: `brainfed check SCANS`",
        ) from error
    if not folders:
        loose = any(path.name.lower().endswith(ENDINGS) for path in inside)
        raise ScanError(
            "There is no case in this folder",
            expected="one folder per case",
            found=f"{len(inside)} files" if inside else "nothing",
            where=scans,
            hint="this may be a single case: name the folder above it"
            if loose
            else "name the folder that holds one folder per case: `brainfed check SCANS`",
        )
    return folders


def find_case(folder: Path) -> tuple[FoundCase, list[LeftOver]]:
    """What lies in one case folder, whatever a plan may want of it."""
    try:
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        files = [path for path in inside if path.is_file()]
    except OSError as error:
        doubt = f"The case folder can't be read: {error.strerror}"
        return _case(folder, {}, {WHOLE_CASE: doubt}), []
    if not files and any(path.is_dir() for path in inside):
        doubt = "No scan here: this folder holds folders; name it in place of the one above"
        return _case(folder, {}, {WHOLE_CASE: doubt}), []
    by_kind: dict[str, list[Path]] = {}
    left = []
    for path in files:
        kind = kind_of(path, folder.name)
        if kind is not None:
            by_kind.setdefault(kind, []).append(path)
        elif path.name.lower().endswith((*ENDINGS, *OTHER_ENDINGS)):
            left.append(LeftOver(str(path), _why_not(path)))
    doubts = {
        kind: several_files(kind, (path.name[len(folder.name) :] for path in paths))
        for kind, paths in by_kind.items()
        if len(paths) > 1
    }
    single = {kind: ScanFile(paths[0]) for kind, paths in by_kind.items() if len(paths) == 1}
    return _case(folder, single, doubts), left


def _case(folder: Path, files: dict[str, ScanFile], doubts: dict[str, str]) -> FoundCase:
    patient, visit = patient_and_visit(folder.name)
    return FoundCase(
        name=folder.name,
        patient=patient,
        visit=visit,
        folder=folder,
        images={m: files[m] for m in Modality if m in files},
        label=files.get(LABEL),
        doubts=doubts,
    )


def kind_of(path: Path, case: str) -> str | None:
    """The modality or `LABEL` by `<case>_<word>.nii.gz`; None for any other name."""
    name, case = path.name.lower(), case.lower()
    ending = next((ending for ending in ENDINGS if name.endswith(ending)), None)
    if ending is None or not name.startswith((f"{case}_", f"{case}-")):
        return None
    word = name[len(case) + 1 : -len(ending)]
    if word == LABEL:
        return LABEL
    return modality_named(word) if word.isalnum() else None


def _why_not(path: Path) -> str:
    if not path.name.lower().endswith(ENDINGS):
        return "not NIfTI: only .nii and .nii.gz are read"
    return (
        "not named as its folder with _t1, _t1ce, _t2, _flair or _seg behind; cases.csv can name it"
    )


def several_files(kind: str, names: Iterable[str]) -> str:
    """The doubt about a modality or label with more than one file; `names` hold no patient."""
    listed = sorted(names)
    number = "Two" if len(listed) == 2 else str(len(listed))
    return printable(f"{number} files for {kind}: {', '.join(listed)}")


def add_doubt(doubts: dict[str, str], key: str, sentence: str) -> None:
    """Put one more sentence under a key of `FoundCase.doubts`; one that is there already stays."""
    before = doubts.get(key)
    if before is None:
        doubts[key] = sentence
    elif sentence not in before:
        doubts[key] = f"{before}; {sentence}"


def printable(text: str) -> str:
    """The text with line ends and other unprintable characters written as ASCII escapes.

    A folder's name is any bytes; on a screen it could otherwise move the cursor or fake a line.
    """
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
