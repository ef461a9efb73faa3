"""Folders with a `dataset.json`: the Medical Segmentation Decathlon's, and nnU-Net's raw data.

MSD: `training` lists pairs of image and label, an image is 4-D, `modality` names its volumes. The
order of the volumes is read from there. nnU-Net: `imagesTr/<case>_0000.nii.gz` and so on, one file
a channel, `channel_names` (before version 2 `modality`) names them; `labelsTr/<case>.nii.gz`. What
a label's values mean is known where `labels` says of each what MSD says: protocol `msd`.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from brainfed.core.labels import LabelProtocol
from brainfed.errors import ScanError
from brainfed.formats.found_case import LABEL, WHOLE_CASE, FoundCase, LeftOver, ScanFile
from brainfed.formats.modality_names import modality_named
from brainfed.formats.scan import ENDINGS
from brainfed.formats.scan_folder import patient_and_visit, printable, several_files
from brainfed.plan import Modality

FILE_NAME = "dataset.json"
IMAGES, LABELS, TEST_IMAGES = "imagesTr", "labelsTr", "imagesTs"
MAX_BYTES = 2**24

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>[0-9]{4})")
_CSV_HINT = "name the files of each case in a cases.csv, and preprocess that"
# Antonelli et al. 2022, Task01_BrainTumour: 1 edema, 2 non-enhancing tumor, 3 enhancing tumour.
_MSD_LABELS = {"1": r"o?edema", "2": r"non.?enhancing.*", "3": r"enhancing.*"}


def is_here(folder: Path) -> bool:
    """Whether the folder is one of these, by what lies in it."""
    return (folder / FILE_NAME).is_file() and (folder / IMAGES).is_dir()


def find_cases(folder: Path) -> tuple[tuple[FoundCase, ...], tuple[LeftOver, ...]]:
    """The training cases of the folder, by name.

    Returns:
        The cases, and the images and channels that are part of none.

    Raises:
        ScanError: `dataset.json` can't be read or understood, or names no modality that we know.
    """
    dataset = _read(folder / FILE_NAME)
    words = _channel_words(dataset, folder / FILE_NAME)
    channels = _modalities(words, folder / FILE_NAME)
    protocol = _protocol(dataset.get("labels"))
    names = _images_in(folder)
    if _is_decathlon(folder, dataset):
        cases = _msd_cases(folder, dataset, channels, protocol, is_4d=len(words) > 1)
    else:
        cases = [
            _nnunet_case(folder, case, files, channels, protocol)
            for case, files in sorted(_by_case(names).items())
        ]
    if not cases:
        raise ScanError(
            "There is no training case here",
            expected=f"images in {IMAGES}, as {FILE_NAME} says",
            found=f"{len(names)} images in {IMAGES}",
            where=folder,
            hint=_CSV_HINT,
        )
    used = {scan.path.name for case in cases for scan in case.images.values()}
    doubted = {case.name for case in cases if case.doubts}
    left = [
        LeftOver(str(folder / IMAGES / name), f"part of no case, by its name and {FILE_NAME}")
        for name in names
        if name not in used and _case_of(name) not in doubted
    ]
    if (folder / TEST_IMAGES).is_dir():
        left.append(LeftOver(str(folder / TEST_IMAGES), "test images have no label"))
    return tuple(cases), tuple(left)


def _images_in(folder: Path) -> list[str]:
    try:
        inside = [path.name for path in (folder / IMAGES).iterdir() if path.is_file()]
    except OSError as error:
        raise ScanError(
            f"The folder {IMAGES} can't be read", found=error.strerror, where=folder
        ) from error
    return sorted(name for name in inside if name.endswith(ENDINGS) and not name.startswith("."))


def _is_decathlon(folder: Path, dataset: Mapping[str, Any]) -> bool:
    """Whether the images lie under the names in the list; nnU-Net 1 lists too, but adds _0000."""
    pairs = dataset.get("training")
    if "channel_names" in dataset or not isinstance(pairs, list):
        return False
    named = [pair.get("image") for pair in pairs if isinstance(pair, dict)]
    return any(_is_file(folder / name) for name in named if isinstance(name, str)) or not any(
        _CHANNEL.fullmatch(_stem(name)) for name in _images_in(folder)
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ScanError(f"{FILE_NAME} can't be read", found=error.strerror, where=path) from error
    try:
        if len(data) > MAX_BYTES:
            raise ValueError("more than 16 MiB")
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _not_understood("a JSON file", error, path) from None
    if not isinstance(content, dict):
        raise _not_understood("an object", type(content).__name__, path)
    return content


def _not_understood(expected: str, found: object, where: Path) -> ScanError:
    return ScanError(
        f"{FILE_NAME} can't be understood",
        expected=expected,
        found=printable(str(found)),
        where=where,
        hint=_CSV_HINT,
    )


def _channel_words(dataset: Mapping[str, Any], where: Path) -> dict[int, str]:
    """What the file calls each channel, by number."""
    words = dataset.get("channel_names", dataset.get("modality"))
    expected = 'channel_names or modality, such as {"0": "FLAIR", "1": "T1w"}'
    if not isinstance(words, dict) or not words:
        raise _not_understood(expected, "none", where)
    if not all(re.fullmatch("[0-9]{1,4}", n) and isinstance(w, str) for n, w in words.items()):
        raise _not_understood(expected, words, where)
    return {int(number): word for number, word in words.items()}


def _modalities(words: Mapping[int, str], where: Path) -> dict[int, Modality]:
    named = {number: modality_named(word) for number, word in words.items()}
    known = {number: modality for number, modality in named.items() if modality is not None}
    if not known or len(set(known.values())) != len(known):
        raise _not_understood(
            f"each of {', '.join(Modality)} at most once, and one at least",
            ", ".join(words.values()),
            where,
        )
    return known


def _protocol(labels: object) -> LabelProtocol | None:
    """`msd` where the file says of 1, 2 and 3 what MSD says; the values alone tell nothing."""
    if not isinstance(labels, dict):
        return None
    # nnU-Net 2 turned the object round: {"edema": 1} for {"1": "edema"}.
    meaning = {str(value): key for key, value in labels.items() if type(value) is int} or {
        str(key): value for key, value in labels.items()
    }
    if {value for value in meaning if value != "0"} != set(_MSD_LABELS):
        return None
    fits = all(
        isinstance(meaning[value], str) and re.fullmatch(words, meaning[value].strip().lower())
        for value, words in _MSD_LABELS.items()
    )
    return LabelProtocol.MSD if fits else None


def _by_case(names: list[str]) -> dict[str, dict[int, list[str]]]:
    """File names of nnU-Net by case and channel."""
    cases: dict[str, dict[int, list[str]]] = {}
    for name in names:
        match = _CHANNEL.fullmatch(_stem(name))
        if match:
            cases.setdefault(match["case"], {}).setdefault(int(match["channel"]), []).append(name)
    return cases


def _case_of(name: str) -> str:
    match = _CHANNEL.fullmatch(_stem(name))
    return match["case"] if match else _stem(name)


def _stem(name: str) -> str:
    ending = next((ending for ending in ENDINGS if name.endswith(ending)), "")
    return name[: len(name) - len(ending)]


def _nnunet_case(
    folder: Path,
    name: str,
    files: Mapping[int, list[str]],
    channels: Mapping[int, Modality],
    protocol: LabelProtocol | None,
) -> FoundCase:
    images, doubts = {}, {}
    for channel, modality in channels.items():
        found = files.get(channel, [])
        if len(found) > 1:
            doubts[str(modality)] = several_files(modality, (f[len(name) :] for f in found))
        elif found:
            images[modality] = ScanFile(folder / IMAGES / found[0])
    labels = [folder / LABELS / f"{name}{ending}" for ending in ENDINGS]
    labels = [path for path in labels if path.is_file()]
    if len(labels) > 1:
        doubts[LABEL] = several_files(LABEL, (path.name[len(name) :] for path in labels))
    patient, visit = patient_and_visit(name)
    return FoundCase(
        name=name,
        patient=patient,
        visit=visit,
        folder=folder / IMAGES,
        images={m: images[m] for m in Modality if m in images},
        label=ScanFile(labels[0]) if len(labels) == 1 else None,
        protocol=protocol,
        doubts=doubts,
    )


def _msd_cases(
    folder: Path,
    dataset: Mapping[str, Any],
    channels: Mapping[int, Modality],
    protocol: LabelProtocol | None,
    *,
    is_4d: bool,
) -> list[FoundCase]:
    where = folder / FILE_NAME
    pairs = dataset.get("training")
    expected = (
        'training: a list of {"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz"}'
    )
    if not isinstance(pairs, list):
        raise _not_understood(expected, type(pairs).__name__, where)
    volumes = {modality: number if is_4d else None for number, modality in channels.items()}
    cases: dict[str, FoundCase] = {}
    for pair in pairs:
        if not isinstance(pair, dict) or not {"image", "label"} <= set(pair):
            raise _not_understood(expected, "something else in the list", where)
        image = _inside(folder, pair["image"], where)
        label = _inside(folder, pair["label"], where)
        name = _stem(image.name)
        if name in cases:
            raise _not_understood("each training case once", "one listed twice", where)
        cases[name] = _msd_case(name, image, label, volumes, protocol)
    return [cases[name] for name in sorted(cases)]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, or a folder that may not be looked into
        return False


def _inside(folder: Path, name: object, where: Path) -> Path:
    """The file of a list; one that leads out of the folder is none of this data set's."""
    # A name that isn't valid text can't be a file's; it would end the hashing of names.
    is_text = isinstance(name, str) and name.isprintable()
    path = PurePosixPath(str(name))
    if not is_text or path.is_absolute() or ".." in path.parts or not path.name:
        raise _not_understood("paths inside the folder", "another path", where)
    return folder / path


def _msd_case(
    name: str,
    image: Path,
    label: Path,
    volumes: Mapping[Modality, int | None],
    protocol: LabelProtocol | None,
) -> FoundCase:
    doubts = {}
    if not _is_file(image):
        doubts[WHOLE_CASE] = f"{FILE_NAME} lists an image that isn't there"
    if not _is_file(label):
        doubts[LABEL] = f"{FILE_NAME} lists a label that isn't there"
    patient, visit = patient_and_visit(name)
    return FoundCase(
        name=name,
        patient=patient,
        visit=visit,
        folder=image.parent,
        images={m: ScanFile(image, volume=volumes[m]) for m in Modality if m in volumes},
        label=ScanFile(label),
        protocol=protocol,
        doubts=doubts,
    )
