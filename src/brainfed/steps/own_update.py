"""Take weights that the site's own program trained as its update of the open round."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from brainfed.core.architecture import check_external
from brainfed.errors import ConflictError, PlanError, UsageError
from brainfed.formats import (
    atomic,
    dataset,
    federation,
    floor,
    given_weights,
    rounds,
    signature,
    weights,
)
from brainfed.formats.dataset import Subset
from brainfed.formats.federation import Federation
from brainfed.formats.ledger import Event
from brainfed.formats.manifest import UNDECLARED_SPLIT, Kind, Manifest
from brainfed.formats.roster import Role
from brainfed.formats.shelf import DiskShelf
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace
from brainfed.steps.turns import check_turn


@dataclass(frozen=True, slots=True)
class Counts:
    """What an external program trained on."""

    n_patients: int
    n_cases: int
    n_slices: int


@dataclass(frozen=True, slots=True)
class TakenUpdate:
    """An update made of given weights."""

    update: WeightsFile
    already: bool
    """Whether it was there already, made of the same weights and counts."""


def take_update(place: Workspace, path: Path, declared: Counts | None = None) -> TakenUpdate:
    """Make the update of the open round from weights that the site's own program wrote.

    Tensors that the plan keeps local stay behind. The update takes the place of one that was made
    before, as a new edition.

    Args:
        place: The workspace of a site, in a federation with an external network.
        path: A safetensors file.
        declared: What was trained on; from the workspace's own cases and split if None.

    Raises:
        PlanError: The plan's network is one of brainfed's own, or its last round is closed.
        QuorumError: In a relay it is not this site's turn.
        WorkspaceError: The other role, not joined, or no global weights yet.
        UsageError: No counts where there are no cases, or both; the file is missing or a pickle.
        FileRefusedError: The weights are not those of the plan's network.
        ConflictError: The update of this round is signed already.
        ResourceError: The disk refuses.
    """
    place.require(Role.SITE)
    known = federation.load(place)
    known.principal(Role.SITE, place.name)
    incoming = rounds.newest_global(place, known)
    number = incoming.manifest.round + 1
    federation.check_accepted(place, known, number)
    plan = known.plan_of(number)
    check_external(plan)
    _check_open(known, number)
    check_turn(known, DiskShelf(place), number, place.name)
    tensors = given_weights.read_tensors(path, known.table, local=plan.network.local)
    counts, split, n_validation = _counts(place, known, number, declared)
    there = _update_there(place, known, number)
    manifest = rounds.new_manifest(
        known,
        number,
        kind=Kind.UPDATE,
        edition=1 if there is None else there.manifest.edition,
        sender=place.name,
        parent=incoming.digest,
        split=split,
        n_patients=counts.n_patients,
        n_cases=counts.n_cases,
        n_slices=counts.n_slices,
        n_validation=n_validation,
        versions={name: version(name) for name in ("brainfed", "numpy")},
    )
    folder = place.round_folder(number)
    atomic.make_folder(folder)
    if there is not None:
        if _says_the_same(there.manifest, manifest) and _same(there, known, tensors):
            return TakenUpdate(there, already=True)
        _give_way(place, there, manifest)
        manifest = manifest.model_copy(update={"edition": there.manifest.edition + 1})
    target = folder / known.weights_name(manifest)
    weights.write(target, manifest, tensors)
    digest = signature.digest_of(target).hex()
    place.note(Event.MADE, what="update", round=number, digest=digest)
    return TakenUpdate(WeightsFile(target, digest, manifest), already=False)


def _check_open(known: Federation, number: int) -> None:
    last = max(entry.plan.rounds for entry in known.plans)
    if number > last:
        raise PlanError(
            "All rounds of the plan are closed",
            expected=f"a round up to {last}",
            found=f"round {number}",
            where="rounds",
            hint="the last global weights are the result; ask the coordinator",
        )


def _counts(
    place: Workspace, known: Federation, number: int, declared: Counts | None
) -> tuple[Counts, str, int | str]:
    """What was trained on, the split's digest, and the number of validation patients."""
    has_cases = dataset.index_path(place.data).exists() and dataset.split_path(place.data).exists()
    if has_cases and declared is not None:
        raise UsageError(
            "This workspace has cases and a split, and they say what was trained on",
            expected="neither --patients nor --cases nor --slices",
            where=place.data,
            hint="leave them out; train on the patients of the training part",
        )
    if has_cases:
        entries = dataset.cases_of(place.data, Subset.TRAIN)
        held_out = dataset.cases_of(place.data, Subset.VALIDATION)
        counts = Counts(
            n_patients=len({entry.patient for entry in entries}),
            n_cases=len(entries),
            n_slices=sum(entry.n_slices for entry in entries),
        )
        smallest = floor.holding(known.plan_of(number), place.floor)
        n_validation = floor.count(len({entry.patient for entry in held_out}), smallest)
        return counts, dataset.split_digest(place.data), n_validation
    if declared is None:
        raise UsageError(
            "Nothing here says what these weights were trained on",
            expected="--patients N --cases N --slices N",
            where=place.data,
            hint="they are the weight of this site in the mean; or run `brainfed preprocess` and "
            "`brainfed split`, and train on the training part",
        )
    return declared, UNDECLARED_SPLIT, 0


def _update_there(place: Workspace, known: Federation, number: int) -> WeightsFile | None:
    path = rounds.update_path(place, known, number, place.name)
    if path is None:
        return None
    return WeightsFile(path, signature.digest_of(path).hex(), weights.check(path, known.table))


def _give_way(place: Workspace, there: WeightsFile, new: Manifest) -> None:
    """Take away an update that nobody has signed; one that was signed for other weights stays."""
    if not signature.signature_path(there.path).exists():
        atomic.remove(place.outbox / there.path.name)
        atomic.remove(there.path)
    elif (there.manifest.parent, there.manifest.plan) == (new.parent, new.plan):
        raise ConflictError(
            f"The update of round {new.round} is signed already, and may have been carried",
            expected="the weights that were signed",
            found="other weights, or other counts",
            where=there.path,
            hint="go on with the next round; if the signed weights are wrong, tell the coordinator "
            "before the round is closed",
        )


def _says_the_same(there: Manifest, now: Manifest) -> bool:
    """Whether two manifests differ in nothing but when they were made."""
    as_there = {"roster_version": there.roster_version, "versions": there.versions}
    return there == now.model_copy(update=as_there)


def _same(there: WeightsFile, known: Federation, tensors: weights.Tensors) -> bool:
    found = weights.read_tensors(there.path, known.table)
    return all(found[name].tobytes() == tensors[name].tobytes() for name in found)
