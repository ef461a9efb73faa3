"""What is erased besides the case itself: traces of cases in the workspace, each on its own.

Every function can be carried out again, and finds nothing the second time.
"""

import csv
import io
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from brainfed.formats import (
    atomic,
    dataset,
    identities,
    quality_page,
    signature,
    training_log,
)
from brainfed.formats.dataset import Index
from brainfed.formats.identities import Identities
from brainfed.formats.workspace import Workspace


def unsigned_updates(place: Workspace) -> tuple[Path, ...]:
    """This site's updates of all rounds that were never signed, so that nobody can have used one.

    One that a person signed by hand lies in the outbox beside its signature, and is not among them.
    """
    by_hand = {path.name for path in place.outbox.glob("*.sig")}
    return tuple(
        path
        for path in sorted(place.rounds.glob(f"r*/*.{place.name}.update.safetensors"))
        if not signature.signature_path(path).exists() and f"{path.name}.sig" not in by_hand
    )


def update(place: Workspace, path: Path) -> None:
    """Erase an update that was never signed, its second name in the outbox, and its log.

    Raises:
        ResourceError: The disk refuses.
    """
    atomic.remove(place.outbox / path.name)
    atomic.remove(path.with_name(training_log.NAME))
    atomic.remove(path)


def split_lines(
    data_folder: Path, cases: Collection[str], patients: Collection[str | None]
) -> None:
    """Take cases and patients out of the split; all others stay where they are.

    Raises:
        ScanError: The split is damaged.
        ResourceError: The disk refuses.
    """
    if not dataset.split_path(data_folder).exists():
        return
    old = dataset.read_split(data_folder)
    new = replace(
        old,
        assignments={p: subset for p, subset in old.assignments.items() if p not in patients},
        left_out={case: why for case, why in old.left_out.items() if case not in cases},
    )
    if new != old:
        dataset.write_split(data_folder, new)


def pages(data_folder: Path) -> None:
    """Write the quality page of the parts that are left; other pages with pictures go whole.

    Raises:
        ScanError: A part is damaged.
        ResourceError: The disk refuses.
    """
    page = quality_page.page_path(data_folder)
    for path in sorted(data_folder.glob("*.html")):
        if path != page:
            atomic.remove(path)  # `check` makes its page again
    if page.exists():
        quality_page.write_page(page, quality_page.read_entries(data_folder))


def scores(place: Workspace, cases: Collection[str]) -> None:
    """Take the rows of cases out of the tables that `evaluate` wrote.

    Raises:
        ResourceError: The disk refuses.
    """
    for path in sorted(place.reports.glob("evaluate.*.csv")):
        rows = list(csv.reader(io.StringIO(path.read_text("ascii"), newline="")))
        kept = [row for row in rows if set(row).isdisjoint(cases)]
        if len(kept) < len(rows):
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(kept)
            atomic.write_bytes(path, text.getvalue().encode(), mode=0o600, replace=True)


def bug_reports(place: Workspace, words: Collection[str]) -> None:
    """Erase reports of bugs in which one of these names or ids stands.

    Raises:
        ResourceError: The disk refuses.
    """
    wanted = [word.encode("utf-8", "backslashreplace") for word in words]
    for path in sorted(place.reports.glob("bug-*.txt")):
        text = path.read_bytes()
        if any(word in text for word in wanted):
            atomic.remove(path)


def names(data_folder: Path, known: Identities, index: Index, cases: Collection[str]) -> None:
    """Forget the names and visits of cases, and the names of all patients without one in the index.

    A patient whose cases were refused gets the name back from the next `preprocess`.

    Raises:
        ResourceError: The disk refuses.
    """
    used = {entry.patient for entry in index.cases}
    new = replace(
        known,
        cases={case: name for case, name in known.cases.items() if case not in cases},
        patients={p: name for p, name in known.patients.items() if p in used},
        visits={case: visit for case, visit in known.visits.items() if case not in cases},
    )
    if new != known:
        identities.write(data_folder, new)
