"""Write docs/review/fields.md and data-flow.svg from the code: `python docs/review/leaves.py`.

The kinds of files, their fields and who may sign them come from the code, the meaning of each field
from its page in `docs/formats/`, which a test holds against the code. `tests/docs/test_site.py`
compares the two files with what this makes.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from xml.sax.saxutils import escape

from brainfed.formats.document import Document
from brainfed.formats.manifest import Kind, Manifest
from brainfed.formats.roster import Role
from brainfed.formats.verify import SIGNERS
from brainfed.steps.gather import KINDS

FOLDER = Path(__file__).resolve().parent
FORMATS = FOLDER.parent / "formats"
NOTE = "<!-- Made by docs/review/leaves.py; don't edit. -->"
HEAD = """
# Every field that travels

brainfed exchanges two kinds of files: signed weight files and signed JSON. There is no third kind,
an unknown field is refused by every reader, and no field takes free text of a site. This page is
made from the code that writes and reads them. Where they go:

![Scans, cases, ids and keys stay in the hospital; signed files go to the coordinator and come
back.](data-flow.svg)

Besides these files travel:

* a signature (`.sig`) for each, which holds the signer's public key;
* an age envelope around weights, where they are [encrypted](../formats/encryption.md);
* a [packing list](../formats/packing-list.md) for people, made of the same facts.

