"""Folders in the layout of BIDS: `sub-<label>[/ses-<label>]/anat/..._<suffix>.nii.gz`.

A session is a case. `T1w` with a `ce-` (contrast-enhancing agent) is T1ce, without one T1; `T2w`
and `FLAIR` are what they say. Two images of one modality in a session (another `acq`, `rec`, `run`)
are a doubt: nobody but the site knows which is the right one. Labels and brain masks come from
`derivatives`, images never do. Sidecars (`.json`) are neither read nor copied; of
`participants.tsv`, the age alone is read.

Source: Brain Imaging Data Structure 1.10, https://bids-specification.readthedocs.io
"""

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from brainfed.errors import ScanError
from brainfed.formats.cells import MAX_AGE_YEARS
from brainfed.formats.found_case import LABEL, WHOLE_CASE, FoundCase, LeftOver, ScanFile
from brainfed.formats.scan import ENDINGS
from brainfed.formats.scan_folder import add_doubt, plain_visit, printable, several_files
from brainfed.plan import Modality

DESCRIPTION = "dataset_description.json"
PARTICIPANTS = "participants.tsv"
DERIVATIVES = "derivatives"
MAX_BYTES = 2**24

_NAME = re.compile(
    r"(?P<entities>sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9+]+)*)_(?P<suffix>[A-Za-z0-9]+)"
)
_SUFFIXES = {"T1w": Modality.T1, "T2w": Modality.T2, "FLAIR": Modality.FLAIR}
_CONTRAST_WORD = re.compile(r"gad|gd|post|contrast|t1ce|t1c$|^ce|^km", re.IGNORECASE)
_NO_CONTRAST_WORD = re.compile(r"no|none|non|pre|without|native", re.IGNORECASE)
_TUMOUR_WORD = re.compile(r"tumou?r|lesion|glioma|gbm", re.IGNORECASE)
_BRAIN_WORD = re.compile(r"brain", re.IGNORECASE)
_OWN_SPACES = ("T1w", "T2w", "FLAIR", "orig", "individual", "scanner", "native")


@dataclass(frozen=True, slots=True)
class _File:
    """A NIfTI file under a name that BIDS gives a meaning."""

    path: Path
    entities: Mapping[str, str]
    suffix: str

    @property
    def case(self) -> str:
        """The name of its case."""
        return _case_name(f"sub-{self.entities['sub']}", self.entities.get("ses"))

    @property
    def difference(self) -> str:
        """What tells it from others of its session and kind, without the patient."""
        further = [pair for pair in self.entities.items() if pair[0] not in ("sub", "ses")]
        ending = "".join(self.path.suffixes[-2:]) if self.path.name.endswith(".gz") else ".nii"
        return "_".join([*("-".join(pair) for pair in further), self.suffix]) + ending

    @property
    def about(self) -> str:
        """What it says that it outlines."""
        return f"{self.entities.get('label', '')} {self.entities.get('desc', '')}"

    @property
    def pipeline(self) -> str:
        """The folder below `derivatives` that it lies in, as a word of what made it."""
        parts = self.path.parts
        behind = len(parts) - parts[::-1].index(DERIVATIVES)
        return parts[behind] if not parts[behind].startswith("sub-") else ""

    @property
    def is_in_own_space(self) -> bool:
        """Whether it lies on the grid of an image of its session, as far as its name says."""
        return self.entities.get("space", "orig") in _OWN_SPACES


def is_here(folder: Path) -> bool:
    """Whether the folder is laid out so."""
    if (folder / DESCRIPTION).is_file():
        return True
    return any(_anat_folders(subject) for subject in _subjects(folder))


