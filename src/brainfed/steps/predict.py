"""`predict`: label maps of scans by global weights, each on the case's own scan.

A case is done when its label map lies in its place, and no file that is there is ever written over:
so an interrupted command goes on where it was, and what a person corrected stays.
"""

# SimpleITK's wrapper has no types.
# mypy: disable-error-code="no-untyped-call"

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import SimpleITK as sitk  # noqa: N813 - the name that all of its documentation uses

from brainfed.core import inference
from brainfed.core.architecture import check_own
from brainfed.core.device import choose_device
from brainfed.core.device import threads as cpu_threads
from brainfed.core.labels import LabelProtocol, can_give, check_can_hold
from brainfed.core.png import encode
from brainfed.core.progress import Progress, silent
from brainfed.core.sequence_rule import SequenceRule, default_rule
from brainfed.core.training import Weights
from brainfed.errors import NotReadyError, ScanError, UsageError
from brainfed.formats import atlas, atomic, cases_csv, scan, scan_folder, weights
from brainfed.formats.cache import CaseCache
from brainfed.formats.found_case import LABEL, FoundCase, LabelOrigin, ScanFile
from brainfed.formats.scan_folder import printable
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan, Space
from brainfed.steps import local_layers
from brainfed.steps.predict_case import RESEARCH_ONLY, Predictor
from brainfed.steps.predict_rows import PredictResult, RefusedPredictionsError, Row, Status
from brainfed.steps.recognise import Layout, plain_path, recognise
from brainfed.steps.trust_weights import Trusted, trust

