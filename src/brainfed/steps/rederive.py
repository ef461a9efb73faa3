"""Re-derive: compute a round's global weights and its rule's state again, to the bit."""

import contextlib
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from brainfed.core.architecture import TensorTable, n_parameters
from brainfed.core.rules import needs_parent
from brainfed.errors import BrainfedError, ResourceError
from brainfed.formats import rounds, signature
from brainfed.formats.manifest import Manifest
from brainfed.formats.record import Input
from brainfed.formats.signature import Signed
from brainfed.plan import Aggregation
from brainfed.steps.findings import FindingKind, finding_of
from brainfed.steps.gather import Claim
from brainfed.steps.history import History
from brainfed.steps.stretches import OpenFile, Sources, stretches

N_THREADS = 2
"""Files whose digests are taken at a time; hashing and reading leave Python's lock alone."""


class Outcome(StrEnum):
    """What came of computing global weights again."""

    GIVEN = "given"
    """Round 0: where the training began, taken as signed."""
    REDERIVED = "to the bit"
    DIFFERS = "differs"
    IMPOSSIBLE = "files missing"


@dataclass(frozen=True)
class RoundAudit:
    """One aggregation, or the global weights of round 0."""

    round: int
    edition: int
    included: tuple[str, ...]
    excluded: tuple[str, ...]
    absent: tuple[str, ...]
    outcome: Outcome
    digest: str
    """Of the global weights."""
    record: str | None
    """Digest of the record; None for round 0, and where it is missing."""


@dataclass(frozen=True)
class Weighty:
    """A weight file whose signature, signer, header and values have been checked."""

    signed: Signed
    manifest: Manifest

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.signed.path


@dataclass(frozen=True)
class Difference:
    """The first value in which two computations of a file differ."""

    path: Path
    tensor: str
    index: tuple[int, ...]
    there: float
    """In the file."""
    computed: float


def check_claims(history: History, claims: Sequence[Claim]) -> list[Weighty]:
    """The weight files that are what they claim, in order; the others are named.

    Each is judged under the roster that it was signed under.
    """
    judged = [claim for claim in claims if _can_judge(history, claim)]
    found = []
    with ThreadPoolExecutor(N_THREADS) as threads:
        results = threads.map(lambda claim: _check(history, claim), judged)
        for claim, result in zip(judged, results, strict=True):
            if isinstance(result, BrainfedError):
                finding = finding_of(result, claim.path, claim.manifest.round)
                history.findings.append(finding)
            else:
                found.append(result)
    return found


def _can_judge(history: History, claim: Claim) -> bool:
    """Whether roster and plan are here; a file whose signature is damaged names nothing."""
    about = claim.manifest
    if about.roster_version <= max(history.rosters) and about.plan.version <= len(
        history.known.plans
    ):
        return True
    try:
        signature.verify_file(claim.path)
    except BrainfedError as error:
        history.findings.append(finding_of(error, claim.path, about.round))
        return False
    return history.can_judge(about, claim.path)


def _check(history: History, claim: Claim) -> Weighty | BrainfedError:
    try:
        signed = signature.verify_file(claim.path)
        at = history.at(claim.manifest.roster_version, signed.key)
        return Weighty(signed, rounds.verify_weights(claim.path, at, signed).manifest)
    except OSError as error:
        return ResourceError("The file can't be read", found=error.strerror, where=claim.path)
    except BrainfedError as error:
        return error


@dataclass(frozen=True)
class AggregationFiles:
    """What a round was made of and what came out; None where it is missing."""

    target: Weighty
    """The global weights."""
    state: Weighty | None
    """The rule's new state; None also where it has none."""
    parent: Weighty | None
    included: Sequence[tuple[Input, Weighty | None]]
    """What the record says of each included site, and its update."""
    state_before: Weighty | None
    """The rule's state of the round before; None where the rule begins anew."""
    is_complete: bool
    """Whether all states that are needed are here."""


