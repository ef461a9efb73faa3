"""The page of a report: one HTML file that needs nothing else (`docs/formats/report-page.md`).

A page is sections of blocks: text, tables, charts, pictures. What stands in them comes from files
and is escaped by the template; only the charts, which brainfed draws itself, are markup. The page
holds no script and no address, and its policy forbids the browser to fetch anything.
"""

import base64
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

from brainfed.errors import ConflictError, UsageError
from brainfed.formats import atomic

FIRST_LINE = "For research only. Not a medical device."
PATIENT_IMAGES = "Contains patient images: must not leave the site"
PATIENT_FIGURES = "Contains figures of single patients: must not leave the site"
N_TINTS = 10
"""Steps of the background behind a share, from 0 to 1."""
_MARK = b"<!DOCTYPE html>\n<!-- a report of brainfed -->\n"
"""What every page begins with, and no other file: only such a file is replaced."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table."""

    text: str
    small: str = ""
    """Second line, in small print."""
    share: float | None = None
    """Tints the background: 0 to 1, the more the better."""
    is_worst: bool = False
    """Marked, and said so in words."""

    @property
    def tint(self) -> int | None:
        """Which of the `N_TINTS` backgrounds."""
        return None if self.share is None else min(int(self.share * N_TINTS), N_TINTS - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under headers; the first cell of a row is its header."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    note: str = ""
    is_prose: bool = False
    """Sentences rather than numbers: the columns give way on a narrow screen."""
    is_folded: bool = False
    """Closed until the reader opens it; printed all the same."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing of `core.charts`."""

    kind: ClassVar[str] = "chart"
    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG file."""

    kind: ClassVar[str] = "picture"
    png: bytes
    alt: str
    caption: str

    @property
    def source(self) -> str:
        """The whole file as an address inside the page."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values."""

    kind: ClassVar[str] = "facts"
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """A list of sentences."""

    kind: ClassVar[str] = "items"
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """Charts or pictures side by side, where there is room."""

    kind: ClassVar[str] = "row"
    blocks: tuple[Chart | Picture, ...]


Block = Table | Chart | Picture | Facts | Text | Items | Row


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The whole page."""

    title: str
    lead: str
    """Below the title: who, which federation, which day."""
    banner: str = ""
    """Above all, and on every printed sheet: what must not happen with the page."""
    sections: tuple[Section, ...]
    foot: str


def render(page: Page) -> bytes:
    """The page as bytes; the same page gives the same bytes."""
    style = (resources.files("brainfed.formats") / "report_page.css").read_text("utf-8")
    text: str = _template().render(page=page, first_line=FIRST_LINE, style=style)
    return _MARK + text.encode("utf-8", "backslashreplace")


@functools.cache
def _template() -> Any:
    """The template, compiled once a process."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("brainfed", "formats"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report_page.html")


def write(path: Path, page: Page, *, is_private: bool) -> None:
    """Write the page, in place of an older one of brainfed's.

    Args:
        path: Where; not in an outbox.
        page: The page.
        is_private: Whether it is for the people of this party alone.

    Raises:
        UsageError: The path lies in an outbox, from where files leave.
        ConflictError: Another file is there, which is never overwritten.
        ResourceError: The disk refuses.
    """
    if "outbox" in path.resolve().parts:
        raise UsageError(
            "A report must not lie in an outbox: it is no signed file",
            where=path,
            hint="write it to another folder, and hand it over yourself",
        )
    if path.exists() and not _is_ours(path):
        raise ConflictError(
            "Another file is there already, and is never overwritten",
            expected="no file, or an older report",
            where=path,
            hint="give another name with --out",
        )
    atomic.make_folder(path.absolute().parent)
    atomic.write_bytes(path, render(page), mode=0o600 if is_private else 0o644, replace=True)


def _is_ours(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(_MARK)) == _MARK
