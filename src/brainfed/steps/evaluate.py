"""Evaluate weights on a site's own patients; what it finds stays at the site.

The unit is the patient: a patient's score is the mean over its cases, and mean, standard
deviation, median and the worst five are taken over patients.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from brainfed import plan as plans
from brainfed.core.device import choose_device
from brainfed.core.device import threads as cpu_threads
from brainfed.core.inference import network_with, score_volume
from brainfed.core.labels import region_mask
from brainfed.core.metrics import Measure
from brainfed.core.progress import Progress, silent
from brainfed.core.scoring import CaseScore, Summary, summarise
from brainfed.core.slices import Volume
from brainfed.core.training import Weights
from brainfed.errors import ScanError, UnsignedError, UsageError
from brainfed.formats import atomic, dataset, federation, rounds, signature, verify, weights
from brainfed.formats.dataset import Case, CaseEntry, Subset
from brainfed.formats.federation import Federation
from brainfed.formats.ledger import Event
from brainfed.formats.roster import Role
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan

COLUMNS = (
    "patient",
    "case",
    "region",
    "n_voxels",
    "n_voxels_predicted",
    "dice",
    "soft_slice_dice",
)


@dataclass(frozen=True, slots=True)
class EvaluateResult:
    """What weights achieve on one subset of the site's patients."""

    weights: WeightsFile
    subset: Subset
    n_patients: int
    n_cases: int
    rows: tuple[CaseScore, ...]
    """Per case and region, in the order of case ids and the plan's regions."""
    summaries: tuple[Summary, ...]
    """Per measure and region, over patients."""
    report_path: Path
    """The rows as CSV, in the site's `reports/`."""


