"""Audit: tell the story of a federation again from its signed files, trusting nobody."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

from brainfed.core.progress import Progress, silent
from brainfed.errors import LedgerError
from brainfed.formats import document, federation, ledger
from brainfed.formats.acceptance import Acceptance
from brainfed.formats.amendment import Amendment
from brainfed.formats.approval import Approval
from brainfed.formats.document import Header
from brainfed.formats.enrolment import Enrolment
from brainfed.formats.erasure import Erasure
from brainfed.formats.final import Final
from brainfed.formats.manifest import Manifest
from brainfed.formats.record import Record
from brainfed.formats.roster import Role, Roster
from brainfed.formats.scores import Scores
from brainfed.formats.signature import Signed
from brainfed.formats.start import Start
from brainfed.formats.workspace import Workspace
from brainfed.steps.chain import follow
from brainfed.steps.findings import Finding, FindingKind, twins
from brainfed.steps.gather import DERIVED, Gathered, choose, gather
from brainfed.steps.history import History, retrace
from brainfed.steps.rederive import Outcome, RoundAudit

MAX_LEDGER_BYTES = 2**28
"""No workspace that is at work has a longer ledger; some millions of lines."""


class Verdict(StrEnum):
    """How an audit ends."""

    REDERIVED = "re-derived"
    """Everything is here and follows, to the bit."""
    INCOMPLETE = "incomplete"
    """Nothing is wrong, but something is missing."""
    DIVERGES = "diverges"
    """Something is wrong."""


@dataclass(frozen=True)
class Audited:
    """What an audit found."""

    verdict: Verdict
    sentence: str
    """The verdict in words, with what it doesn't prove."""
    federation: str
    """Digest of start.json: all else hangs on it."""
    coordinator: str | None
    fingerprints: tuple[str, ...]
    """Of the coordinator's keys, the one in start.json first."""
    rounds: tuple[RoundAudit, ...]
    findings: tuple[Finding, ...]
    n_files: int
    """Signed files of the federation that were looked at."""
    n_foreign: int
    """Files that are none of it."""
    notes: tuple[str, ...]
    """Of the ledgers of workspaces among the folders; a ledger is no evidence for others, so the
    verdict doesn't hang on it."""


def audit(
    folders: Sequence[Path],
    *,
    wanted: str | None = None,
    of_drill: bool = False,
    progress: Progress = silent,
) -> Audited:
    """Check all signed files of a federation and compute every round again; writes nothing.

    Args:
        folders: Workspaces, archives, outboxes, sticks, or folders that hold several of these.
        wanted: Digest of the federation, or how it begins; needed where there are several.
        of_drill: Whether this audit is a part of a drill.
        progress: Told of each round.

    Raises:
        UsageError: No folder, or files of no federation or of several.
        WrongRoundError: The federation is a drill, and nothing in it counts.
    """
    found = gather(folders)
    digest = choose(found, wanted)
    n_files = len(found.papers) + len(found.claims)
    history = retrace(found, digest)
    rows: tuple[RoundAudit, ...] = ()
    fingerprints: dict[str, None] = {}
    if history is not None:
        start = history.known.start
        if document.is_of_drill(start.coordinator) and not of_drill:
            document.check_purpose("", start.purpose, "The federation", folders[0])
        rows = follow(history, found.claims, progress)
        _check_finals(history, rows)
        _check_scores(history, rows)
        for root in found.layouts:
            _check_names(root, found, history)
            _check_derived(root, found, history)
        leads = [history.known.start.roster.coordinator]
        leads += [p for p in history.known.roster.principals if p.role is Role.COORDINATOR]
        fingerprints = dict.fromkeys(lead.public_key.fingerprint for lead in leads)
    findings = tuple(dict.fromkeys(found.findings))
    verdict = _verdict(findings)
    return Audited(
        verdict=verdict,
        sentence=_sentence(verdict, rows, findings),
        federation=digest,
        coordinator=None if history is None else history.known.start.coordinator,
        fingerprints=tuple(fingerprints),
        rounds=rows,
        findings=findings,
        n_files=n_files,
        n_foreign=found.n_foreign,
        notes=tuple(note for root in found.workspaces for note in _ledger_notes(root)),
    )


