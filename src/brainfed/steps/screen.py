"""Screen: what is unusual about the updates of a round, beside what their sites report."""

from collections.abc import Sequence
from dataclasses import dataclass

from brainfed.core import screening
from brainfed.core.metrics import Measure
from brainfed.core.screening import Flag, Reported, Sums
from brainfed.formats import rounds, weights
from brainfed.formats.federation import Federation
from brainfed.formats.manifest import Manifest, ScoredWeights
from brainfed.formats.record import InputStatus, Reason
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace
from brainfed.steps.taking_part import Closing


@dataclass(frozen=True)
class Part:
    """A site's part in the round."""

    site: str
    status: InputStatus
    reason: Reason | None
    n_patients: int | None
    weight: int
    share: float
    """Of the total weight, 0 to 1."""
    change_norm: float | None
    """Euclidean norm of the update minus its parent, over all values."""
    cosine: float | None
    """Between its change and the weighted mean of the others'."""
    distances: tuple[float, ...]
    """To the updates of all included sites, in their order; only of a trial."""
    dice_before: float | None
    """Mean Dice of its first region, by its own report; None under the floor or without cases."""
    dice_after: float | None
    flags: tuple[Flag, ...]


def parts_of(
    place: Workspace,
    known: Federation,
    closing: Closing,
    files: Sequence[WeightsFile],
    sums: Sums,
) -> tuple[Part, ...]:
    """Everybody's part in a round, by site; of those included what screening shows."""
    reported = [_reported(place, known, closing, file.manifest) for file in files]
    rows = screening.screen(sums, reported)
    distances = sums.distances
    total = sum(closing.weights)
    parts = [
        Part(
            site=file.manifest.sender,
            status=InputStatus.INCLUDED,
            reason=None,
            n_patients=file.manifest.n_patients,
            weight=weight,
            share=weight / total,
            change_norm=row.norm,
            cosine=row.cosine,
            distances=() if distances is None else tuple(distances[number].tolist()),
            dice_before=own.dice_before,
            dice_after=own.dice_after,
            flags=row.flags,
        )
        for number, (file, weight, row, own) in enumerate(
            zip(files, closing.weights, rows, reported, strict=True)
        )
    ]
    parts += [
        Part(e.sender, e.status, e.reason, None, 0, 0.0, None, None, (), None, None, ())
        for e in closing.inputs
    ]
    return tuple(sorted(parts, key=lambda part: part.site))


def _reported(
    place: Workspace, known: Federation, closing: Closing, manifest: Manifest
) -> Reported:
    entry = known.roster.get(manifest.sender)
    n_before = None
    for number in range(closing.number - 1, 0, -1):
        path = rounds.update_path(place, known, number, manifest.sender)
        if path is not None:
            n_before = weights.read_manifest(path).n_patients
            break
    return Reported(
        n_patients=manifest.n_patients or 0,
        n_enrolled=None if entry is None else entry.n_patients,
        n_before=n_before,
        dice_before=reported_dice(manifest, ScoredWeights.INCOMING, known),
        dice_after=reported_dice(manifest, ScoredWeights.RESULT, known),
    )


def reported_dice(manifest: Manifest, of: ScoredWeights, known: Federation) -> float | None:
    """A site's own mean validation Dice of the plan's first region, 0 to 1; None if not said."""
    region = known.first_plan.scans.regions[0]
    for score in manifest.scores:
        if (score.weights, score.measure, score.region) == (of, Measure.DICE, region):
            return None if score.mean is None else score.mean / 1_000_000
    return None