def evaluate(
    place: Workspace,
    *,
    weights: Path | None = None,
    subset: Subset = Subset.VALIDATION,
    confirmed: bool = False,
    device: str | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> EvaluateResult:
    """Score weights on the cases of a subset and write the table to `reports/`.

    Args:
        place: A site's workspace.
        weights: A signed weight file of this federation, or the site's own update that is not
            signed yet; the newest global weights where None.
        subset: Whose cases. Opening the test set is written to the ledger before anything else.
        confirmed: That opening the test set is meant.
        device: As for `train_round`; likewise `threads`.
        threads: See `device`.
        progress: Told of each case.

    Raises:
        UsageError: The test set without confirmation, or no such weight file.
        WorkspaceError: The other role, not joined, no cases or no split yet.
        ScanError: A case is damaged or of another plan, or the subset is empty.
        FileRefusedError: The weights are damaged, of a stranger, or of another federation.
        ResourceError: The device or its memory.
    """
    place.require(Role.SITE, Role.EVALUATOR)
    known = federation.load(place)
    chosen = choose_device(device)
    if subset is Subset.TEST and not confirmed:
        raise _unconfirmed()
    scored = _weights_file(place, known, weights)
    plan = known.plan_of(scored.manifest.round)
    entries = _entries_to_score(place, plan, subset)
    if subset is Subset.TEST:
        place.note(
            Event.OPENED_TEST,
            weights=scored.digest,
            round=scored.manifest.round,
            n_cases=len(entries),
        )
    with cpu_threads(threads):
        rows = scores_of(
            _tensors_of(scored, known),
            plan,
            read_cases(place.data, entries, plan),
            device=chosen,
            progress=progress,
            n_cases=len(entries),
        )
    return EvaluateResult(
        weights=scored,
        subset=subset,
        n_patients=len({entry.patient for entry in entries}),
        n_cases=len(entries),
        rows=tuple(rows),
        summaries=summarise(rows, plan),
        report_path=_write_table(place, f"evaluate.{scored.digest[:8]}.{subset}.csv", rows),
    )


def scores_of(
    weights: Weights,
    plan: Plan,
    cases: Iterable[Case],
    *,
    device: torch.device,
    n_cases: int | None = None,
    progress: Progress = silent,
) -> list[CaseScore]:
    """Score weights on cases in memory or as they are read, one at a time.

    Args:
        weights: float32 arrays by name.
        plan: The plan.
        cases: The cases; of an iterator only one is in memory.
        device: Where to compute.
        n_cases: How many there are, for `progress`; counted where the cases are in memory.
        progress: Told of each case.

    Raises:
        ScanError: A case can't be used.
        ResourceError: The memory is too small.
    """
    model = network_with(weights, plan, device)
    rows: list[CaseScore] = []
    if n_cases is None:
        n_cases = len(cases) if isinstance(cases, Sized) else 0
    for number, case in enumerate(cases, start=1):
        volume = volume_of(case, plan)
        rows += score_volume(model, volume, plan, device, case=case.id, patient=case.patient)
        progress("evaluating cases", number, max(n_cases, number))
    return rows


def volume_of(case: Case, plan: Plan) -> Volume:
    """A case as the network sees it: the plan's regions in place of label values.

    Raises:
        ScanError: The label protocol can't give a region, or the image is not finite.
    """
    if not np.isfinite(case.image).all():
        raise ScanError(
            "The image of a case holds NaN or infinity",
            where=f"case {case.id}",
            hint="run `brainfed preprocess` again; if it stays, the scans need a look",
        )
    regions = [region_mask(case.label, case.protocol, region) for region in plan.scans.regions]
    return Volume(case.image, np.stack(regions), case.present)


def entries_of(data_folder: Path, plan: Plan, subset: Subset) -> tuple[CaseEntry, ...]:
    """The cases of a subset, after checking that they were made for this plan.

    Raises:
        NotReadyError: No cases or no split yet.
        ScanError: They were made for other data tables than the plan's.
    """
    found = dataset.read_whole_index(data_folder).data_digest
    if found != plans.data_digest(plan):
        raise ScanError(
            "The cases were made for another plan",
            expected=f"data tables with digest {plans.data_digest(plan)[:16]}",
            found=found[:16],
            where=dataset.index_path(data_folder),
            hint="run `brainfed preprocess` again, then `brainfed split`",
        )
    return dataset.cases_of(data_folder, subset)


def read_cases(data_folder: Path, entries: Iterable[CaseEntry], plan: Plan) -> Iterator[Case]:
    """Read cases one after the other, each checked against the index.

    Raises:
        ScanError: A case is missing, damaged, or of another plan.
    """
    digest = plans.data_digest(plan)
    for entry in entries:
        path = dataset.case_path(data_folder, entry.id)
        case = dataset.read_case(path, entry.digest)
        if case.data_digest != digest or case.image.shape[2:] != plan.grid.size:
            raise ScanError(
                "A case was made for another plan",
                where=path,
                hint="run `brainfed preprocess` again",
            )
        yield case


def _unconfirmed() -> UsageError:
    return UsageError(
        "The test set is opened once, at the end, and only on purpose",
        expected="a confirmation",
        hint="choose on validation; confirm when nothing will be chosen any more",
    )


def _entries_to_score(place: Workspace, plan: Plan, subset: Subset) -> tuple[CaseEntry, ...]:
    entries = entries_of(place.data, plan, subset)
    if not entries:
        raise ScanError(
            f"The split has no patient for {subset}",
            where=dataset.split_path(place.data),
            hint="a site of few patients may have none; choose another subset",
        )
    return entries


def _tensors_of(file: WeightsFile, known: Federation) -> Weights:
    return weights.read_tensors(file.path, known.table)


def _weights_file(place: Workspace, known: Federation, path: Path | None) -> WeightsFile:
    """The weights to score, checked; without a signature only the site's own update."""
    if path is None:
        return rounds.newest_global(place, known)
    if not path.is_file():
        raise UsageError("There is no such weight file", where=path, found="--weights")
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


def _write_table(place: Workspace, name: str, rows: Iterable[CaseScore]) -> Path:
    """Write the rows as CSV into the site's reports, in place of the same evaluation's before."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        scores = [f"{row.values[m]:.6f}" for m in (Measure.DICE, Measure.SOFT_SLICE_DICE)]
        writer.writerow(
            (row.patient, row.case, row.region, row.n_voxels, row.n_voxels_predicted, *scores)
        )
    path = place.reports / name
    atomic.make_folder(place.reports)
    atomic.write_bytes(path, text.getvalue().encode("ascii"), mode=0o600, replace=True)
    return path
