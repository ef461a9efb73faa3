"""The quality page: what was made of each case, in pictures, for a person at the site to judge.

`data/quality/<case id>.json` holds a case's part, so that one case can be made again or erased by
itself; `data/quality.html` is all of them together, one file that needs nothing else: no script, no
style, no picture from elsewhere. Both show patients and are 0600; `docs/formats/quality-page.md`
describes them.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from html import escape
from importlib import resources
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from brainfed.errors import ScanError, UsageError
from brainfed.formats import atomic
from brainfed.formats.review import Verdict

HEADING = "Quality of the cases"
BANNER = "Contains patient images: must not leave the site"


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a case."""

    title: str
    png: bytes
    """A whole PNG file."""
    note: str = ""
    """What to look for, and how it was drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityEntry:
    """A case's part of the page."""

    case_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    name: str
    """Real name of the case."""
    patient: str | None = None
    """Real name of the patient, where it is another."""
    verdict: Verdict
    findings: tuple[str, ...] = ()
    """What is wrong or odd, in sentences, worst first."""
    facts: tuple[tuple[str, str], ...] = ()
    """What was measured: name, and value with its unit. The spacing being nominal, the caller gives
    no distance in mm and no volume."""
    pictures: tuple[Picture, ...] = ()

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", ser_json_bytes="base64", val_json_bytes="base64"
    )


_ENTRY = TypeAdapter(QualityEntry)


def page_path(data_folder: Path) -> Path:
    """Where the page lies."""
    return data_folder / "quality.html"


def entry_path(data_folder: Path, case_id: str) -> Path:
    """Where a case's part lies."""
    return data_folder / "quality" / f"{case_id}.json"


def write_entry(data_folder: Path, entry: QualityEntry) -> None:
    """Write a case's part, in place of an older one.

    Raises:
        ResourceError: The disk refuses.
    """
    path = entry_path(data_folder, entry.case_id)
    clean = replace(
        entry,
        name=_clean(entry.name),
        patient=None if entry.patient is None else _clean(entry.patient),
        findings=tuple(_clean(finding) for finding in entry.findings),
        facts=tuple((_clean(name), _clean(value)) for name, value in entry.facts),
    )
    atomic.make_folder(path.parent)
    atomic.write_bytes(path, _ENTRY.dump_json(clean) + b"\n", mode=0o600, replace=True)


def read_entry(data_folder: Path, case_id: str) -> QualityEntry | None:
    """A case's part; None where there is none.

    Raises:
        ScanError: It is damaged.
    """
    path = entry_path(data_folder, case_id)
    return _read(path) if path.exists() else None


def read_entries(data_folder: Path) -> tuple[QualityEntry, ...]:
    """The parts of all cases, in the order of their ids.

    Raises:
        ScanError: One is damaged.
    """
    return tuple(_read(path) for path in sorted((data_folder / "quality").glob("[!.]*.json")))


def erase(data_folder: Path, case_id: str) -> bool:
    """Remove a case's part, and write the page again without it; gives whether there was one.

    Raises:
        ScanError: The part of another case is damaged.
        ResourceError: The disk refuses.
    """
    path = entry_path(data_folder, case_id)
    was_there = path.exists()
    atomic.remove(path)
    if page_path(data_folder).exists():
        # Gone first: should the rest fail, no page still shows the case.
        atomic.remove(page_path(data_folder))
        write_page(page_path(data_folder), read_entries(data_folder))
    return was_there


def write_page(
    path: Path, entries: Iterable[QualityEntry], *, heading: str = HEADING, is_made: bool = True
) -> None:
    """Write the page, in place of an older one; worst cases first.

    Args:
        path: The page; never in an outbox.
        entries: The cases.
        heading: Stands at the top.
        is_made: Whether cases were made, so that there is something to decide; else the scans were
            only looked at.

    Raises:
        UsageError: The path lies in an outbox, from where files leave the site.
        ResourceError: The disk refuses.
    """
    if "outbox" in path.resolve().parts:
        raise UsageError(
            "The quality page shows patients and must not lie in an outbox",
            where=path,
            hint="write it to the folder data of the workspace",
        )
    ordered = sorted(entries, key=_order)
    with atomic.new_file(path, mode=0o600, replace=True) as stream:
        for part in _page(ordered, heading, _HOW if is_made else _HOW_FOUND):
            stream.write(part.encode("utf-8", "backslashreplace"))


