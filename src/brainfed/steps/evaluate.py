"""Evaluate weights on a site's own patients, by every measure.

The unit is the patient: a patient's score is the mean over its cases, and mean, standard
deviation, median, interval and the worst five are taken over patients. Tables and pictures stay at
the site; what the floor allows of the scores of global weights goes into a score file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path

from brainfed import plan as plans
from brainfed.core.architecture import check_own
from brainfed.core.comparison import Difference, Interval, compare, intervals
from brainfed.core.device import choose_device
from brainfed.core.device import threads as cpu_threads
from brainfed.core.inference import network_with
from brainfed.core.progress import Progress, silent
from brainfed.core.scoring import CaseScore, Summary, summarise
from brainfed.errors import ScanError, UsageError
from brainfed.formats import (
    dataset,
    federation,
    floor,
    score_journal,
    score_table,
)
from brainfed.formats.dataset import CaseEntry, Subset
from brainfed.formats.federation import Federation
from brainfed.formats.ledger import Event
from brainfed.formats.manifest import Kind
from brainfed.formats.roster import Role
from brainfed.formats.score_journal import MeasuredCase
from brainfed.formats.score_table import About, ScoredSpace
from brainfed.formats.scores import Group
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace
from brainfed.plan import Evaluation, Plan
from brainfed.steps import case_pictures, local_layers, native_space, score_file
from brainfed.steps.choose_weights import Wish, check_finished, files_of
from brainfed.steps.score_cases import Scorer, entries_of, score_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What one weight file achieves on the cases."""

    weights: WeightsFile
    rows: tuple[CaseScore, ...]
    """Per case and region, in the order of case ids and the plan's regions."""
    summaries: tuple[Summary, ...]
    """Per measure and region, over patients."""
    intervals: tuple[Interval, ...]
    """Of the means, where there are patients enough."""
    report_path: Path
    """The rows as CSV, in the site's `reports/`."""
    n_kept: int
    """Cases that an interrupted evaluation had scored already."""
    layers_are_drawn: bool
    """Whether the plan keeps layers local and the site has none yet: those of the seed counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateResult(Scored):
    """What weights achieve on one subset of the site's patients."""

    subset: Subset
    space: ScoredSpace
    evaluation: Evaluation
    """The plan's rules."""
    n_patients: int
    n_cases: int
    n_nominal: int
    """Cases whose spacing is a convention: they have no mm and no ml."""
    apart: dict[Group, tuple[Summary, ...]]
    """Of the patients with every modality, and of those who lack one; empty if all are alike."""
    pictures: tuple[Path, ...]
    """Of the best, the median and the worst case, in `reports/`; none on the scans' own grids."""
    score_path: Path | None
    """The score file that `export` signs; None where nothing of this may leave."""
    against: Scored | None
    """The second weights."""
    differences: tuple[Difference, ...]
    """The first weights less the second, on the same patients."""


