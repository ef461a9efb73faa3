"""Weights on a site's own cases: predict, measure, and keep what is done.

`scores_of` takes the two quick Dice scores that training needs; `score_all` every measure.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from brainfed import plan as plans
from brainfed.core import inference, unet
from brainfed.core.device import memory_errors
from brainfed.core.inference import THRESHOLD, network_with, probabilities, score_volume
from brainfed.core.labels import region_mask
from brainfed.core.metrics import Measure, soft_slice_dice
from brainfed.core.progress import Progress, silent
from brainfed.core.samples import Volume
from brainfed.core.scoring import CaseScore
from brainfed.core.training import Weights
from brainfed.core.unet import UNet
from brainfed.errors import ScanError
from brainfed.formats import dataset
from brainfed.formats.dataset import Case, CaseEntry, Subset
from brainfed.formats.found_case import FoundCase
from brainfed.formats.score_journal import Journal, MeasuredCase
from brainfed.plan import Plan
from brainfed.steps import measure_outlines, native_space, processes
from brainfed.steps.measure_outlines import Outlines, packed

BACK = "run `brainfed preprocess` again"


@dataclass(frozen=True, slots=True)
class Scorer:
    """Weights in the plan's network on a device, and the cases that they are tried on."""

    model: UNet
    plan: Plan
    device: torch.device
    data_folder: Path
    scans: Mapping[str, FoundCase] | None = None
    """Where the scans of each case are, to score on their own grid; None for the plan's."""

    def outlines(self, entry: CaseEntry) -> Outlines:
        """Predict one case.

        Raises:
            ScanError: The case can't be used, or its scans are not there.
            ResourceError: The memory is too small.
        """
        (case,) = read_cases(self.data_folder, [entry], self.plan)
        volume = volume_of(case, self.plan)
        found = self._probabilities(case)
        besides: tuple[Mapping[Measure, float], ...]
        if self.scans is None:
            predicted, true = tuple(found > THRESHOLD), tuple(volume.regions)
            spacing_mm = case.spacing_mm
            # The slices of a scan may lie in any direction: the paper's score is the plan's grid's.
            besides = tuple(
                {Measure.SOFT_SLICE_DICE: soft_slice_dice(one, truth)}
                for one, truth in zip(found, volume.regions, strict=True)
            )
        else:
            back = native_space.bring_back(
                found, case, self.plan, data_folder=self.data_folder, scans=self.scans
            )
            predicted, true, spacing_mm = back.predicted, back.true, back.spacing_mm
            besides = tuple({} for _ in predicted)
        return Outlines(
            case=case.id,
            patient=case.patient,
            digest=entry.digest,
            is_complete=all(case.present),
            is_nominal=case.spacing_nominal,
            regions=self.plan.scans.regions,
            shape=true[0].shape,
            predicted=packed(predicted),
            true=packed(true),
            besides=besides,
            spacing_mm=spacing_mm,
            evaluation=self.plan.evaluation,
        )

    def predicted(self, case: Case) -> NDArray[np.bool_]:
        """The outlines `(region, z, y, x)` of one case on the plan's grid.

        Raises:
            ResourceError: The memory is too small.
        """
        return self._probabilities(case) > THRESHOLD

    def _probabilities(self, case: Case) -> NDArray[np.float32]:
        with memory_errors(self.plan):
            return probabilities(self.model, case.image, self.device)

    def key(self, digest: str) -> str:
        """SHA-256 over all but the cases that decides the scores of weights with this digest."""
        return measure_outlines.key_of(
            self.plan.evaluation,
            self.plan.scans.regions,
            *(inference, unet, native_space),
            libraries=("torch",),
            weights=digest,
            data=plans.data_digest(self.plan),
            device=str(self.device),
            native=self.scans is not None,
        )


def score_all(
    scorer: Scorer,
    entries: Sequence[CaseEntry],
    journal: Journal,
    *,
    jobs: int = 1,
    progress: Progress = silent,
) -> list[MeasuredCase]:
    """Score cases by every measure; those that the journal holds are not scored again.

    The network works in this process, the measures in others where `jobs` is above 1. The result
    doesn't depend on `jobs`.

    Args:
        scorer: The weights.
        entries: The cases.
        journal: Gets every case as it is finished.
        jobs: Processes that measure; as many cases and one are in memory.
        progress: Told of each case.

    Returns:
        In the order of the cases.

    Raises:
        ScanError: A case can't be used.
        ResourceError: Disk or memory ran out.
    """
    done = {entry.id: kept for entry in entries if (kept := journal.kept(entry.id, entry.digest))}
    missing = [entry for entry in entries if entry.id not in done]
    tasks = map(scorer.outlines, missing)
    # Closed on the way out, so that no process is left behind an error or Ctrl-C.
    with contextlib.closing(processes.each(measure_outlines.measure, tasks, jobs=jobs)) as found:
        for measured in found:
            journal.add(measured)
            done[measured.case] = measured
            progress("evaluating cases", len(done), len(entries))
    return [done[entry.id] for entry in entries]


def scores_of(
    weights: Weights,
    plan: Plan,
    cases: Iterable[Case],
    *,
    device: torch.device,
    besides: Iterable[Weights] = (),
    n_cases: int | None = None,
    progress: Progress = silent,
) -> list[CaseScore]:
    """The two Dice scores of cases in memory or as they are read, one at a time.

    Args:
        weights: float32 arrays by name.
        plan: The plan.
        cases: The cases; of an iterator only one is in memory.
        device: Where to compute.
        besides: Further weights; then the mean of all their probabilities is scored.
        n_cases: How many there are, for `progress`; counted where the cases are in memory.
        progress: Told of each case.

    Raises:
        ScanError: A case can't be used.
        ResourceError: The memory is too small.
    """
    models = [network_with(one, plan, device) for one in (weights, *besides)]
    rows: list[CaseScore] = []
    if n_cases is None:
        n_cases = len(cases) if isinstance(cases, Sized) else 0
    for number, case in enumerate(cases, start=1):
        volume = volume_of(case, plan)
        rows += score_volume(models, volume, plan, device, case=case.id, patient=case.patient)
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
            hint=f"{BACK}; if it stays, the scans need a look",
        )
    regions = [region_mask(case.label, case.protocol, region) for region in plan.scans.regions]
    return Volume(case.image, np.stack(regions), case.present, case.id)


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
            hint=f"{BACK}, then `brainfed split`",
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
            raise ScanError("A case was made for another plan", where=path, hint=BACK)
        yield case
