"""Cells of a table that people open in a spreadsheet: values to text and back.

Spreadsheets take some text for something else: `=2+5` for a formula, `007` for the number 7, `1-2`
for a day. Such text is written with an apostrophe before it, and a cell that begins with an
apostrophe is read as the text behind it, letter for letter; any other is read without the spaces
around it.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from brainfed.formats.found_case import ScanFile
from brainfed.formats.scan import ENDINGS
from brainfed.formats.scan_folder import printable

MAX_AGE_YEARS = 120

_TEXT = "'"
_FORMULA = ("=", "+", "-", "@", _TEXT)
_SAFE_NAME = re.compile(r"(?:0|[1-9][0-9]{0,8}|[^\W\d].*)", re.DOTALL)
"""A name that no spreadsheet changes: a small number, or one that begins with a letter."""
_BY_SPREADSHEET = re.compile(r"[0-9]+([.,][0-9]+)?[eE]\+[0-9]+|#[A-Z0-9/]+[!?]?")
"""A long number as a spreadsheet rewrites it, and what it puts in place of a wrong formula."""
_UID = re.compile(r"[0-2](\.[0-9]+)+")
_TRUE, _FALSE = ("yes", "true", "1"), ("no", "false", "0")

E = TypeVar("E", bound=StrEnum)


class WrongCellError(Exception):
    """A cell can't mean what its column asks for; ends up as a doubt of the case, never further."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}, found {found}")


def guarded(text: str) -> str:
    """The cell for this text, so that no spreadsheet takes it for a formula."""
    return _TEXT + text if text.startswith(_FORMULA) or text != text.strip() else text


def guarded_name(name: str) -> str:
    """The cell for a name, so that no spreadsheet takes it for a formula, a number or a day."""
    return guarded(name) if _SAFE_NAME.fullmatch(name) else _TEXT + name


def text_of(cell: str) -> str:
    """The text that a cell stands for."""
    stripped = cell.strip()
    return stripped if cell[:1] != _TEXT else cell[1:]


def from_scan(scan: ScanFile | None) -> str:
    """The cell for a scan; a relative path is written from the root, as it is from here."""
    if scan is None:
        return ""
    return guarded(str(ScanFile(scan.path.absolute(), scan.volume, scan.series)))


def from_value(value: StrEnum | int | None) -> str:
    """The cell for a word, a number, or yes and no; empty where nobody has answered."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def is_rewritten(cell: str) -> bool:
    """Whether a spreadsheet has put this in place of a name; behind an apostrophe it never does."""
    return _BY_SPREADSHEET.fullmatch(cell.strip()) is not None


def to_scan(text: str, folder: Path) -> ScanFile:
    """The scan at a path, a relative one taken from `folder`."""
    before, sign, behind = text.rpartition("#")
    if sign and _UID.fullmatch(behind):
        return ScanFile(folder / before, series=behind)
    is_volume = bool(sign) and re.fullmatch(r"[0-9]{1,4}", behind) is not None
    path = folder / (before if is_volume else text)
    if not path.name.lower().endswith(ENDINGS):
        kind = (
            f"a {path.suffix} file" if re.fullmatch(r"\.\w{1,5}", path.suffix) else "another name"
        )
        raise WrongCellError("a .nii or .nii.gz file, or folder#SeriesInstanceUID", kind)
    return ScanFile(path, volume=int(behind) if is_volume else None)


def to_word(kind: type[E], *, besides: tuple[E, ...] = ()) -> Callable[[str], E]:
    """Reads one of the words of a closed list, `besides` left out; capitals don't matter."""

    def read(text: str) -> E:
        word = re.sub(r"[ _]", "-", text.lower())
        allowed = [member for member in kind if member not in besides]
        if word not in allowed:
            raise WrongCellError(" or ".join(allowed), shown(text))
        return kind(word)

    return read


def to_age(text: str) -> int:
    """Whole years."""
    if not re.fullmatch(r"[0-9]{1,3}", text) or int(text) > MAX_AGE_YEARS:
        raise WrongCellError(f"whole years, 0 to {MAX_AGE_YEARS}", shown(text))
    return int(text)


def to_truth(text: str) -> bool:
    """Yes or no."""
    if text.lower() not in _TRUE + _FALSE:
        raise WrongCellError("yes or no", shown(text))
    return text.lower() in _TRUE


def shown(text: str) -> str:
    """The text for a message, cut to a length that fits one."""
    return printable(text if len(text) <= 40 else f"{text[:40]}...")