NOT_LOOKED_AT = (
    "predicted, nobody has looked: correct it, say so under LabelOrigin, and empty this cell"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be predicted with what."""

    weights: Path
    """Global weights, their signature beside them."""
    scans: Path
    """A folder in a layout that `steps.recognise` knows, the folder of one case, or a table."""
    out: Path
    """Where the label maps go; made where it isn't there."""
    protocol: LabelProtocol
    """What the values of the label maps mean."""
    start: Path | None = None
    """The start of the federation, outside of its workspaces."""
    mirror: bool = False
    """Whether the flipped image is asked too."""
    atlas: Path | None = None
    """The plan's atlas, where the workspace hasn't it."""
    rule: SequenceRule | None = None
    """How DICOM series are named; brainfed's own rule where None."""
    spacing_nominal: bool = False
    """The spacing in the headers is a convention, where nothing else says."""


def predict(
    wish: Wish,
    place: Workspace | None,
    *,
    tell: Callable[[Trusted], None],
    device: str | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> PredictResult:
    """Predict all cases of a folder; each gets a label map on its own scan, and a picture.

    Args:
        wish: What with what.
        place: The workspace, where there is one: its federation vouches for the weights.
        tell: Told whose the weights are before any scan is read; may raise, to stop it.
        device: As for `train_round`; likewise `threads`.
        threads: See `device`.
        progress: Told of each case.

    Raises:
        RefusedPredictionsError: Some cases can't be predicted; a ScanError.
        UsageError: A file or folder that is not there, or the output within the scans.
        PlanError: The network is external, or has layers at the sites that aren't here.
        FileRefusedError: The weights or the start can't be trusted.
        ScanError: No case at all, or a protocol that can't hold the plan's regions.
        NotReadyError: A package or the atlas is missing, or this site's own layers.
        ResourceError: The disk, the device or the memory.
    """
    _refuse_inside(wish)
    trusted = trust(wish.weights, wish.start, place)
    tell(trusted)
    plan = trusted.plan
    check_own(plan, "run")
    vouching = place if trusted.start_path is None else None
    local_layers.check_can_run(plan, vouching, "run")
    if vouching is not None:
        words = "its outlines would be worth nothing"
        local_layers.check_has_own(vouching, trusted.known, trusted.file, words)
    check_can_hold(wish.protocol, plan.scans.regions)
    atlas_path = _atlas(wish, plan, place)
    chosen = choose_device(device)
    cases = _cases(wish, progress)
    atomic.make_folder(wish.out)
    out = wish.out.resolve()
    if (out / cases_csv.FILE_NAME).exists():
        atomic.remove_leftovers(out)
    # One thread, as `preprocess` has it, so that both see the same bits.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    with cpu_threads(threads):
        tensors, digest = _loaded(trusted, vouching)
        predictor = Predictor(
            model=inference.network_with(tensors, plan, chosen),
            plan=plan,
            device=chosen,
            digest=digest,
            protocol=wish.protocol,
            mirror=wish.mirror,
            atlas_path=atlas_path,
        )
        rows = []
        for number, (name, found) in enumerate(cases, start=1):
            rows.append(_one(predictor, name, found, out))
            progress("cases", number, len(cases), name)
    result = _result(wish, trusted, rows, out)
    if result.count(Status.REFUSED):
        raise RefusedPredictionsError(result)
    return result


def _loaded(trusted: Trusted, place: Workspace | None) -> tuple[Weights, str]:
    """The weights, with a site's own layers where the plan has such, and the digest of both."""
    file, known = trusted.file, trusted.known
    if place is None:
        return weights.read_tensors(file.path, known.table), file.digest
    return local_layers.whole(place, known, file), local_layers.digest_of(place, known, file)


def _result(wish: Wish, trusted: Trusted, rows: Sequence[Row], out: Path) -> PredictResult:
    regions = trusted.plan.scans.regions
    return PredictResult(
        warning=RESEARCH_ONLY,
        rows=tuple(rows),
        weights=trusted.file.digest,
        round=trusted.file.manifest.round,
        federation=trusted.known.prefix,
        coordinator=trusted.coordinator,
        fingerprint=trusted.fingerprint,
        protocol=wish.protocol,
        regions=tuple(r for r in regions if can_give(wish.protocol, r)),
        left_out=tuple(r for r in regions if not can_give(wish.protocol, r)),
        out=out,
        table=out / cases_csv.FILE_NAME,
    )


def _one(predictor: Predictor, name: str, found: FoundCase, out: Path) -> Row:
    """Predict one case and put its files in place, the label map last."""
    path = out / f"{name}.nii.gz"
    try:
        if path.exists() or path.is_symlink():
            remarks = _of_other_origin(path, predictor)
            row = Row(name=name, status=Status.KEPT, remarks=remarks)
        else:
            with atomic.scratch_folder(out / "cache") as folder:
                made = predictor.predict(found, CaseCache(folder))
            atomic.write_bytes(path.with_name(f"{name}.png"), encode(made.picture), replace=True)
            scan.write_scan(path, made.label, made.geometry, description=predictor.description)
            row = Row(
                name=name,
                status=Status.PREDICTED,
                reference=made.reference,
                modalities=made.modalities,
                volumes_ml=made.volumes_ml,
                remarks=tuple(printable(remark) for remark in made.remarks),
            )
        cases_csv.add(out / cases_csv.FILE_NAME, [_to_correct(found, path, predictor.protocol)])
    except ScanError as error:
        words = f"{error.message}: {error.found}" if error.found else error.message
        return Row(name=name, status=Status.REFUSED, reason=printable(words))
    return row


def _of_other_origin(path: Path, predictor: Predictor) -> tuple[str, ...]:
    if scan.description_of(path) == predictor.description:
        return ()
    return ("corrected since, or not of these weights in this protocol: left as it is",)


def _to_correct(found: FoundCase, path: Path, protocol: LabelProtocol) -> FoundCase:
    """The row that `preprocess` takes once a person has looked at the label and emptied Doubt."""
    return replace(
        found,
        label=ScanFile(path),
        protocol=protocol,
        label_origin=LabelOrigin.BY_MODEL,
        doubts={**found.doubts, LABEL: NOT_LOOKED_AT},
    )


def _refuse_inside(wish: Wish) -> None:
    scans, out = wish.scans.resolve(), wish.out.resolve()
    if scans.is_dir() and (out == scans or scans in out.parents):
        raise UsageError(
            "The label maps would lie within the folder of scans",
            expected="a folder beside it",
            where=wish.out,
            hint="nothing is written among your scans: name another folder as OUT",
        )
    if out.exists() and not out.is_dir():
        raise UsageError(
            "OUT is a file", expected="a folder", where=wish.out, hint="name a folder as OUT"
        )


def _atlas(wish: Wish, plan: Plan, place: Workspace | None) -> Path | None:
    if wish.atlas is not None:
        return atlas.check_given(wish.atlas, plan.preparation)
    if place is None and plan.preparation.space is Space.ATLAS:
        raise NotReadyError(
            "The plan brings scans into the space of an atlas",
            expected=f"{plan.preparation.atlas}, SHA-256 {plan.preparation.atlas_sha256[:16]}...",
            hint="name the file with --atlas FILE",
        )
    return atlas.find(Path() if place is None else place.data, plan.preparation)


def _cases(wish: Wish, progress: Progress) -> list[tuple[str, FoundCase]]:
    """The cases without their labels, each with the name of its files."""
    scans = plain_path(wish.scans)
    if scans.is_dir() and _is_case_folder(scans):
        cases: Sequence[FoundCase] = (scan_folder.find_case(scans)[0],)
        layout = Layout.FOLDERS
    else:
        found = recognise(scans, rule=wish.rule or default_rule(), progress=progress)
        cases, layout = found.cases, found.layout
    if not cases:
        raise ScanError(
            "There is no case in these scans",
            expected="folders of scans, DICOM series of MR images, or rows of a cases.csv",
            where=wish.scans,
            hint="`brainfed check` says what was found there",
        )
    named = [_file_name(case, scans, layout) for case in cases]
    uses = Counter(name.casefold() for name in named)
    return [
        (name if uses[name.casefold()] == 1 else f"{name}-{_tag(case)}", _without_label(case, wish))
        for name, case in zip(named, cases, strict=True)
    ]


def _is_case_folder(folder: Path) -> bool:
    try:
        return any(scan_folder.kind_of(path, folder.name) for path in folder.iterdir())
    except OSError:
        return False  # `recognise` says what is wrong with it


def _file_name(case: FoundCase, scans: Path, layout: Layout) -> str:
    """A name without what only headers say: that of DICOM's folder, not the patient's id."""
    name = case.name
    if layout is Layout.DICOM:
        below = case.folder.relative_to(scans) if scans in case.folder.parents else Path()
        name = "_".join(below.parts) or scans.name
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    return plain.lstrip(".")[:100] or "case"


def _tag(case: FoundCase) -> str:
    """Tells cases apart whose names don't: of their files, the same each time."""
    files = sorted(str(file) for file in case.images.values())
    return hashlib.sha256("\n".join(files).encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _without_label(case: FoundCase, wish: Wish) -> FoundCase:
    nominal = case.spacing_nominal
    return replace(
        case,
        label=None,
        protocol=None,
        label_origin=None,
        spacing_nominal=wish.spacing_nominal if nominal is None else nominal,
        doubts={key: words for key, words in case.doubts.items() if key != LABEL},
    )