def find_cases(folder: Path) -> tuple[tuple[FoundCase, ...], tuple[LeftOver, ...]]:
    """A case for each session, or for each subject without sessions, by name.

    Returns:
        The cases, complete or not, and the images and tables that became no part of one.

    Raises:
        ScanError: The folder holds derived images, or no subject with an `anat` folder.
    """
    _refuse_derivative(folder)
    left: list[LeftOver] = []
    ages = _ages(folder / PARTICIPANTS, left)
    derived = _derived(folder / DERIVATIVES)
    cases = []
    for subject in _subjects(folder):
        anats = _anat_folders(subject)
        if not anats:
            left.append(LeftOver(str(subject), "no folder anat"))
        for anat in anats:
            session = None if anat.parent == subject else anat.parent.name.removeprefix("ses-")
            doubts: dict[str, str] = {}
            if session is None and len(anats) > 1:
                doubts[WHOLE_CASE] = "Images lie beside the sessions: of which visit are they?"
            images = _images(anat, subject.name, session, doubts, left)
            about = derived.get(_case_name(subject.name, session), [])
            label, mask = _label(about, doubts), _brain_mask(about)
            cases.append(
                FoundCase(
                    name=_case_name(subject.name, session),
                    patient=subject.name,
                    visit="1" if session is None else plain_visit(session),
                    folder=anat,
                    images=images,
                    label=label,
                    brain_mask=mask,
                    age_years=ages.get(subject.name),
                    doubts=doubts,
                )
            )
    if not cases:
        raise ScanError(
            "There is no case in this BIDS folder",
            expected="sub-<label>/anat or sub-<label>/ses-<label>/anat",
            found="no such folder",
            where=folder,
            hint="name the folder that holds the sub- folders",
        )
    return tuple(cases), tuple(left)


def _subjects(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("sub-*") if path.is_dir())


def _anat_folders(subject: Path) -> list[Path]:
    return sorted(path for path in subject.glob("anat") if path.is_dir()) + sorted(
        path for path in subject.glob("ses-*/anat") if path.is_dir()
    )


def _case_name(subject: str, session: str | None) -> str:
    return subject if session is None else f"{subject}_ses-{session}"


