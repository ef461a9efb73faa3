"""What is checked before an update leaves: its form, the floor, and names that must not be in it.

The search for names finds accidents, not intent: whoever wanted to hide a name in millions of
numbers could.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from brainfed.core import byte_search
from brainfed.core.architecture import TensorTable
from brainfed.errors import NotReadyError
from brainfed.formats import (
    cases_csv,
    dataset,
    document,
    federation,
    identities,
    rounds,
    verify,
    weights,
)
from brainfed.formats.acceptance import Acceptance
from brainfed.formats.document import Document
from brainfed.formats.erasure import Erasure
from brainfed.formats.federation import Federation
from brainfed.formats.manifest import Manifest
from brainfed.formats.release import Check, Result, Told
from brainfed.formats.scores import Scores
from brainfed.formats.workspace import Workspace
from brainfed.steps.outgoing import Outgoing
from brainfed.steps.release_facts import NOT_TO_LEAVE

BLOCK_BYTES = 2**20
RARE = 1e-3
"""A word that so few files of pure chance would hold is no accident of numbers."""
_MASKED = re.compile(rb"[0-9a-f]{64}")
_KINDS: tuple[type[Document], ...] = (Acceptance, Erasure, Scores, Manifest)


def check_form(place: Workspace, known: Federation, update: Path) -> tuple[Check, ...]:
    """Hold the update against its schema, the plan, the acceptance and its parent.

    Raises:
        FileRefusedError: It isn't what its format or the plan says, so it can't leave at all.
        NotReadyError: The site hasn't accepted the plan of its round.
    """
    with update.open("rb") as stream:
        about = weights.check_stream(stream, update.stat().st_size, known.table_of, update)
    verify.check_belongs(about, known, update)
    federation.check_accepted(place, known, about.round)
    is_newest = rounds.is_of_newest(place, update)
    return (
        Check(
            what="The manifest has exactly the fields of its schema, each in its range",
            result=Result.PASSED,
            details="No free text, no path, no host name and no time of day has a place in it.",
        ),
        Check(
            what="Names, shapes and type of all tensors are the plan's; every value is finite",
            result=Result.PASSED,
            details=f"{len(known.table)} tensors, and not one byte between or after them.",
        ),
        Check(
            what="The plan that it was made under is in force, and this site has accepted it",
            result=Result.PASSED,
            details=f"Version {about.plan.version}, {about.plan.digest[:16]}.",
        ),
        Check(
            what="It was trained from the newest global weights",
            result=Result.PASSED if is_newest else Result.FOUND,
            details=f"Parent {str(about.parent)[:16]}."
            if is_newest
            else "The round before was closed again since: train again, `brainfed train-round`.",
        ),
    )


def check_floor(numbers: Sequence[Told]) -> Check:
    """Whether any figure stands for fewer patients than the floor lets it."""
    wrong = [f"{told.file}, {told.field}" for told in numbers if told.floor.endswith(NOT_TO_LEAVE)]
    return Check(
        what="No figure stands for fewer patients than the floor of the plan and of this site",
        result=Result.FOUND if wrong else Result.PASSED,
        details=f"Below it: {'; '.join(wrong)}."[:4000] if wrong else "Each was held against it.",
    )


def check_names(place: Workspace, known: Federation, files: Sequence[Outgoing]) -> Check:
    """Search the bytes of all that leaves for ids and names of this workspace.

    Raises:
        ScanError: The index or the identities of the cases are damaged.
    """
    public = _public_words(known)
    kinds = dict(_names(place))
    words = {word: kind for word, kind in kinds.items() if len(word) >= byte_search.SHORTEST}
    ordinary = {word for word in words if word in public}
    searched = {word: kind for word, kind in words.items() if word not in ordinary}
    found: list[str] = []
    n_chance, expected = 0, 0.0
    for file in files:
        text, start = _text_of(file, known.table)
        for word, at in byte_search.find([text], searched).items():
            found.append(f"{searched[word]} in the text of {file.name}, byte {at}")
        if file.round is None:
            continue
        n_bytes = file.path.stat().st_size - start
        expected += byte_search.expected_by_chance(searched, n_bytes)
        for word, at in byte_search.find(_blocks(file.path, start), searched).items():
            if byte_search.expected_by_chance([word], n_bytes) < RARE:
                found.append(f"{searched[word]} in the numbers of {file.name}, byte {start + at}")
            else:
                n_chance += 1
    details = [f"{len(searched)} words were searched for, whatever their case."]
    if found:
        details.insert(0, f"FOUND, a person must look: {'; '.join(sorted(found)[:20])}.")
    if n_chance:
        details.append(
            f"{n_chance} short ones stand among the numbers, as chance has it (about "
            f"{expected:.1f} to be expected)."
        )
    if len(kinds) > len(words):
        details.append(
            f"{len(kinds) - len(words)} have fewer than {byte_search.SHORTEST} characters and "
            "can't be searched for: chance puts them into any file."
        )
    if ordinary:
        details.append(
            f"Not searched for: {len(ordinary)} of them every such file has, such as the site's "
            "own name."
        )
    details.append("This finds accidents, not intent. Digests and signatures were left out.")
    return Check(
        what="No case id, patient id, real name, folder or file name that this workspace knows "
        "stands in the bytes of the files",
        result=Result.FOUND if found else Result.PASSED if searched else Result.NOT_CHECKED,
        details=" ".join(details)[:4000],
    )


def _text_of(file: Outgoing, table: TensorTable) -> tuple[bytes, int]:
    """What of a file is text, its digests blotted out; and where numbers begin."""
    if file.round is None:
        return _MASKED.sub(b" " * 64, document.read_capped(file.path)), 0
    start = weights.data_start(file.path)
    with file.path.open("rb") as stream:
        return _MASKED.sub(b" " * 64, stream.read(start)), start


def _blocks(path: Path, start: int) -> Iterator[bytes]:
    with path.open("rb") as stream:
        stream.seek(start)
        while block := stream.read(BLOCK_BYTES):
            yield block


def _names(place: Workspace) -> Iterator[tuple[bytes, str]]:
    """All that could name a patient or this place, in small letters, and what it is."""
    data = place.data
    for part in place.root.parts[1:]:
        yield _bytes(part), "a folder name of this workspace"
    if dataset.index_path(data).exists():
        index = dataset.read_whole_index(data)
        for entry in index.cases:
            yield _bytes(entry.id), f"the id of case {entry.id}"
            yield _bytes(entry.patient), f"the id of the patient of case {entry.id}"
    table = data / cases_csv.FILE_NAME
    if table.exists():
        for case in cases_csv.read(table):
            paths = [case.folder, *(scan.path for scan in case.images.values())]
            paths += [] if case.label is None else [case.label.path]
            for path in paths:
                yield _bytes(path.name), "the name of a folder or file of scans"
                yield _bytes(path.name.split(".")[0]), "the name of a folder or file of scans"
    try:
        known = identities.read(data)
    except NotReadyError:
        return
    for real, what in ((known.cases, "case"), (known.patients, "patient"), (known.visits, "visit")):
        for its_id, name in real.items():
            yield _bytes(name), f"the real name of {what} {its_id}"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape").lower()


def _public_words(known: Federation) -> bytes:
    """Words that stand in every such file: names of parties, of the plan, of fields and tensors."""
    words = [entry.name for entry in known.roster.principals]
    words += [known.name, known.prefix, *known.table]
    words += ["__metadata__", "data_offsets", "dtype", "shape", "brainfed"]
    words += _words_of_formats()
    return "\n".join(words).lower().encode()


@functools.cache
def _words_of_formats() -> tuple[str, ...]:
    """Names of fields, and words of closed lists, of all that a site sends."""
    return tuple(word for kind in _KINDS for word in _schema_words(kind.model_json_schema()))


def _schema_words(schema: Any) -> Iterator[str]:
    """Names of fields and words of closed lists, from a JSON schema."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        yield from (str(word) for word in (*schema.get("enum", ()), schema.get("const", "")))
        for value in schema.values():
            yield from _schema_words(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _schema_words(value)
