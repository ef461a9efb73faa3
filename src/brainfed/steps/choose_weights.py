"""Which weights `evaluate` is to score, checked before they are used."""

from dataclasses import dataclass
from pathlib import Path

from brainfed.errors import NotReadyError, UnsignedError, UsageError
from brainfed.formats import rounds, signature, verify, weights
from brainfed.formats.dataset import Subset
from brainfed.formats.federation import Federation
from brainfed.formats.score_table import ScoredSpace
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be scored on what."""

    weights: Path | None = None
    """A signed weight file of this federation, or the site's own update that is not signed yet;
    the newest global weights where None."""
    round: int | None = None
    """The global weights of this round, in place of a file."""
    against: Path | None = None
    """A second weight file, scored on the same cases and compared."""
    subset: Subset = Subset.VALIDATION
    """Whose cases. Opening the test set is written to the ledger before anything else."""
    space: ScoredSpace = ScoredSpace.PLAN
    """The plan's grid, or that of the scan that each label was drawn on."""


def files_of(place: Workspace, known: Federation, wish: Wish) -> tuple[WeightsFile, ...]:
    """The weights to score, and then those to compare them with, checked.

    Raises:
        UsageError: No such weight file, or one file twice.
        NotReadyError: No global weights here, or none of that round.
        FileRefusedError: They are damaged, of a stranger, or of another federation.
    """
    if wish.weights is not None:
        first = _weights_file(place, known, wish.weights)
    elif wish.round is not None:
        first = rounds.verify_weights(_global_of(place, wish.round), known)
    else:
        first = rounds.newest_global(place, known)
    if wish.against is None:
        return (first,)
    second = _weights_file(place, known, wish.against)
    if second.digest == first.digest:
        raise UsageError(
            "Both weight files are one and the same",
            expected="two files to compare",
            where=second.path,
            hint="name another file with --against, --weights or --round",
        )
    return first, second


def _global_of(place: Workspace, number: int) -> Path:
    path = rounds.global_path(place, number)
    if path is None:
        there = [str(n) for n in rounds.numbers(place) if rounds.global_path(place, n) is not None]
        raise NotReadyError(
            f"There are no global weights of round {number} here",
            expected=f"one of the rounds {', '.join(there)}" if there else None,
            where=place.round_folder(number),
            hint="`brainfed import FOLDER` with the coordinator's files",
        )
    return path


def _weights_file(place: Workspace, known: Federation, path: Path) -> WeightsFile:
    """The weights to score, checked; without a signature only the site's own update."""
    if not path.is_file():
        raise UsageError(
            "There is no such weight file",
            where=path,
            hint="name a .safetensors file, or --round R for the global weights of a round",
        )
    if signature.signature_path(path).exists():
        return rounds.verify_weights(path, known)
    manifest = weights.check(path, known.table)
    if manifest.sender != place.name:
        raise UnsignedError(
            "The weight file has no signature beside it",
            expected=signature.signature_path(path).name,
            where=path,
            hint="ask its sender for the .sig file too",
        )
    verify.check_belongs(manifest, known, path)
    return WeightsFile(path, signature.digest_of(path).hex(), manifest)
