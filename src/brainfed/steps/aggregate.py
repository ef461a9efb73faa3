"""Aggregate: combine the updates of a round, streaming, and record who took part."""

import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainfed.core.architecture import n_parameters
from brainfed.core.progress import Progress, silent
from brainfed.core.rules import needs_whole
from brainfed.core.screening import Sums
from brainfed.errors import NotReadyError, QuorumError, UsageError
from brainfed.formats import atomic, document, federation, rounds, signature, weights
from brainfed.formats.checked_stream import CheckedStream
from brainfed.formats.federation import Federation
from brainfed.formats.ledger import Event
from brainfed.formats.manifest import Kind
from brainfed.formats.record import Input, InputStatus, Record
from brainfed.formats.roster import Role
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace
from brainfed.steps import exchange, rosters
from brainfed.steps.finish import check_unfinished
from brainfed.steps.screen import Part, parts_of
from brainfed.steps.stretches import OpenFile, Sources, stretches
from brainfed.steps.taking_part import Closing, Wishes, close_what

MOST_THREADS = 8


@dataclass(frozen=True)
class Aggregated:
    """A closed round; or, of a trial, what closing it would come to."""

    round: int
    edition: int
    parts: tuple[Part, ...]
    next_site: str | None
    """Whose turn is next in a relay."""
    to_train_again: tuple[str, ...]
    """Sites whose update of the next round rests on the edition that this one supersedes."""
    path: Path | None
    """The global weights; None of a trial, as all that follows."""
    digest: str | None
    record: Path | None


def aggregate(
    place: Workspace,
    *,
    today: date,
    wishes: Wishes | None = None,
    words: str = "",
    dry_run: bool = False,
    progress: Progress = silent,
) -> Aggregated:
    """Close the open round, or the newest closed one again: global weights and a signed record.

    Every file is read once, checked and screened on the way; what was read counts for nothing until
    all signatures fit.

    Source: Sheller et al. 2018, section 2.3, by the averaging specification (`core.averaging`).

    Args:
        place: The coordinator's workspace.
        today: The day for the record.
        wishes: Who is left out, and whether a closed round is closed again.
        words: Why, in the coordinator's own words, for its own ledger alone.
        dry_run: Only screen; nothing is written.
        progress: Told of each stretch of values.

    Raises:
        QuorumError: Too few updates; this also answers a second call for a closed round.
        UsageError: A wish can't be carried out, or changes nothing.
        FileRefusedError: An update was damaged after its import.
    """
    place.require(Role.COORDINATOR)
    known = federation.load(place)
    if not dry_run:
        check_unfinished(place, known)
    key = rosters.coordinator_key(place)  # first: nobody averages for an hour to be refused here
    with contextlib.ExitStack() as opened:
        try:
            closing = close_what(place, known, wishes or Wishes({}), opened)
        except QuorumError:
            if not dry_run:  # what was killed right after closing a round is mended
                exchange.fill_outbox(place)
            raise
        _check_changes(closing)
        if dry_run:
            combined = _combine(place, known, closing, names=None, progress=progress)
            return _aggregated(place, known, closing, combined, None, None)
        names = _Names(place, known, closing)
        atomic.make_folder(names.weights.parent)  # no update made it where a turn is skipped
        names.clear_unfinished()
        combined = _combine(place, known, closing, names=names, progress=progress)
    record = _record(closing, names, combined.files, today)
    if record.state_digest is not None:
        signature.sign_file(names.state, key, bytes.fromhex(record.state_digest))
    record_digest = document.write_signed(names.record, record, key)
    # With this signature the round is closed; whatever was killed before it is made again.
    signature.sign_file(names.weights, key, bytes.fromhex(record.global_digest))
    _note(place, record, record_digest, words)
    exchange.fill_outbox(place)
    return _aggregated(place, known, closing, combined, names, record.global_digest)