Reports are carried by hand, by whoever wants to; the list of files says
[which of them show patients](../formats/README.md).
"""
LEAKAGE = """\
**No check of numbers proves that nothing of a patient can be drawn out of tensors**
([leakage through weights](../explanation/threats.md#leakage-through-weights)).
Beside them the file holds this manifest and [nothing else](../formats/weights.md):
"""
SITE_SIDE = {Role.SITE, Role.EVALUATOR, Role.APPROVER}
NOT_IN_A_ROSTER_YET = {
    "enrolment": "every party but the coordinator, with the key that it asks to be admitted",
    "roster": "the coordinator; with the recovery key where the coordinator's key is new",
    "start": "the coordinator",
}
"""Who signs the kinds that a roster can't vouch for."""
FROM_A_SITE = ("enrolment",)
WEIGHTS = {
    Kind.UPDATE: "The weights after a site's training of a round. The tensors are learned from its "
    "patients.",
    Kind.GLOBAL: "The mean of the updates of a round. The tensors are learned from the patients of "
    "all sites in it.",
    Kind.STATE: "What a rule of aggregation remembers from round to round. Computed from updates "
    "alone.",
}
STAYS = (
    "scans, with names and dates",
    "cases, masks, pictures",
    "case and patient ids, their key",
    "the split, single scores",
    "reports, release pages, logs",
    "private keys",
)


def main() -> None:
    """Write both files."""
    for name, text in made().items():
        (FOLDER / name).write_text(text, "utf-8")


def made() -> dict[str, str]:
    """The text of each file, by its name."""
    return {"fields.md": "\n".join(_page()).rstrip() + "\n", "data-flow.svg": picture()}


def leaves_a_site(kind: str) -> bool:
    """Whether a kind of signed JSON begins its way at a site or an evaluator."""
    return kind in FROM_A_SITE or bool(SIGNERS.get(KINDS[kind], frozenset()) & SITE_SIDE)


def _page() -> Iterator[str]:
    yield from [NOTE, HEAD, "## From a site", ""]
    yield from _weights(Kind.UPDATE)
    for kind in filter(leaves_a_site, KINDS):
        yield from _json(kind)
    yield from ["## From the coordinator", ""]
    yield from _weights(Kind.GLOBAL)
    yield from _weights(Kind.STATE)
    for kind in KINDS:
        if not leaves_a_site(kind):
            yield from _json(kind)


def _weights(kind: Kind) -> Iterator[str]:
    yield from [f"### {kind} weights", "", WEIGHTS[kind], ""]
    if kind is Kind.UPDATE:
        yield LEAKAGE
        yield from _tables(Manifest)
    else:
        yield from [f"Its manifest has the fields of [an update's](#{Kind.UPDATE}-weights).", ""]


def _json(kind: str) -> Iterator[str]:
    page = f"../formats/{kind}.md"
    yield from [
        f"### {kind}",
        "",
        f"Signed by {_signers(kind)}. [How it is read and refused]({page}).",
        "",
    ]
    yield from _tables(KINDS[kind])


def _signers(kind: str) -> str:
    if kind in NOT_IN_A_ROSTER_YET:
        return NOT_IN_A_ROSTER_YET[kind]
    roles = SIGNERS[KINDS[kind]]
    return " or ".join(f"the {role}" for role in Role if role in roles)


def _tables(kind: type[Document]) -> Iterator[str]:
    """The table of a kind, then those of the objects in it."""
    rows = meanings(kind)
    yield from ["| field | values | meaning |", "|---|---|---|"]
    yield from (f"| `{name}` | {rows[name][0]} | {rows[name][1]} |" for name in kind.model_fields)
    yield ""
    for name, field in kind.model_fields.items():
        for inner in _objects_in(field.annotation):
            yield from [f"Inside `{name}`:", ""]
            yield from _tables(inner)


def _objects_in(kind: Any) -> Iterator[type[Document]]:
    """The closed objects that a field of this type holds."""
    if isinstance(kind, type) and issubclass(kind, Document):
        yield kind
    for part in get_args(kind):
        yield from _objects_in(part)


def meanings(model: type[Document]) -> dict[str, tuple[str, str]]:
    """Values and meaning of each field, from the table of the model in `docs/formats/`.

    Raises:
        LookupError: No page has a table for this model.
    """
    mark = f"<!-- fields: {model.__module__}.{model.__name__} -->\n"
    for path in sorted(FORMATS.glob("*.md")):
        text = path.read_text("utf-8")
        if mark in text:
            table = text.split(mark, 1)[1].split("\n\n", 1)[0]
            rows = [
                [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
                for line in table.splitlines()[2:]
            ]
            return {
                row[0].strip("`"): (_moved(row[1], path.name), _moved(row[2], path.name))
                for row in rows
            }
    raise LookupError(mark)


def _moved(cell: str, page: str) -> str:
    """The links of a cell of a page of formats, as seen from this folder."""

    def from_here(link: re.Match[str]) -> str:
        target = f"{page}{link[1]}" if link[1].startswith("#") else link[1]
        way = target[3:] if target.startswith("../") else f"formats/{target}"
        return f"](../{way})"

    return re.sub(r"\]\(([^)]+)\)", from_here, cell)


def picture() -> str:
    """The way of the data, as SVG: what stays, and each kind of file on its side."""
    out = [f"{Kind.UPDATE} weights", *(kind for kind in KINDS if leaves_a_site(kind))]
    back = [f"{Kind.GLOBAL} weights", *(kind for kind in KINDS if not leaves_a_site(kind))]
    back.insert(1, f"{Kind.STATE} weights (kept, for an audit)")
    left, right, width, height = 250, 570, 860, 470
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"',
        '  font-family="sans-serif" font-size="14" fill="#111">',
        "<title>Which files brainfed carries, and which never leave a hospital</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *_box(10, 10, left - 10, height - 20, "A hospital"),
        _text(25, 70, "Never leaves:", bold=True),
        *(_text(25, 96 + 24 * i, line) for i, line in enumerate(STAYS)),
        _text(25, 270, "Leaves, signed:", bold=True),
        *(_text(25, 296 + 24 * i, line) for i, line in enumerate(out)),
        *_box(right, 10, width - right - 10, 300, "The coordinator"),
        _text(right + 15, 70, "Signs, for all sites:", bold=True),
        *(_text(right + 15, 96 + 24 * i, line) for i, line in enumerate(back)),
        *_box(right, 350, width - right - 10, 110, "An auditor, if any"),
        _text(right + 15, 405, "an archive of all signed files;"),
        _text(right + 15, 429, "it holds every update"),
        *_arrow(right, left, 120, "carried by hand, no network"),
        *_arrow(left, right, 290, "carried by hand, no network"),
        f'<path d="M{right + 140} 310 V342" stroke="#111" stroke-width="2"/>',
        f'<path d="M{right + 134} 336 l6 12 l6 -12 z"/>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _box(x: int, y: int, width: int, height: int, title: str) -> list[str]:
    return [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="#f4f6f8" '
        'stroke="#111" stroke-width="2"/>',
        _text(x + 15, y + 28, title, bold=True, size=18),
    ]


def _text(x: int, y: int, words: str, *, bold: bool = False, size: int = 14) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" font-size="{size}"{weight}>{escape(words)}</text>'


def _arrow(start: int, end: int, y: int, words: str) -> list[str]:
    tip = 12 if end < start else -12
    return [
        f'<path d="M{start} {y} H{end + tip // 2}" stroke="#111" stroke-width="2"/>',
        f'<path d="M{end} {y} l{tip} -6 v12 z"/>',
        f'<text x="{(start + end) // 2}" y="{y - 10}" text-anchor="middle">{escape(words)}</text>',
    ]


if __name__ == "__main__":
    main()
