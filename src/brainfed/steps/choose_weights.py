"""Which weights `evaluate` is to score, checked before they are used."""

from dataclasses import dataclass
from pathlib import Path

from brainfed.errors import NotReadyError, UnsignedError, UsageError
from brainfed.formats import rounds, signature, verify, weights
from brainfed.formats.dataset import Subset
from brainfed.formats.federation import Federation
from brainfed.formats.final import Final
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
    """Whose cases. The test set is opened for the weights that the final names, and for no others;
    that is written to the ledger before anything else."""
    space: ScoredSpace = ScoredSpace.PLAN
    """The plan's grid, or that of the scan that each label was drawn on."""


def files_of(place: Workspace, known: Federation, wish: Wish) -> tuple[WeightsFile, ...]:
    """The weights to score, and then those to compare them with, checked.

    Raises:
        UsageError: No such weight file, one file twice, or for the test others than the final's.
        NotReadyError: No global weights here, none of that round, or for the test no final.
        FileRefusedError: They are damaged, of a stranger, or of another federation.
    """
    if wish.subset is Subset.TEST:
        return (_final_weights(place, known, wish),)
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


def check_finished(place: Workspace, known: Federation) -> Final:
    """The final, without which no test patient is looked at.

    Raises:
        NotReadyError: There is none here.
        FileRefusedError: It was damaged after it was accepted.
    """
    there = rounds.verify_final(place, known)
    if there is None:
        raise NotReadyError(
            "The test patients stay closed until the coordinator's final is here",
            expected="a final, which names the weights that the federation ends with",
            where=place.rounds,
            hint="meanwhile `brainfed evaluate` scores validation patients; the coordinator runs "
            "`brainfed finish` at the end, then `brainfed import FOLDER` with its files",
        )
    return there[0]


def _final_weights(place: Workspace, known: Federation, wish: Wish) -> WeightsFile:
    """Exactly the weights that the final names, whatever newer ones lie here."""
    final = check_finished(place, known)
    is_other_round = wish.round not in {None, final.round}
    if wish.weights is not None or wish.against is not None or is_other_round:
        given = wish.weights or wish.against or f"--round {wish.round}"
        raise UsageError(
            "The test patients are opened for the weights that the final names, and no others",
            expected=f"round {final.round}, edition {final.edition}",
            found=given,
            hint="`brainfed evaluate --subset test` takes them by itself; compare other weights on "
            "the validation patients",
        )
    for path in rounds.signed(place, final.round, "*.global.safetensors"):
        if weights.read_manifest(path).edition == final.edition:
            found = rounds.verify_weights(path, known)
            if found.digest == final.weights:
                return found
    raise NotReadyError(
        "The weights that the final names don't lie here",
        expected=f"round {final.round}, edition {final.edition}, {final.weights[:16]}",
        where=place.round_folder(final.round),
        hint="`brainfed import FOLDER` with the coordinator's files",
    )


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
