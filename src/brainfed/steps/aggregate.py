"""Aggregate: average the updates of the open round, streaming, and record who took part."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from brainfed.core.architecture import n_parameters
from brainfed.core.averaging import Mean, check_weights
from brainfed.core.metrics import Measure
from brainfed.core.progress import Progress, silent
from brainfed.errors import QuorumError, WrongRoundError
from brainfed.formats import atomic, document, federation, rounds, signature, weights
from brainfed.formats.federation import Federation
from brainfed.formats.ledger import Event
from brainfed.formats.manifest import Kind, Manifest, ScoredWeights
from brainfed.formats.record import Input, InputStatus, Reason, Record
from brainfed.formats.roster import Role
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan
from brainfed.steps import exchange, rosters

BLOCK_VALUES = 2**18
"""Values that are averaged at a time; memory is this, not the number of sites or parameters."""


@dataclass(frozen=True)
class Part:
    """A site's part in the round."""

    site: str
    status: InputStatus
    n_patients: int | None
    weight: int
    share: float
    """Of the total weight, 0 to 1."""
    change_norm: float | None
    """Euclidean norm of the update minus its parent, over all values."""
    dice_before: float | None
    """Mean Dice of its first region, by its own report; None under the floor or without cases."""
    dice_after: float | None


@dataclass(frozen=True)
class Aggregated:
    """A closed round."""

    round: int
    parts: tuple[Part, ...]
    path: Path
    digest: str
    record: Path


def aggregate(place: Workspace, *, today: date, progress: Progress = silent) -> Aggregated:
    """Close the open round: the next global weights and their signed record.

    Source: Sheller et al. 2018, section 2.3, by the averaging specification (`core.averaging`).

    Args:
        place: The coordinator's workspace.
        today: The day for the record.
        progress: Told of each block of values.

    Raises:
        QuorumError: Too few updates; this also answers a second call for a closed round.
        FileRefusedError: An update was damaged after its import.
    """
    place.require(Role.COORDINATOR)
    known = federation.load(place)
    key = rosters.coordinator_key(place)  # first: nobody averages for an hour to be refused here
    parent = rounds.newest_global(place, known)
    number = parent.manifest.round + 1
    try:
        updates, revoked = _updates(place, known, parent, number)
    except QuorumError:
        exchange.fill_outbox(place)  # what was killed right after closing a round is mended here
        raise
    plan = known.plan_of(number)
    shares = [int(getattr(u.manifest, f"n_{plan.aggregation.weights}")) for u in updates]
    total = check_weights(shares)

    manifest = rounds.new_manifest(
        known,
        number,
        kind=Kind.GLOBAL,
        sender=place.name,
        parent=parent.digest,
        versions={"brainfed": version("brainfed"), "numpy": np.__version__},
    )
    path = place.round_folder(number) / known.weights_name(manifest)
    record_path = path.with_name(f"{known.file_stem(manifest)}.record.json")
    _clear_unfinished(path, record_path)
    norms = _average(
        path, manifest, known, parent, updates=updates, shares=shares, progress=progress
    )
    digest = signature.digest_of(path).hex()
    inputs = _inputs(known, updates, shares, revoked)
    record = _record(manifest, plan, parent, inputs=inputs, digest=digest, today=today)
    record_digest = document.write_signed(record_path, record, key)
    # With this signature the round is closed; whatever was killed before it is made again.
    signature.sign_file(path, key)
    place.note(Event.MADE, what="record", round=number, digest=record_digest)
    place.note(Event.MADE, what="global weights", round=number, digest=digest)
    exchange.fill_outbox(place)
    by_site = {
        u.manifest.sender: (u.manifest, norm) for u, norm in zip(updates, norms, strict=True)
    }
    parts = tuple(_part(entry, by_site.get(entry.sender), total, known) for entry in inputs)
    return Aggregated(number, parts, path, digest, record_path)


def _updates(
    place: Workspace, known: Federation, parent: WeightsFile, number: int
) -> tuple[list[WeightsFile], list[Input]]:
    """The updates of the open round, checked once more, in name order of the sites.

    Beside them, what the record says of updates whose key was revoked after they had come.
    """
    paths, revoked = [], []
    for path in rounds.update_paths(place, number):
        if rounds.counts(path, known, number):
            paths.append(path)
        else:
            revoked.append(_left_out(path))
    quorum = known.plan_of(number).participation.quorum_sites
    if len(paths) < quorum:
        closed = f"round {number - 1} is closed; " if number > 1 else ""
        raise QuorumError(
            f"Too few updates to close round {number}",
            expected=f"at least {quorum} (participation.quorum_sites)",
            found=f"{closed}{len(paths)} for round {number}",
            where=place.round_folder(number),
            hint="`brainfed import FOLDER` with the sites' files; `brainfed status` names them",
        )
    updates = sorted(
        (rounds.verify_weights(path, known) for path in paths), key=lambda u: u.manifest.sender
    )
    for update in updates:
        if update.manifest.parent != parent.digest or update.manifest.round != number:
            raise WrongRoundError(
                "An update in the round's folder wasn't trained from its global weights",
                expected=parent.digest[:16],
                found=str(update.manifest.parent)[:16],
                where=update.path,
            )
    return updates, revoked