def rederive(history: History, files: AggregationFiles) -> Outcome:
    """Compute global weights again; where they differ, a finding goes to `history`."""
    updates = [update.path for _, update in files.included if update is not None]
    is_complete = files.is_complete and len(updates) == len(files.included)
    settings = history.known.plan_of(files.target.manifest.round).aggregation
    if not is_complete or (files.parent is None and needs_parent(settings, len(updates))):
        return Outcome.IMPOSSIBLE
    parent = updates[0] if files.parent is None else files.parent.path  # anything will do
    number = files.target.manifest.round
    try:
        found = first_difference(
            settings,
            Inputs(
                parent,
                updates,
                [entry.weight for entry, _ in files.included],
                None if files.state_before is None else files.state_before.path,
            ),
            files.target.path,
            None if files.state is None else files.state.path,
            history.known.table,
        )
    except BrainfedError as error:
        history.findings.append(finding_of(error, files.target.path, number))
        return Outcome.DIFFERS
    if found is None:
        return Outcome.REDERIVED
    what = "global weights are" if found.path == files.target.path else "rule's state is"
    sentence = (
        f"The {what} not what follows from their updates by {settings.rule}. First in tensor "
        f"{found.tensor}, index {list(found.index)}: the file holds {found.there!r}, "
        f"computed is {found.computed!r}."
    )
    history.find(FindingKind.ARITHMETIC, sentence, found.path, number)
    return Outcome.DIFFERS


@dataclass(frozen=True)
class Inputs:
    """Files from which global weights follow, checked before."""

    parent: Path
    updates: Sequence[Path]
    """In name order of their sites."""
    weights: Sequence[int]
    state: Path | None


def first_difference(
    settings: Aggregation, inputs: Inputs, target: Path, state: Path | None, table: TensorTable
) -> Difference | None:
    """Aggregate again and hold the result against files, value by value.

    Source: the averaging specification (`docs/formats/averaging.md`).

    Args:
        settings: The rule.
        inputs: What it is computed from.
        target: The global weights.
        state: The rule's new state; not compared where None.
        table: Names and shapes of all tensors.

    Raises:
        MalformedError: The weights can't be averaged exactly.
        QuorumError: Too few sites for the rule.
    """
    n_values, n_words = n_parameters(table), len(settings.rule.state)
    n_threads = min(N_THREADS, os.cpu_count() or 1)
    with contextlib.ExitStack() as stack:

        def opened(path: Path, word: int = 0) -> OpenFile:
            return OpenFile(stack.enter_context(path.open("rb")), path, word * n_values)

        def words(path: Path | None) -> list[OpenFile]:
            return [] if path is None else [opened(path, word) for word in range(n_words)]

        threads = stack.enter_context(ThreadPoolExecutor(n_threads))
        stored = [(target, opened(target)), *((state or target, word) for word in words(state))]
        walk = stretches(
            settings,
            Sources(
                opened(inputs.parent),
                [opened(path) for path in inputs.updates],
                words(inputs.state),
            ),
            inputs.weights,
            n_values,
            threads=threads,
            n_threads=n_threads,
        )
        for stretch in walk:
            for (path, source), computed in zip(
                stored, (stretch.result, *stretch.state), strict=False
            ):
                there = np.empty(len(computed), "<f4")
                source.read_into(there)
                # As bits: 0.0 and -0.0 are equal numbers, but not equal files.
                differ = np.flatnonzero(computed.view("<u4") != there.view("<u4"))
                if differ.size:
                    at = int(differ[0])
                    name, index = _place(stretch.start + at, table)
                    return Difference(path, name, index, float(there[at]), float(computed[at]))
    return None


def _place(position: int, table: TensorTable) -> tuple[str, tuple[int, ...]]:
    """Tensor and index of a value, from its place in the file."""
    for name, shape in sorted(table.items()):
        n = math.prod(shape)
        if position < n:
            return name, tuple(int(i) for i in np.unravel_index(position, shape))
        position -= n
    raise AssertionError("beyond the last tensor")
