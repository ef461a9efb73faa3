"""Ready label maps of any software against those of readers: two folders of NIfTI files.

A pair of files with something wrong refuses the whole, since a mean over those that happen to fit
would say something else. All others are scored all the same and kept, so that all that is wrong is
told at once, and a mended file costs only itself.
"""

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from brainfed import plan as plans
from brainfed.core import volume
from brainfed.core.comparison import Interval, intervals
from brainfed.core.labels import LabelProtocol, can_give, check_regions
from brainfed.core.progress import Progress, silent
from brainfed.core.scoring import CaseScore, Summary, summaries_of
from brainfed.errors import ScanError, UsageError
from brainfed.formats import federation, nifti, rounds, scan, score_journal, score_table
from brainfed.formats.roster import Role
from brainfed.formats.scan_folder import printable
from brainfed.formats.score_journal import MeasuredCase
from brainfed.formats.score_table import About, ScoredSpace
from brainfed.formats.workspace import Workspace
from brainfed.plan import Evaluation, Plan, Region
from brainfed.steps import measure_outlines, processes, score_pair
from brainfed.steps.score_pair import Pair, digest_of

TRUTH_ENDINGS = ("_seg", "-seg")


@dataclass(frozen=True, slots=True, kw_only=True)
class MapsWish:
    """Which label maps are to be scored, and how."""

    predictions: Path
    truth: Path
    protocol: LabelProtocol
    """What the values mean, in both folders."""
    out: Path
    """The table."""
    resample: bool = False
    """Whether a prediction on another grid is brought onto that of the truth, to the nearest voxel;
    else it is refused."""
    spacing_nominal: bool = False
    """The spacing in the headers is a convention: no mm, no ml."""


@dataclass(frozen=True, slots=True)
class MapsResult:
    """What ready label maps achieve; names of files are the cases' names."""

    n_patients: int
    n_cases: int
    n_kept: int
    """Cases that an interrupted evaluation had scored already."""
    regions: tuple[Region, ...]
    evaluation: Evaluation
    has_plan: bool
    """Whether regions and rules are those of a federation's plan."""
    is_nominal: bool
    missing: tuple[str, ...]
    """Cases without a prediction, counted as missed."""
    without_truth: tuple[str, ...]
    """Predictions that nothing could be held against; not scored."""
    rows: tuple[CaseScore, ...]
    summaries: tuple[Summary, ...]
    intervals: tuple[Interval, ...]
    report_path: Path


def score_maps(
    wish: MapsWish, plan: Plan | None = None, *, jobs: int = 1, progress: Progress = silent
) -> MapsResult:
    """Score all label maps of a folder and write the table.

    Args:
        wish: Which, and how.
        plan: Whose regions and rules of evaluation count; without one all regions that the protocol
            can give, and the rules that a plan has by default.
        jobs: Processes; the result doesn't depend on them.
        progress: Told of each case.

    Raises:
        UsageError: The table's name doesn't end in .csv, or another file has it.
        ScanError: An empty folder; two files of one case; a file that can't be read, holds values
            outside of the protocol or probabilities, or lies on another grid than its partner.
        ResourceError: Disk or memory ran out.
    """
    _refuse_foreign(wish.out)
    regions = plan.scans.regions if plan else _regions_of(wish.protocol)
    check_regions(wish.protocol, regions)
    evaluation = plan.evaluation if plan else Evaluation()
    truth = _maps(wish.truth, "--truth")
    predictions = _maps(wish.predictions, "--predictions")
    pairs = [
        Pair(
            case=case,
            prediction=predictions.get(case),
            truth=path,
            protocol=wish.protocol,
            resample=wish.resample,
            is_nominal=wish.spacing_nominal,
            regions=regions,
            evaluation=evaluation,
        )
        for case, path in sorted(truth.items())
    ]
    key = measure_outlines.key_of(
        evaluation,
        regions,
        *(scan, nifti, volume, score_pair),
        protocol=str(wish.protocol),
        resample=wish.resample,
        nominal=wish.spacing_nominal,
    )
    journal = score_journal.open_journal(wish.out, key)
    done, n_kept = _score(pairs, journal, jobs=jobs, progress=progress)
    rows = tuple(row for case in done for row in case.rows)
    missing = tuple(pair.case for pair in pairs if pair.prediction is None)
    about = About(
        space=ScoredSpace.FILES,
        plan=plans.plan_digest(plan) if plan else None,
        regions=regions,
        tolerance_mm=evaluation.tolerance_mm,
        lesions=evaluation.lesions,
        n_patients=len({row.patient for row in rows}),
        n_cases=len(done),
        n_nominal=len(done) if wish.spacing_nominal else 0,
        n_missing=len(missing),
    )
    score_table.write_table(wish.out, rows, about)
    journal.close()
    return MapsResult(
        n_patients=about.n_patients,
        n_cases=len(done),
        n_kept=n_kept,
        regions=regions,
        evaluation=evaluation,
        has_plan=plan is not None,
        is_nominal=wish.spacing_nominal,
        missing=missing,
        without_truth=tuple(sorted(predictions.keys() - truth.keys())),
        rows=rows,
        summaries=summaries_of(rows, regions),
        intervals=intervals(rows, regions),
        report_path=wish.out,
    )