def _refuse_derivative(folder: Path) -> None:
    """Refuse a folder that says of itself that its images are derived."""
    try:
        with (folder / DESCRIPTION).open("rb") as stream:
            content = json.loads(stream.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return  # the file is for people, but for this one word
    if isinstance(content, dict) and content.get("DatasetType") == "derivative":
        raise ScanError(
            "This BIDS folder holds derived images",
            expected="original images: DatasetType raw",
            found="DatasetType derivative",
            where=folder / DESCRIPTION,
            hint="name the folder of the original images; if there is none, name the files of each "
            "case in a cases.csv and preprocess that",
        )


def _ages(path: Path, left: list[LeftOver]) -> dict[str, int]:
    """Age in whole years by subject; whatever isn't a number of years is nobody's answer."""
    ages = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for row in csv.DictReader(stream.read(MAX_BYTES).splitlines(), delimiter="\t"):
                subject, age = row.get("participant_id") or "", row.get("age") or ""
                # Some write 89+ for all above; the minimum age is all that is asked.
                if re.fullmatch(r"[0-9]{1,3}(\.[0-9]*)?\+?", age):
                    ages[f"sub-{subject.removeprefix('sub-')}"] = int(float(age.rstrip("+")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        left.append(LeftOver(str(path), f"no ages from it: {type(error).__name__}"))
        return {}
    return {subject: age for subject, age in ages.items() if age <= MAX_AGE_YEARS}


def _parse(path: Path) -> _File | None:
    ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), None)
    match = ending and _NAME.fullmatch(path.name[: -len(ending)])
    if not match:
        return None
    entities = dict(part.split("-", 1) for part in match["entities"].split("_"))
    return _File(path, entities, match["suffix"])


def _images(
    anat: Path,
    subject: str,
    session: str | None,
    doubts: dict[str, str],
    left: list[LeftOver],
) -> dict[Modality, ScanFile]:
    """The images of one session; what can't be told goes into `doubts`, the rest into `left`."""
    found: dict[Modality, list[_File]] = {}
    try:
        inside = sorted(anat.iterdir())
    except OSError as error:
        add_doubt(doubts, WHOLE_CASE, f"The folder anat can't be read: {error.strerror}")
        return {}
    for path in inside:
        if path.name.startswith(".") or not path.name.endswith(ENDINGS):
            continue
        file = _parse(path)
        reason = "not a name of BIDS" if file is None else _why_none(file)
        if file is None or reason is not None:
            left.append(LeftOver(str(path), reason or ""))
        elif file.case != _case_name(subject, session):
            words = (
                f"A file in its folder bears another subject's or session's name: {file.difference}"
            )
            add_doubt(doubts, WHOLE_CASE, words)
        elif not path.exists():
            words = f"{file.difference} is a link that leads nowhere; fetch it, as with datalad get"
            add_doubt(doubts, _SUFFIXES[file.suffix], words)
        elif _is_contrast_unsure(file):
            for modality in (Modality.T1, Modality.T1CE):
                words = f"{file.difference}: before or after contrast agent?"
                add_doubt(doubts, modality, words)
        else:
            found.setdefault(_modality(file), []).append(file)
    for modality, files in found.items():
        if len(files) > 1:
            names = (file.difference for file in files)
            add_doubt(doubts, modality, several_files(modality, names))
    return {m: ScanFile(found[m][0].path) for m in Modality if len(found.get(m, ())) == 1}


def _why_none(file: _File) -> str | None:
    """Why a file is no image for us; None for one that is."""
    if file.suffix not in _SUFFIXES:
        return f"{file.suffix} is none of {', '.join(_SUFFIXES)}"
    if file.entities.get("part", "mag") != "mag":
        return "not a magnitude image"
    return "derived or resampled" if {"desc", "space"} & set(file.entities) else None


def _modality(file: _File) -> Modality:
    if file.suffix == "T1w" and "ce" in file.entities:
        return Modality.T1CE
    return _SUFFIXES[file.suffix]


def _is_contrast_unsure(file: _File) -> bool:
    """Whether a T1w says one thing by its `ce` and another by its words."""
    if file.suffix != "T1w":
        return False
    if "ce" in file.entities:
        return _NO_CONTRAST_WORD.fullmatch(file.entities["ce"]) is not None
    return any(_CONTRAST_WORD.search(file.entities.get(key, "")) for key in ("acq", "rec"))


def _derived(folder: Path) -> dict[str, list[_File]]:
    """Segmentations and masks below `derivatives`, by case."""
    files: dict[str, list[_File]] = {}
    for path in sorted(folder.rglob("sub-*")):
        file = _parse(path)
        if file is not None and file.suffix in ("dseg", "mask") and path.is_file():
            files.setdefault(file.case, []).append(file)
    return files


def _label(files: list[_File], doubts: dict[str, str]) -> ScanFile | None:
    """The one file that says that it outlines the tumour, in the space of the case's images.

    A `dseg` that doesn't say so may be grey and white matter, with the same values 1, 2, 3.
    """
    candidates = [file for file in files if not _BRAIN_WORD.search(file.about)]
    tumour = [file for file in candidates if _TUMOUR_WORD.search(file.about + file.pipeline)]
    fitting = [file for file in tumour if file.is_in_own_space]
    if len(fitting) == 1:
        return ScanFile(fitting[0].path)
    if fitting:
        names = (f"{file.pipeline}/{file.difference}" for file in fitting)
        add_doubt(doubts, LABEL, several_files(LABEL, names))
    elif candidates:
        why = "lies in another space" if tumour else "doesn't say that it outlines the tumour"
        listed = ", ".join(f"{file.pipeline}/{file.difference}" for file in tumour or candidates)
        add_doubt(doubts, LABEL, printable(f"No label: {listed} {why}"))
    return None


def _brain_mask(files: list[_File]) -> ScanFile | None:
    """The one brain mask in the space of the case's images; with several, none."""
    masks = [
        file
        for file in files
        if file.suffix == "mask" and _BRAIN_WORD.search(file.about) and file.is_in_own_space
    ]
    return ScanFile(masks[0].path) if len(masks) == 1 else None