def _note(place: Workspace, record: Record, digest: str, words: str) -> None:
    """Tell the ledger of a closing, and why somebody was left out."""
    what: dict[str, str | int | None] = {"round": record.round}
    if record.edition > 1:
        what["edition"] = record.edition
    place.note(Event.MADE, what="record", digest=digest, **what)
    place.note(Event.MADE, what="global weights", digest=record.global_digest, **what)
    for entry in record.inputs:
        if entry.status is InputStatus.EXCLUDED:
            why = {"words": words} if words else {}
            place.note(Event.LEFT_OUT, site=entry.sender, reason=entry.reason, **what, **why)


class _Names:
    """What the files of a closing are called, and their manifests."""

    def __init__(self, place: Workspace, known: Federation, closing: Closing) -> None:
        fields = {
            "edition": closing.edition,
            "sender": place.name,
            "parent": closing.parent.digest,
            "versions": {"brainfed": version("brainfed"), "numpy": np.__version__},
        }
        number, folder = closing.number, place.round_folder(closing.number)
        self.manifest = rounds.new_manifest(known, number, kind=Kind.GLOBAL, **fields)
        self.weights = folder / known.weights_name(self.manifest)
        self.record = folder / f"{known.file_stem(self.manifest)}.record.json"
        self.state_manifest = rounds.new_manifest(known, number, kind=Kind.STATE, **fields)
        self.state = folder / known.weights_name(self.state_manifest)

    def clear_unfinished(self) -> None:
        """Take away what a killed aggregation left: without the last signature it never counted."""
        for path in (self.weights, self.state, self.record):
            atomic.remove(path)
            if path != self.weights:
                atomic.remove(signature.signature_path(path))


@dataclass(frozen=True)
class _Combined:
    """What going through all files gave."""

    files: tuple[WeightsFile, ...]
    """The updates, checked."""
    sums: Sums


def _combine(
    place: Workspace,
    known: Federation,
    closing: Closing,
    *,
    names: _Names | None,
    progress: Progress,
) -> _Combined:
    """Go through all files once (twice where the rule needs it); write, if there are names."""
    settings, n_values = closing.plan.aggregation, n_parameters(known.table)
    n_passes = 2 if closing.updates and needs_whole(settings) else 1
    n_threads = min(MOST_THREADS, os.cpu_count() or 1)
    sums = Sums(closing.weights, with_distances=names is None)
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(n_threads))
        put, put_state = _writers(known, closing, names, stack)
        walk = stretches(
            settings,
            Sources(
                _opened(closing.parent.path, stack),
                closing.updates,
                _state_before(place, known, closing, stack),
            ),
            closing.weights,
            n_values,
            threads=threads,
            n_threads=n_threads,
            look=sums.add,
            tell=lambda done: progress("aggregate", done, n_passes * n_values),
        )
        for stretch in walk:
            put(stretch.result)
            put_state(stretch.start, stretch.state)
        # Inside the block: what was written is put in place only if all signatures fit.
        files = tuple(threads.map(CheckedStream.close_checked, closing.updates))
    return _Combined(files, sums)


Put = Callable[[npt.NDArray[np.float32]], None]
PutState = Callable[[int, Sequence[npt.NDArray[np.float32]]], None]


def _writers(
    known: Federation, closing: Closing, names: _Names | None, stack: contextlib.ExitStack
) -> tuple[Put, PutState]:
    """Where the global weights and the rule's state go; nowhere without names."""
    if names is None:
        return (lambda _: None), (lambda *_: None)
    put = stack.enter_context(weights.writer(names.weights, names.manifest, known.table))
    words = closing.plan.aggregation.rule.state
    if not words:
        return put, (lambda *_: None)
    table = known.table_of(names.state_manifest)
    writer = weights.state_writer(names.state, names.state_manifest, table, len(words))
    return put, stack.enter_context(writer)