def table_path(place: Workspace, predictions: Path, truth: Path) -> Path:
    """Where the table of two folders lies in a workspace, the same for the same folders."""
    both = "\n".join(str(folder.resolve()) for folder in (predictions, truth))
    digest = hashlib.sha256(both.encode("utf-8", "surrogateescape")).hexdigest()
    return place.reports / f"evaluate.maps.{digest[:8]}.csv"


def plan_of(place: Workspace) -> Plan | None:
    """The plan in force at a site or an evaluator; None before there is one, and elsewhere."""
    if place.role not in (Role.SITE, Role.EVALUATOR) or not federation.has_started(place):
        return None
    return federation.load(place).plan_of(rounds.newest_round(place) or 0)


def _refuse_foreign(out: Path) -> None:
    """Write over nothing but an older table of scores."""
    if out.suffix != ".csv":
        raise UsageError(
            "The table of scores is a CSV file",
            expected="a name that ends in .csv",
            found=out.name,
            where="--out",
            hint=f"--out {out.stem}.csv",
        )
    try:
        if out.exists():
            score_table.read_table(out)
        if score_table.about_path(out).exists():
            score_table.read_about(out)
    except ScanError as error:
        raise UsageError(
            "Another file has the name of the table of scores, or of its description",
            where=error.where,
            hint="give another name with --out",
        ) from error


def _score(
    pairs: Sequence[Pair], journal: score_journal.Journal, *, jobs: int, progress: Progress
) -> tuple[list[MeasuredCase], int]:
    """Every case in order, and how many of them were kept."""
    done: dict[str, MeasuredCase] = {}
    for pair in pairs:
        there = journal.done.get(pair.case)
        if there is not None and there.digest == digest_of(pair):
            done[pair.case] = there
    n_kept, wrong = len(done), []
    missing = [pair for pair in pairs if pair.case not in done]
    with contextlib.closing(processes.each(score_pair.score_pair, missing, jobs=jobs)) as found:
        for measured in found:
            if isinstance(measured, ScanError):
                wrong.append(measured)
                continue
            journal.add(measured)
            done[measured.case] = measured
            progress("evaluating cases", len(done) + len(wrong), len(pairs))
    if wrong:
        raise _all_of(wrong)
    return [done[pair.case] for pair in pairs], n_kept


def _all_of(wrong: list[ScanError]) -> ScanError:
    """The first of several errors, which says how many others there are and where."""
    first, *others = sorted(wrong, key=lambda error: error.where or "")
    if others:
        names = ", ".join(Path(error.where or "?").name for error in others[:5])
        first.message += f"; {len(others)} more can't be scored either: {names}"
        first.message += ", ..." if len(others) > 5 else ""
    return first


def _maps(folder: Path, option: str) -> dict[str, Path]:
    """The NIfTI files of a folder by case, those below it left alone."""
    if not folder.is_dir():
        raise ScanError(
            "There is no such folder",
            where=folder,
            found=option,
            hint="name a folder, not a file: --predictions FOLDER --truth FOLDER",
        )
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        case = _case_of(path)
        if case is None:
            continue
        if case in found:
            raise ScanError(
                "Two files stand for one case",
                expected="one label map a case",
                found=f"{printable(found[case].name)} and {printable(path.name)}",
                where=folder,
                hint="take one of them out of the folder",
            )
        found[case] = path
    if not found:
        raise ScanError(
            "There is no label map in this folder",
            expected=" or ".join(nifti.ENDINGS) + ", directly in it",
            where=folder,
            hint="put the label maps of all cases side by side, one file a case",
        )
    return found


def _case_of(path: Path) -> str | None:
    """The case that a file is of, by its name; None for what is no NIfTI file."""
    ending = next((e for e in nifti.ENDINGS if path.name.lower().endswith(e)), None)
    if ending is None or path.name.startswith("."):
        return None
    stem = path.name[: -len(ending)]
    for part in TRUTH_ENDINGS:
        stem = stem.removesuffix(part)
    return stem


def _regions_of(protocol: LabelProtocol) -> tuple[Region, ...]:
    return tuple(region for region in Region if can_give(protocol, region))
