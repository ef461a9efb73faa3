"""What leaves of an evaluation: a score file of groups of patients, or figures in a manifest.

Which groups may be told of is decided here for both, by one memory (`formats.sent`), before any of
it is written; what is said of a group is decided in `formats.floor`. The memory is written first:
from then on the file may leave at any moment.
"""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from brainfed.core.cohort import Subset
from brainfed.core.scoring import CaseScore
from brainfed.errors import ConflictError
from brainfed.formats import atomic, dataset, document, floor, rounds, sent, signature, weights
from brainfed.formats.federation import Federation
from brainfed.formats.ledger import Event
from brainfed.formats.manifest import Kind
from brainfed.formats.roster import Role
from brainfed.formats.scores import Figure, Group, Scores
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace


def put_scores(
    place: Workspace,
    known: Federation,
    scored: WeightsFile,
    subset: Subset,
    rows: Sequence[CaseScore],
    *,
    today: date,
) -> Path | None:
    """Write what may leave of an evaluation of global weights into the folder of their round.

    `export` signs the file and carries it. It may grow by another subset. Figures in a file that
    was signed never change: the evaluation is not told again.

    Args:
        place: The workspace of a site or an evaluator.
        known: Its federation.
        scored: The weights, checked.
        subset: Whose patients.
        rows: All cases of the subset, on the plan's grid, with every measure.
        today: The day for the file.

    Returns:
        The file, if figures of this subset stand in it. None where nothing may leave now: the
        weights are not global, or the patients differ too little from those of the figures before.

    Raises:
        WrongRoleError: The workspace of a party that has no patients.
        ConflictError: The scores that lie there are of other weights of the same round.
        ScanError: Split, identities or the memory of what left is damaged.
        FileRefusedError: The scores that lie there are damaged.
        ResourceError: The disk refuses.
    """
    place.require(Role.SITE, Role.EVALUATOR)
    if scored.manifest.kind is not Kind.GLOBAL:
        return None
    path = rounds.scores_path(place, known, scored.manifest, place.name)
    old = document.read(path, Scores) if path.exists() else None
    if old is not None and old.weights != scored.digest:
        raise ConflictError(
            "There are scores of other global weights of this round and edition already",
            expected=f"{old.weights[:16]}, as in {path.name}",
            found=scored.digest[:16],
            where=scored.path,
            hint="keep both weight files and ask the coordinator, who has told two stories",
        )
    stands = old is not None and any(figure.subset == subset for figure in old.figures)
    if stands and is_signed(place, path):
        return path
    plan = known.plan_of(scored.manifest.round)
    smallest = floor.holding(plan, place.floor)
    groups = may_tell(place, subset, rows, round_number=scored.manifest.round, smallest=smallest)
    new = floor.figures(rows, plan, subset=subset.value, floor=smallest, groups=groups)
    if not new:
        return path if stands else None
    kept = () if old is None else tuple(f for f in old.figures if f.subset != subset)
    figures = tuple(sorted((*kept, *new), key=Figure.key))
    if old is not None and figures == old.figures:
        return path
    content = Scores(
        purpose=known.start.purpose,
        federation=known.digest,
        sender=place.name,
        roster_version=known.roster.version,
        plan=known.in_force(scored.manifest.round).version,
        round=scored.manifest.round,
        edition=scored.manifest.edition,
        weights=scored.digest,
        split=dataset.split_digest(place.data),
        n_cases=_n_cases(old, kept, new, len({row.case for row in rows})),
        figures=figures,
        day=today.isoformat(),
    )
    _write(place, path, content)
    return path


def may_tell(
    place: Workspace,
    subset: Subset,
    rows: Sequence[CaseScore],
    *,
    round_number: int,
    smallest: int,
) -> frozenset[Group]:
    """The groups of which figures may leave now; they are remembered as told.

    Args:
        place: The workspace of a site or an evaluator.
        subset: Whose patients.
        rows: Their scores.
        round_number: Of the global weights that are scored, or that training began with.
        smallest: The floor that holds.

    Raises:
        ScanError: The memory of what left is damaged.
        ResourceError: The disk refuses.
    """
    old = sent.read(place.data)
    if old is None:
        old = sent.Sent(first_round=_first_untold(place), groups=())
    told, new = sent.choose(
        old, subset.value, floor.groups_of(rows), round_number=round_number, floor=smallest
    )
    if new != old:
        sent.write(place.data, new)
    return told


def is_signed(place: Workspace, path: Path) -> bool:
    """Whether scores were signed, by brainfed or by hand in the outbox: they may have left."""
    by_hand = place.outbox / f"{path.name}.sig"
    return signature.signature_path(path).exists() or by_hand.exists()


def _n_cases(
    old: Scores | None, kept: Sequence[Figure], new: Sequence[Figure], n_cases: int
) -> int | None:
    """Cases behind all figures of the file; None where a count would say too much, or is lost."""
    if any(f.group is Group.ALL and isinstance(f.n, str) for f in new):
        return None
    if not kept:
        return n_cases
    # Of another evaluation of the same subset, which these figures replace, nobody knows the part.
    is_grown = old is not None and len(kept) == len(old.figures)
    return old.n_cases + n_cases if old and is_grown and old.n_cases is not None else None


def _first_untold(place: Workspace) -> int:
    """The first round about whose weights this party has told nothing in a file that lies here."""
    told = [document.read(path, Scores).round for path in rounds.scores_paths(place, place.name)]
    updates = place.rounds.glob(f"r*/*.{place.name}.update.safetensors")
    told += [weights.read_manifest(path).round - 1 for path in updates]
    return max(told, default=-1) + 1


def _write(place: Workspace, path: Path, content: Scores) -> None:
    """Put the file in place; a signature goes before the file that it is of is replaced."""
    atomic.make_folder(path.parent)
    atomic.remove(signature.signature_path(path))
    atomic.write_bytes(path, content.dumps(), replace=True)
    digest = document.sha256(content.dumps())
    place.note(Event.MADE, what="scores", round=content.round, digest=digest)