def _read(path: Path) -> QualityEntry:
    try:
        return _ENTRY.validate_json(path.read_bytes(), strict=True)
    except OSError as error:
        raise ScanError(
            f"{path.name} can't be read",
            found=error.strerror,
            where=path,
            hint="check the path and who may read it, then run the command again",
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise ScanError(
            "A case's part of the quality page is damaged",
            expected=first["msg"],
            found=".".join(str(part) for part in first["loc"]),
            where=path,
            hint="remove the file and run `brainfed preprocess` again",
        ) from None


def _clean(text: str) -> str:
    """The text as UTF-8 can hold it: a file's name, as Linux gives it, need not be."""
    return text.encode("utf-8", "backslashreplace").decode()


def _order(entry: QualityEntry) -> tuple[int, int, str]:
    """Worst first."""
    return (-list(Verdict).index(entry.verdict), -len(entry.findings), entry.name)


def _page(entries: list[QualityEntry], heading: str, how: str) -> Iterator[str]:
    """The page in parts, so that the pictures of all cases are never one text in memory."""
    style = (resources.files("brainfed.formats") / "quality_page.css").read_text("utf-8")
    style_digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src 'sha256-{style_digest}'; base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="robots" content="noindex">\n'
        f"<title>{escape(heading)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f'<p class="banner" role="note">{BANNER}</p>\n<main>\n<h1>{escape(heading)}</h1>\n'
    )
    yield from _summary(entries, how)
    for entry in entries:
        yield from _section(entry)
    yield "</main>\n</body>\n</html>\n"


def _summary(entries: list[QualityEntry], how: str) -> Iterator[str]:
    counts = [f"{sum(entry.verdict is v for entry in entries)} {v}" for v in reversed(Verdict)]
    yield f'<p id="top">{len(entries)} cases: {", ".join(counts)}. Worst first.</p>\n{how}{_SIDES}'
    yield (
        '<div class="wide"><table>\n<caption>All cases</caption>\n<thead><tr><th scope="col">'
        'Verdict</th><th scope="col">Case</th><th scope="col">What was found</th></tr></thead>\n'
        "<tbody>\n"
    )
    for entry in entries:
        yield (
            f'<tr><td>{_badge(entry)}</td><th scope="row"><a href="#c{escape(entry.case_id)}">'
            f"<bdi>{escape(entry.name)}</bdi></a></th><td>{_list(entry.findings)}</td></tr>\n"
        )
    yield "</tbody>\n</table></div>\n"


def _section(entry: QualityEntry) -> Iterator[str]:
    case_id = escape(entry.case_id)
    yield (
        f'<section id="c{case_id}" aria-labelledby="h{case_id}">\n<h2 id="h{case_id}">'
        f"<bdi>{escape(entry.name)}</bdi> {_badge(entry)}</h2>\n<p>"
    )
    if entry.patient is not None:
        yield f"Patient <bdi>{escape(entry.patient)}</bdi>. "
    yield f'Case id {case_id}. <a href="#top">All cases</a></p>\n{_list(entry.findings)}'
    if entry.facts:
        rows = (
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
            for name, value in entry.facts
        )
        yield f"<dl>{''.join(rows)}</dl>\n"
    yield '<div class="pictures">\n'
    for picture in entry.pictures:
        code = base64.b64encode(picture.png).decode()
        note = f" {escape(picture.note)}" if picture.note else ""
        yield (
            f'<figure><img alt="{escape(picture.title)}, case {escape(entry.name)}" '
            f'src="data:image/png;base64,{code}"><figcaption><b>'
            f"{escape(picture.title)}.</b>{note}</figcaption></figure>\n"
        )
    yield "</div>\n</section>\n"


def _badge(entry: QualityEntry) -> str:
    word = "warnings" if entry.verdict is Verdict.OK and entry.findings else str(entry.verdict)
    return f'<span class="badge {word}">{word}</span>'


def _list(findings: Iterable[str]) -> str:
    rows = "".join(f"<li>{escape(finding)}</li>" for finding in findings)
    return f"<ul>{rows}</ul>\n" if rows else ""


_HOW = """<h2>How to decide</h2>
<ul>
<li><b>held</b>: the case was made, but is used only if you accept it. Look at it below; then write
<code>accept</code> into the column <code>decision</code> of its row in
<code>data/review.csv</code>, or type <code>brainfed review CASE --accept</code>.</li>
<li><b>ok</b>, <b>warnings</b>: the case is used, unless you write <code>reject</code>
(<code>brainfed review CASE --reject</code>). Any case may be rejected.</li>
<li><b>refused</b>: there is no case. Mend its scans, or correct its row in <code>cases.csv</code>,
and run <code>brainfed preprocess</code> again.</li>
<li>Then run <code>brainfed split</code>: it leaves out what is rejected, and what is held and not
accepted.</li>
</ul>
"""
_HOW_FOUND = """<h2>What it means</h2>
<ul>
<li>No case has been made yet, and there is nothing to accept or reject here.</li>
<li><b>refused</b>: <code>brainfed preprocess</code> would make no case of these scans. Mend them,
or correct their row in <code>cases.csv</code>.</li>
<li><b>held</b>: a case would be made, and used only once you have accepted it.</li>
<li><b>ok</b>, <b>warnings</b>: a case would be made and used.</li>
<li>The scans lie as their headers place them. Where the plan registers them they need not lie on
each other yet, and edges in the checkerboards may break off.</li>
</ul>
"""
_SIDES = """<p>Pictures follow the radiological convention: the patient's right is on the left of
the picture. Letters: R right, L left, A front, P back, S top, I bottom.</p>
"""
