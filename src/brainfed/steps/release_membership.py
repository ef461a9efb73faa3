"""The membership test of an update: do its losses tell training from validation patients?"""

import hashlib
from collections.abc import Sequence

import torch

from brainfed.core import membership
from brainfed.core.device import choose_device, memory_errors
from brainfed.core.inference import network_with, probabilities
from brainfed.core.progress import Progress
from brainfed.errors import NotReadyError
from brainfed.formats import dataset
from brainfed.formats.dataset import CaseEntry, Subset
from brainfed.formats.federation import Federation
from brainfed.formats.release import Attack, Membership
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace
from brainfed.plan import Architecture, Plan
from brainfed.steps import local_layers
from brainfed.steps.release_facts import millionths
from brainfed.steps.score_cases import entries_of, read_cases, volume_of

MOST_PATIENTS = 200
"""Of each kind that are looked at; more would cost hours and tell hardly more."""
_SCOPE = (
    "This bounds one attack, a threshold on the loss, by somebody who has the patient's scans. "
    "Stronger attacks may tell more, and a half says nothing against them."
)


def measure(
    place: Workspace,
    known: Federation,
    update: WeightsFile,
    parent: WeightsFile,
    *,
    device: str | None,
    progress: Progress,
) -> Membership:
    """Compare the losses of training and validation patients, under the update and its parent.

    Each patient's loss is the mean over its cases of soft Dice loss plus cross-entropy. The test
    patients stay closed.

    Args:
        place: The site's workspace.
        known: Its federation.
        update: Checked weights of this site.
        parent: The global weights that they were trained from.
        device: `cpu`, `cuda` or `cuda:1`; CUDA where there is one if None.
        progress: Told of each case.

    Raises:
        ScanError: A case is damaged, or of another plan.
        ResourceError: The device, or the memory is too small.
    """
    plan = known.plan_of(update.manifest.round)
    if plan.network.architecture is Architecture.EXTERNAL:
        return _cant("brainfed doesn't run this network")
    if not (dataset.index_path(place.data).exists() and dataset.split_path(place.data).exists()):
        return _cant("this workspace has no cases or no split")
    if dataset.split_digest(place.data) != update.manifest.split:
        return _cant("cases or split were changed since the update was trained")
    patients = [
        _some(entries_of(place.data, plan, subset), update.digest)
        for subset in (Subset.TRAIN, Subset.VALIDATION)
    ]
    n_train, n_validation = (len({entry.patient for entry in part}) for part in patients)
    if min(n_train, n_validation) < membership.FEWEST:
        return _cant(
            f"n too small ({n_train} training and {n_validation} validation patients; at least "
            f"{membership.FEWEST} of each)",
            n_train,
            n_validation,
        )
    try:
        tensors = [local_layers.whole(place, known, file, progress) for file in (update, parent)]
    except NotReadyError as error:
        return _cant(error.message[0].lower() + error.message[1:], n_train, n_validation)
    chosen = choose_device(device)
    names = ("update", "parent")
    attacks = []
    for name, loaded in zip(names, tensors, strict=True):
        model = network_with(loaded, plan, chosen)
        losses = [_losses(place, plan, part, model, chosen, progress) for part in patients]
        found = membership.separate(*losses, seed=int(update.digest[:8], 16))
        assert found is not None
        attacks.append(
            Attack(
                weights=name,
                auc=millionths(found.auc),
                low=millionths(found.low),
                high=millionths(found.high),
                true_positives=millionths(found.true_positives),
                false_positives=millionths(found.false_positives),
            )
        )
    words = _words(plan, n_validation)
    return Membership(
        n_train=n_train, n_validation=n_validation, attacks=tuple(attacks), words=words
    )


def _words(plan: Plan, n_validation: int) -> str:
    parts = [
        "An area of 0.5 is chance, 1 tells everybody apart. The parent is for comparison: what it "
        "shows too comes from earlier rounds, or from patients who differ in other ways."
    ]
    if not membership.can_resolve(n_validation):
        parts.append(
            f"1 % false positives can't be resolved with {n_validation} validation patients, n too "
            "small: true positives are given at one false positive among them."
        )
    if plan.training.patience:
        parts.append(
            "The validation patients decided when training stopped, so their losses are too small "
            "and the area is too low."
        )
    return " ".join([*parts, _SCOPE])


def _cant(why: str, n_train: int = 0, n_validation: int = 0) -> Membership:
    words = f"Can't be measured: {why}."
    return Membership(n_train=n_train, n_validation=n_validation, attacks=(), words=words)


def _some(entries: Sequence[CaseEntry], digest: str) -> tuple[CaseEntry, ...]:
    """The cases of at most `MOST_PATIENTS` patients, drawn by the update's digest."""

    def place(patient: str) -> str:
        return hashlib.sha256(f"{digest} {patient}".encode()).hexdigest()

    chosen = set(sorted({entry.patient for entry in entries}, key=place)[:MOST_PATIENTS])
    return tuple(entry for entry in entries if entry.patient in chosen)


def _losses(
    place: Workspace,
    plan: Plan,
    entries: Sequence[CaseEntry],
    model: torch.nn.Module,
    device: torch.device,
    progress: Progress,
) -> list[float]:
    """The loss of each patient, the mean over its cases."""
    by_patient: dict[str, list[float]] = {}
    for number, case in enumerate(read_cases(place.data, entries, plan), start=1):
        volume = volume_of(case, plan)
        with memory_errors(plan):
            found = probabilities(model, volume.image, device)  # type: ignore[arg-type]
        loss = membership.case_loss(found, volume.regions)
        by_patient.setdefault(case.patient, []).append(loss)
        progress("membership test", number, len(entries))
    return [sum(losses) / len(losses) for losses in by_patient.values()]