def _left_out(path: Path) -> Input:
    return Input(
        sender=weights.read_manifest(path).sender,
        digest=signature.digest_of(path).hex(),
        weight=0,
        status=InputStatus.EXCLUDED,
        reason=Reason.REVOKED,
    )


def _clear_unfinished(path: Path, record_path: Path) -> None:
    """Take away what a killed aggregation left: without the last signature it never counted."""
    for leftover in (path, record_path, signature.signature_path(record_path)):
        atomic.remove(leftover)


def _average(
    path: Path,
    manifest: Manifest,
    known: Federation,
    parent: WeightsFile,
    *,
    updates: Sequence[WeightsFile],
    shares: Sequence[int],
    progress: Progress,
) -> list[float]:
    """Write the mean block by block; gives the norm of each update's change.

    All files hold the same tensors in the same order without a gap, so the values of a block are
    the same stretch of every file.
    """
    n_values = n_parameters(known.table)
    mean = Mean(min(BLOCK_VALUES, n_values), sum(shares))
    squares = np.zeros(len(updates))
    with contextlib.ExitStack() as stack:
        before = stack.enter_context(_at_values(parent.path))
        streams = [stack.enter_context(_at_values(update.path)) for update in updates]
        put = stack.enter_context(weights.writer(path, manifest, known.table))
        for start in range(0, n_values, BLOCK_VALUES):
            count = min(BLOCK_VALUES, n_values - start)
            old = _read(before, count)
            for index, stream in enumerate(streams):
                values = _read(stream, count)
                mean.add(values, shares[index])
                change = np.subtract(values, old, dtype=np.float64)
                squares[index] += np.square(change, out=change).sum()
            put(mean.take(count).astype(np.float32))
            progress("average", start + count, n_values)
    return [float(value) for value in np.sqrt(squares)]


def _at_values(path: Path) -> BinaryIO:
    stream = path.open("rb")
    stream.seek(weights.data_start(path))
    return stream


def _read(stream: BinaryIO, count: int) -> npt.NDArray[np.float32]:
    return np.frombuffer(stream.read(4 * count), "<f4")


def _inputs(
    known: Federation,
    updates: Sequence[WeightsFile],
    shares: Sequence[int],
    revoked: Sequence[Input],
) -> tuple[Input, ...]:
    included = {
        update.manifest.sender: Input(
            sender=update.manifest.sender,
            digest=update.digest,
            weight=weight,
            status=InputStatus.INCLUDED,
            reason=None,
        )
        for update, weight in zip(updates, shares, strict=True)
    }
    absent = {
        site.name: Input(
            sender=site.name, digest=None, weight=0, status=InputStatus.ABSENT, reason=None
        )
        for site in known.roster.sites
    }
    everyone = absent | {entry.sender: entry for entry in revoked} | included
    return tuple(everyone[name] for name in sorted(everyone))


def _record(
    manifest: Manifest,
    plan: Plan,
    parent: WeightsFile,
    *,
    inputs: tuple[Input, ...],
    digest: str,
    today: date,
) -> Record:
    """The record of the aggregation that made the global weights of this manifest and digest."""
    return Record(
        purpose=manifest.purpose,
        federation=manifest.federation,
        plan=manifest.plan,
        round=manifest.round,
        edition=manifest.edition,
        supersedes=None,
        sender=manifest.sender,
        roster_version=manifest.roster_version,
        rule=plan.aggregation.rule,
        weights_by=plan.aggregation.weights,
        parent=parent.digest,
        inputs=inputs,
        next_site=None,
        global_digest=digest,
        state_digest=None,
        day=today.isoformat(),
    )


def _part(
    entry: Input, found: tuple[Manifest, float] | None, total: int, known: Federation
) -> Part:
    if found is None:
        return Part(entry.sender, entry.status, None, 0, 0.0, None, None, None)
    manifest, norm = found
    return Part(
        site=entry.sender,
        status=entry.status,
        n_patients=manifest.n_patients,
        weight=entry.weight,
        share=entry.weight / total,
        change_norm=norm,
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