def _ledger_notes(root: Path) -> Iterator[str]:
    """What a party should know of its own ledger: a broken chain, or an end that was cut off."""
    path = Workspace(root, Role.AUDITOR, "").ledger_path
    try:
        is_regular = path.is_file() and not path.is_symlink()
        if path.exists() and not (is_regular and path.stat().st_size <= MAX_LEDGER_BYTES):
            yield f"{path} is no regular file, or too long: it was not read."
            return
        for file in ledger.missing(path, root / "rounds", root / "federation"):
            yield (
                f"{path} tells nothing of {file.relative_to(root)}: its end was cut off, or a "
                "command was killed before it wrote the line."
            )
    except (LedgerError, OSError, TypeError, ValueError) as error:  # the last two: foreign JSON
        yield f"{path}: {error}"


def _verdict(findings: Sequence[Finding]) -> Verdict:
    if any(finding.kind.is_wrong for finding in findings):
        return Verdict.DIVERGES
    return Verdict.INCOMPLETE if findings else Verdict.REDERIVED


def _sentence(verdict: Verdict, rows: Sequence[RoundAudit], findings: Sequence[Finding]) -> str:
    last = max((row.round for row in rows), default=0)
    span = {0: "no round is closed yet", 1: "the global weights of round 1 follow"}.get(
        last, f"the global weights of rounds 1 to {last} follow"
    )
    n_done = sum(row.outcome is Outcome.REDERIVED for row in rows)
    n_due = sum(row.outcome is not Outcome.GIVEN for row in rows)
    n_wrong = sum(finding.kind.is_wrong for finding in findings)
    counted = f"{n_done} of {n_due} aggregations follow to the bit from the signed updates"
    told = {
        Verdict.REDERIVED: f"every signature fits, and {span} to the bit from the signed updates"
        if last
        else f"every signature fits; {span}",
        Verdict.INCOMPLETE: f"nothing is wrong, {len(findings)} missing; {counted}",
        Verdict.DIVERGES: f"{n_wrong} wrong, {len(findings) - n_wrong} missing; {counted}",
    }[verdict]
    return (
        f"{verdict}: {told}. An audit shows who signed what and that the arithmetic is as stated, "
        "in the folders that it was given; it doesn't show that an update was trained honestly."
    )


def _check_finals(history: History, rows: Sequence[RoundAudit]) -> None:
    """A federation has one final; it names the weights and the record of its round and edition."""
    stories = [(signed.digest, signed.path) for signed, _ in history.finals]
    twins(history.findings, "the final", stories, None)
    for signed, final in history.finals:
        there = [row for row in rows if (row.round, row.edition) == (final.round, final.edition)]
        # A record that isn't here is named as missing already.
        if not any(r.digest == final.weights and r.record in {None, final.record} for r in there):
            sentence = "The final names global weights or a record that are not those of its round."
            kind = FindingKind.RECORD if there else FindingKind.MISSING
            history.find(kind, sentence, signed.path, final.round)


def _check_scores(history: History, rows: Sequence[RoundAudit]) -> None:
    """Scores are of global weights of their round, and of two files one keeps all of the other."""
    known = {(row.round, row.edition, row.digest) for row in rows}
    places: dict[tuple[str, int, int], list[tuple[Signed, Scores]]] = {}
    for signed, scores in history.scores:
        of = (scores.round, scores.edition)
        places.setdefault((scores.sender, *of), []).append((signed, scores))
        if (*of, scores.weights) not in known:
            is_there = any((row.round, row.edition) == of for row in rows)
            kind = FindingKind.CONTENT if is_there else FindingKind.MISSING
            sentence = f"The scores of {scores.sender} are of weights {scores.weights[:16]}, "
            sentence += "which are not the global weights of their round here."
            history.find(kind, sentence, signed.path, scores.round)
    for (sender, number, edition), there in places.items():
        by_size = sorted((scores for _, scores in there), key=lambda s: len(s.figures))
        if not all(more.keeps(less) for less, more in pairwise(by_size)):
            stories = [(signed.digest, signed.path) for signed, _ in there]
            what = f"the scores of {sender}, round {number}, edition {edition}"
            twins(history.findings, what, stories, number)


