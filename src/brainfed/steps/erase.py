"""What is erased besides the case itself: traces of cases in the workspace, each on its own.

Every function can be carried out again, and finds nothing the second time.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from brainfed.formats import (
    atomic,
    checkpoint,
    dataset,
    identities,
    quality_page,
    rounds,
    score_journal,
    score_table,
    sent,
    signature,
)
from brainfed.formats.dataset import Index
from brainfed.formats.identities import Identities
from brainfed.formats.workspace import Workspace


def unsigned_updates(place: Workspace) -> tuple[Path, ...]:
    """This site's updates of all rounds that were never signed, so that nobody can have used one.

    One that a person signed by hand lies in the outbox beside its signature, and is not among them.
    """
    return _unsigned(place, sorted(place.rounds.glob(f"r*/*.{place.name}.update.safetensors")))


def unsigned_scores(place: Workspace) -> tuple[Path, ...]:
    """This party's score files that were never signed; otherwise as `unsigned_updates`."""
    return _unsigned(place, rounds.scores_paths(place, place.name))


def _unsigned(place: Workspace, paths: Sequence[Path]) -> tuple[Path, ...]:
    by_hand = {path.name for path in place.outbox.glob("*.sig")}
    return tuple(
        path
        for path in paths
        if not signature.signature_path(path).exists() and f"{path.name}.sig" not in by_hand
    )


def update(place: Workspace, path: Path) -> None:
    """Erase an update that was never signed, its second name in the outbox, and what lies beside.

    Raises:
        ResourceError: The disk refuses.
    """
    atomic.remove(place.outbox / path.name)
    for name in checkpoint.TRAINING_FILES:
        atomic.remove(path.with_name(name))
    atomic.remove(path)


def local_layers(place: Workspace) -> tuple[Path, ...]:
    """The layers that stay at this site, of all rounds: each was trained from the one before."""
    return tuple(sorted(place.rounds.glob(f"r*/{checkpoint.LAYERS}")))


def rounds_on_their_way(place: Workspace) -> None:
    """Erase checkpoints, and the states of optimisers: they were learned from cases that go.

    Raises:
        ResourceError: The disk refuses.
    """
    for name in (checkpoint.NAME, checkpoint.OPTIMISER):
        for path in sorted(place.rounds.glob(f"r*/{name}")):
            atomic.remove(path)


def drill(place: Workspace) -> None:
    """Erase the drill whole: an update in it was learned from cases, and links lead to them.

    Raises:
        ResourceError: The disk refuses.
    """
    atomic.remove_tree(place.drill)


def score_file(place: Workspace, path: Path) -> None:
    """Erase a score file that was never signed, and its second name in the outbox.

    Raises:
        ResourceError: The disk refuses.
    """
    atomic.remove(place.outbox / path.name)
    atomic.remove(path)


def told(place: Workspace, touched: Collection[str | None], gone: Collection[str | None]) -> None:
    """Forget patients behind figures that left; figures over them that were never signed go too.

    Args:
        place: The workspace.
        touched: Ids of patients of whom a case is erased.
        gone: Those of them that have no case any more.

    Raises:
        ScanError: The memory of what left is damaged.
        ResourceError: The disk refuses.
    """
    old = sent.read(place.data)
    if old is None or not old.patients & set(touched):
        return
    for path in unsigned_scores(place):
        score_file(place, path)
    new = old.without([patient for patient in gone if patient is not None])
    if new != old:
        sent.write(place.data, new)


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
    """Take cases out of what `evaluate` and `report` wrote: rows, lines, pictures, whole pages.

    Args:
        place: The workspace.
        cases: Ids, and real names, under which ready label maps may have been scored.

    Raises:
        ResourceError: The disk refuses.
    """
    for path in sorted(place.reports.glob("evaluate.*.csv")):
        score_table.erase(path, cases)
    for path in sorted(place.reports.glob("evaluate.*.csv.part")):
        score_journal.erase(path, cases)
    for path in sorted(place.reports.glob("evaluate.*.png")):
        if path.suffixes[-2:-1] and path.suffixes[-2][1:] in cases:
            atomic.remove(path)
    for path in sorted(place.reports.glob("*.html")):
        atomic.remove(path)  # `report` makes its page again, without them


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
