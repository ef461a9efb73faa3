"""Re-derive: compute the global weights of a round again from the signed updates, to the bit."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from brainfed.core.architecture import TensorTable, n_parameters
from brainfed.core.averaging import Mean, check_weights
from brainfed.errors import BrainfedError, ResourceError
from brainfed.formats import rounds, signature, weights
from brainfed.formats.manifest import Manifest
from brainfed.formats.record import Input
from brainfed.formats.signature import Signed
from brainfed.steps.findings import FindingKind, finding_of
from brainfed.steps.gather import Claim
from brainfed.steps.history import History

BLOCK_VALUES = 2**16
"""Values that are averaged at a time; no bit depends on it, and it fits a processor's cache."""
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
    """The first value in which two computations of global weights differ."""

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


def rederive(
    history: History, target: Weighty, included: Sequence[tuple[Input, Weighty | None]]
) -> Outcome:
    """Compute global weights again; where they differ, a finding goes to `history`.

    Args:
        history: The federation.
        target: The global weights.
        included: What their record says of each included site, and its update; None where missing.
    """
    paths = [update.path for _, update in included if update is not None]
    if len(paths) < len(included):
        return Outcome.IMPOSSIBLE
    number, shares = target.manifest.round, [entry.weight for entry, _ in included]
    try:
        found = first_difference(target.path, paths, shares, history.known.table)
    except BrainfedError as error:
        history.findings.append(finding_of(error, target.path, number))
        return Outcome.DIFFERS
    if found is None:
        return Outcome.REDERIVED
    sentence = (
        f"The global weights are not the mean of their updates. First in tensor {found.tensor}, "
        f"index {list(found.index)}: the file holds {found.there!r}, "
        f"the mean is {found.computed!r}."
    )
    history.find(FindingKind.ARITHMETIC, sentence, target.path, number)
    return Outcome.DIFFERS


def first_difference(
    target: Path, updates: Sequence[Path], shares: Sequence[int], table: TensorTable
) -> Difference | None:
    """Average updates again and hold the result against a file, value by value.

    Source: the averaging specification (`core.averaging`).

    Args:
        target: The global weights.
        updates: The updates, in name order of their sites.
        shares: Their integer weights.
        table: Names and shapes of all tensors.

    Raises:
        MalformedError: The weights can't be averaged exactly.
    """
    n_values = n_parameters(table)
    mean = Mean(min(BLOCK_VALUES, n_values), check_weights(shares))
    with contextlib.ExitStack() as stack:
        there = stack.enter_context(_at_values(target))
        streams = [stack.enter_context(_at_values(path)) for path in updates]
        for start in range(0, n_values, BLOCK_VALUES):
            count = min(BLOCK_VALUES, n_values - start)
            for stream, share in zip(streams, shares, strict=True):
                mean.add(_read(stream, count), share)
            computed, stored = mean.take(count).astype(np.float32), _read(there, count)
            # As bits: 0.0 and -0.0 are equal numbers, but not equal files.
            differ = np.flatnonzero(computed.view("<u4") != stored.view("<u4"))
            if differ.size:
                at = int(differ[0])
                name, index = _place(start + at, table)
                return Difference(name, index, float(stored[at]), float(computed[at]))
    return None


@contextlib.contextmanager
def _at_values(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as stream:
        stream.seek(weights.data_start(path))
        yield stream


def _read(stream: BinaryIO, count: int) -> npt.NDArray[np.float32]:
    return np.frombuffer(stream.read(4 * count), "<f4")


def _place(position: int, table: TensorTable) -> tuple[str, tuple[int, ...]]:
    """Tensor and index of a value, from its place in the file."""
    for name, shape in sorted(table.items()):
        n = math.prod(shape)
        if position < n:
            return name, tuple(int(i) for i in np.unravel_index(position, shape))
        position -= n
    raise AssertionError("beyond the last tensor")