def evaluate(
    place: Workspace,
    wish: Wish | None = None,
    *,
    today: date,
    confirmed: bool = False,
    jobs: int = 1,
    device: str | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> EvaluateResult:
    """Score weights on the cases of a subset and write tables and pictures to `reports/`.

    Every case is written down as it is finished; interrupted, the same command goes on from there.

    Args:
        place: A site's workspace.
        wish: What is to be scored; the newest global weights on the validation part where None.
        today: The day for the score file.
        confirmed: That opening the test set is meant.
        jobs: Processes that measure; the result doesn't depend on them.
        device: As for `train_round`; likewise `threads`.
        threads: See `device`.
        progress: Told of each case.

    Raises:
        PlanError: The network is external, or has layers at the sites that an evaluator lacks.
        UsageError: The test set without confirmation, or of other weights than the final's; no
            such weight file, or one file twice.
        WorkspaceError: The other role, not joined, no cases or no split yet, no such round, or for
            the test set no final or no layers of its own.
        ScanError: A case is damaged or of another plan, the subset is empty, or the scans of a case
            are not there to be scored on.
        FileRefusedError: The weights are damaged, of a stranger, or of another federation.
        ResourceError: The disk, the device or the memory.
    """
    place.require(Role.SITE, Role.EVALUATOR)
    wish = wish or Wish()
    known = federation.load(place)
    chosen = choose_device(device)
    if wish.subset is Subset.TEST:
        check_finished(place, known)
        if not confirmed:
            raise _unconfirmed()
    files = files_of(place, known, wish)
    plan = known.plan_of(files[0].manifest.round)
    check_own(plan, "evaluate")
    local_layers.check_can_run(plan, place, "evaluate")
    entries = _entries_to_score(place, plan, wish.subset)
    is_native = wish.space is ScoredSpace.NATIVE
    scans = native_space.scans_by_case(place.data) if is_native else None
    if wish.subset is Subset.TEST:
        local_layers.check_has_own(place, known, files[0], "its test patients stay closed")
    tensors = [local_layers.whole(place, known, file, progress) for file in files]
    if wish.subset is Subset.TEST:
        _note_opened(place, files, len(entries))
    with cpu_threads(threads):
        work = [
            _Work(place, wish, known, file, Scorer(model, plan, chosen, place.data, scans))
            for file, loaded in zip(files, tensors, strict=True)
            for model in [network_with(loaded, plan, chosen)]
        ]
        found = [one.score(entries, jobs=jobs, progress=progress) for one in work]
        first, second = found[0], found[1] if len(found) > 1 else None
        pictures: tuple[Path, ...] = ()
        if not is_native:
            pictures = case_pictures.draw(work[0].scorer, entries, first.rows, first.report_path)
    score_path = _put_scores(place, known, wish, first, today)
    for one in work:
        one.journal.close()
    regions = plan.scans.regions
    return EvaluateResult(
        **{field.name: getattr(first, field.name) for field in fields(first)},
        subset=wish.subset,
        space=wish.space,
        evaluation=plan.evaluation,
        n_patients=len({entry.patient for entry in entries}),
        n_cases=len(entries),
        n_nominal=sum(entry.spacing_nominal for entry in entries),
        apart=_apart(first.rows, plan),
        pictures=pictures,
        score_path=score_path,
        against=second,
        differences=() if second is None else compare(first.rows, second.rows, regions),
    )


def _apart(rows: Sequence[CaseScore], plan: Plan) -> dict[Group, tuple[Summary, ...]]:
    groups = floor.groups_of(rows)
    of_each = {group: groups[group] for group in (Group.COMPLETE, Group.INCOMPLETE)}
    if not all(of_each.values()):
        return {}
    return {
        group: summarise((row for row in rows if row.patient in patients), plan)
        for group, patients in of_each.items()
    }


class _Work:
    """One weight file on the cases: its journal, then its table."""

    def __init__(
        self, place: Workspace, wish: Wish, known: Federation, file: WeightsFile, scorer: Scorer
    ) -> None:
        self.wish, self.plan, self.file, self.scorer = wish, scorer.plan, file, scorer
        grid = ".native" if wish.space is ScoredSpace.NATIVE else ""
        self.table = place.reports / f"evaluate.{file.digest[:8]}.{wish.subset}{grid}.csv"
        key = scorer.key(local_layers.digest_of(place, known, file))
        self.journal = score_journal.open_journal(self.table, key)
        self.layers_are_drawn = local_layers.are_drawn(place, known, file)

    def score(self, entries: Sequence[CaseEntry], *, jobs: int, progress: Progress) -> Scored:
        """Score all cases and write the table."""
        measured = score_all(self.scorer, entries, self.journal, jobs=jobs, progress=progress)
        rows = tuple(row for case in measured for row in case.rows)
        score_table.write_table(self.table, rows, self._about(measured))
        return Scored(
            weights=self.file,
            rows=rows,
            summaries=summarise(rows, self.plan),
            intervals=intervals(rows, self.plan.scans.regions),
            report_path=self.table,
            n_kept=sum(self.journal.kept(e.id, e.digest) is not None for e in entries),
            layers_are_drawn=self.layers_are_drawn,
        )

    def _about(self, measured: Sequence[MeasuredCase]) -> About:
        manifest, evaluation = self.file.manifest, self.plan.evaluation
        return About(
            space=self.wish.space,
            subset=self.wish.subset.value,
            weights=self.file.digest,
            kind=manifest.kind.value,
            round=manifest.round,
            edition=manifest.edition,
            sender=manifest.sender,
            plan=plans.plan_digest(self.plan),
            regions=self.plan.scans.regions,
            tolerance_mm=evaluation.tolerance_mm,
            lesions=evaluation.lesions,
            n_patients=len({row.patient for case in measured for row in case.rows}),
            n_cases=len(measured),
            n_nominal=sum(case.is_nominal for case in measured),
        )


def _put_scores(
    place: Workspace, known: Federation, wish: Wish, first: Scored, today: date
) -> Path | None:
    """What the floor allows of the scores of global weights; nothing of any others leaves."""
    is_plain = wish.space is ScoredSpace.PLAN and wish.subset is not Subset.TRAIN
    if first.weights.manifest.kind is not Kind.GLOBAL or not is_plain:
        return None
    return score_file.put_scores(place, known, first.weights, wish.subset, first.rows, today=today)


def _note_opened(place: Workspace, files: Sequence[WeightsFile], n_cases: int) -> None:
    for file in files:
        place.note(
            Event.OPENED_TEST,
            weights=file.digest,
            round=file.manifest.round,
            n_cases=n_cases,
        )


def _unconfirmed() -> UsageError:
    return UsageError(
        "The test set is opened once, and only on purpose",
        expected="a confirmation",
        hint="`brainfed evaluate` without --subset test scores validation patients",
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