def _opened(path: Path, stack: contextlib.ExitStack, first_value: int = 0) -> OpenFile:
    return OpenFile(stack.enter_context(path.open("rb")), path, first_value)


def _state_before(
    place: Workspace, known: Federation, closing: Closing, stack: contextlib.ExitStack
) -> tuple[OpenFile, ...]:
    """The rule's state of the round before; none where that had no such rule.

    Raises:
        NotReadyError: It is missing.
        FileRefusedError: It is damaged.
    """
    words, before = closing.plan.aggregation.rule.state, closing.before
    if not words or before is None or before.rule is not closing.plan.aggregation.rule:
        return ()
    for path in rounds.signed(place, before.round, "*.state.safetensors"):
        if signature.digest_of(path).hex() == before.state_digest:
            rounds.verify_weights(path, known)
            n_values = n_parameters(known.table)
            return tuple(_opened(path, stack, n * n_values) for n in range(len(words)))
    raise NotReadyError(
        "The state of the rule is missing, so the round can't be closed by it",
        expected=f"the state {str(before.state_digest)[:16]} of round {before.round}",
        where=place.round_folder(before.round),
        hint="bring it back from an archive: `brainfed archive` copies it",
    )


def _record(closing: Closing, names: _Names, files: Sequence[WeightsFile], today: date) -> Record:
    """The record of the aggregation whose files lie there."""
    manifest, settings = names.manifest, closing.plan.aggregation
    included = [
        Input(
            sender=file.manifest.sender,
            digest=file.digest,
            weight=weight,
            status=InputStatus.INCLUDED,
            reason=None,
        )
        for file, weight in zip(files, closing.weights, strict=True)
    ]
    return Record(
        purpose=manifest.purpose,
        federation=manifest.federation,
        plan=manifest.plan,
        round=manifest.round,
        edition=manifest.edition,
        supersedes=None if closing.superseded is None else closing.superseded[1],
        sender=manifest.sender,
        roster_version=manifest.roster_version,
        rule=settings.rule,
        weights_by=settings.weights,
        parent=closing.parent.digest,
        inputs=tuple(sorted((*included, *closing.inputs), key=lambda entry: entry.sender)),
        next_site=closing.next_site,
        global_digest=signature.digest_of(names.weights).hex(),
        state_digest=signature.digest_of(names.state).hex() if settings.rule.state else None,
        day=today.isoformat(),
    )


def _check_changes(closing: Closing) -> None:
    """Closing a round again must change who is in it."""
    if closing.superseded is None:
        return
    before = {(e.sender, e.digest, e.status, e.reason) for e in closing.superseded[0].inputs}
    now = {(e.sender, e.digest, e.status, e.reason) for e in closing.inputs} | {
        (u.manifest.sender, signature.digest_of(u.path).hex(), InputStatus.INCLUDED, None)
        for u in closing.updates
    }
    if before == now:
        raise UsageError(
            f"Closing round {closing.number} again would change nothing",
            hint="--without SITE --reason REASON leaves one out, --with SITE takes one in again; "
            "a late update counts as soon as it is imported",
        )


def _aggregated(
    place: Workspace,
    known: Federation,
    closing: Closing,
    combined: _Combined,
    names: _Names | None,
    digest: str | None,
) -> Aggregated:
    return Aggregated(
        round=closing.number,
        edition=closing.edition,
        parts=parts_of(place, known, closing, combined.files, combined.sums),
        next_site=closing.next_site,
        to_train_again=_to_train_again(place, closing),
        path=None if names is None else names.weights,
        digest=digest,
        record=None if names is None else names.record,
    )


def _to_train_again(place: Workspace, closing: Closing) -> tuple[str, ...]:
    """Who trained already from the edition that this one supersedes."""
    if closing.superseded is None:
        return ()
    found = map(weights.read_manifest, rounds.update_paths(place, closing.number + 1))
    old = closing.superseded[0].global_digest
    return tuple(sorted(about.sender for about in found if about.parent == old))