def _check_names(root: Path, found: Gathered, history: History) -> None:
    """In a workspace or an archive, every file lies under the name of its content."""
    contents: list[tuple[Path, Header | Manifest]]
    contents = [(paper.signed.path, paper.content) for paper in found.papers]
    contents += [(claim.path, claim.manifest) for claim in found.claims]
    folders = (root / "federation", root / "rounds")
    for path, content in contents:
        right = _places(root, content, history)
        is_inside = any(folder in path.parents for folder in folders)
        if is_inside and right and path not in right:
            named = " or ".join(str(place.relative_to(root)) for place in right)
            sentence = f"By its content this file is {named}."
            history.find(FindingKind.NAME, sentence, path)


def _places(root: Path, content: Header | Manifest, history: History) -> list[Path]:
    """Where a file belongs in a workspace or an archive; none where that can't be told."""
    place, known = Workspace(root, Role.AUDITOR, ""), history.known
    match content:
        case Start():
            return [federation.start_path(place)]
        case Roster():
            return [federation.roster_path(place, content.version)]
        case Amendment():
            return [federation.amendment_path(place, content.plan.version)]
        case Acceptance():
            return [federation.acceptance_path(place, content.sender, content.plan.version)]
        case Erasure():
            return [federation.erasure_path(place, content.sender, content.edition)]
        case Enrolment():
            versions = _admissions(content, history)
            return [federation.enrolment_path(place, content.name, v) for v in versions]
        case Manifest():
            return [place.round_folder(content.round) / known.weights_name(content)]
        case Record() | Scores() | Approval() | Final():
            stem = known.file_stem(content)
            name = f"{stem}.{content.kind}.json"
            return [place.round_folder(content.round) / name]
    return []


def _admissions(content: Enrolment, history: History) -> list[int]:
    """The versions of the roster that an enrolment led to: those that first say what it says.

    None where a version before one of them is missing.
    """

    def is_in(version: int) -> bool:
        roster = history.rosters.get(version)
        fields = ("name", "role", "key", "recipient", "n_patients")
        return roster is not None and any(
            all(getattr(entry, name) == getattr(content, name) for name in fields)
            for entry in roster.principals
        )

    led_to = [v for v in sorted(history.rosters) if is_in(v) and not is_in(v - 1)]
    is_known = all(v == 1 or v - 1 in history.rosters for v in led_to)
    return led_to if is_known else []


def _check_derived(root: Path, found: Gathered, history: History) -> None:
    """The unsigned files beside start.json are those that follow from the newest signed ones."""
    folder = root / "federation"
    inside = [paper.content for paper in found.papers if folder in paper.signed.path.parents]
    rosters = [c for c in inside if isinstance(c, Roster)] + [history.known.start.roster]
    roster = max(rosters, key=lambda roster: roster.version)
    plans = [c for c in inside if isinstance(c, Amendment)]
    newest = max(plans, key=lambda amendment: amendment.plan.version, default=None)
    plan_text = history.known.start.plan_text if newest is None else newest.plan_text
    contents = (roster.allowed_signers(), roster.revoked_keys(), plan_text.encode())
    for name, right in zip(DERIVED, contents, strict=True):
        path = folder / name
        if not history.knows_newest[Amendment if name == federation.PLAN else Roster]:
            continue  # it may follow from the one that is missing
        if not path.is_file():
            sentence = f"federation/{name}, which follows from signed files, is missing."
            history.find(FindingKind.MISSING, sentence, path)
        elif path.stat().st_size != len(right) or path.read_bytes() != right:
            what = "the newest plan" if name == federation.PLAN else f"roster {roster.version}"
            sentence = f"This is not what follows from {what} that lies beside it."
            history.find(FindingKind.DERIVED, sentence, path)
