"""History: from the signed JSON of a federation to its rosters, plans, consents and records.

Everything hangs on start.json, whose digest is the federation's name: the rosters are followed from
the one in it, backwards by digest and forwards by signature, and each plan from the one before. A
file is judged by the roster that it was signed under, so what a key signed before it was revoked
stays good. A party names the newest roster that it knows, which may be older than its own key.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from brainfed.core.sshsig import PublicKey
from brainfed.errors import BrainfedError, StrangerError, WrongFederationError
from brainfed.formats import enrolment, federation, verify
from brainfed.formats.acceptance import Acceptance
from brainfed.formats.amendment import Amendment
from brainfed.formats.approval import Approval, SignedApproval
from brainfed.formats.document import Belonging, PlanVersion
from brainfed.formats.enrolment import Enrolment
from brainfed.formats.erasure import Erasure
from brainfed.formats.federation import Federation
from brainfed.formats.final import Final
from brainfed.formats.manifest import Manifest
from brainfed.formats.record import Record
from brainfed.formats.roster import Role, Roster
from brainfed.formats.scores import Scores
from brainfed.formats.signature import Signed
from brainfed.formats.start import Start
from brainfed.steps.findings import Finding, FindingKind, finding_of, twins
from brainfed.steps.gather import Gathered

Content = TypeVar("Content")


@dataclass
class History:
    """A federation through its versions, as far as the signed files tell."""

    known: Federation
    """Under the newest roster."""
    rosters: dict[int, Roster]
    findings: list[Finding]
    acceptances: dict[tuple[str, int], Acceptance] = field(default_factory=dict)
    """By site and version of the plan."""
    records: list[tuple[Signed, Record]] = field(default_factory=list)
    finals: list[tuple[Signed, Final]] = field(default_factory=list)
    scores: list[tuple[Signed, Scores]] = field(default_factory=list)
    approvals: list[SignedApproval] = field(default_factory=list)
    """By keys that could sign them; whether they count for an update, the chain says."""
    versions: dict[str, int] = field(default_factory=dict)
    """The version of the roster that each file of a round names, by digest."""
    missing: set[str] = field(default_factory=set)
    """What has been named as missing, so that it is named once."""
    knows_newest: dict[type[Roster | Amendment], bool] = field(
        default_factory=lambda: {Roster: True, Amendment: True}
    )
    """Whether no file names a newer one than those that are here."""

    def at(self, roster_version: int, key: PublicKey | None = None) -> Federation:
        """The federation under an older roster; under the newest where that one isn't here.

        Given the key of a signature: under the first roster from that one on that names the key.
        """
        named = self.rosters.get(roster_version, self.known.roster)
        later = [self.rosters[v] for v in sorted(self.rosters) if v >= roster_version]
        holding = (r for r in later if key and any(p.key == key.line for p in r.principals))
        return replace(self.known, roster=next(holding, named))

    def rests_on(self, what: str, about: Manifest | Record, file: Path, *on: str | None) -> None:
        """The coordinator knows every roster: it names none older than the files it builds on."""
        first = self.known.start.roster.version
        newest = max(self.versions.get(digest or "", first) for digest in on)
        if about.roster_version < newest:
            under = f"{what} under version {about.roster_version} of the roster"
            sentence = f"{under}, but a file that came before is under version {newest}."
            self.find(FindingKind.RECORD, sentence, file, about.round)

    def miss(self, what: str, file: Path | None = None, round_number: int | None = None) -> None:
        """Name something that isn't here, once."""
        if what not in self.missing:
            self.missing.add(what)
            self.findings.append(Finding(FindingKind.MISSING, f"{what}.", file, round_number))

    def find(
        self,
        kind: FindingKind,
        sentence: str,
        file: Path | None = None,
        round_number: int | None = None,
    ) -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, sentence, file, round_number))

    def can_judge(self, about: Manifest | Belonging, path: Path) -> bool:
        """Whether roster and plan of a file are here; what isn't is named."""
        newest = max(self.rosters)
        if about.roster_version > newest:
            self.knows_newest[Roster] = False
            self.miss(f"Version {about.roster_version} of the roster is missing", path)
            return False
        plan: PlanVersion | None = getattr(about, "plan", None)
        if plan is not None and plan.version > len(self.known.plans):
            self.knows_newest[Amendment] = False
            self.miss(f"The amendment to version {plan.version} of the plan is missing", path)
            return False
        return True


def retrace(found: Gathered, digest: str) -> History | None:
    """Follow the history of a federation; None without its start. Findings go to `found`.

    Args:
        found: Files of this federation alone.
        digest: Of start.json.
    """
    start = _start(found)
    if start is None:
        sentence = (
            f"start.json of the federation {digest[:16]} is missing, signed by its coordinator."
        )
        found.findings.append(Finding(FindingKind.MISSING, sentence))
        return None
    known = federation.assemble(start, digest, None)
    history = History(known, {start.roster.version: start.roster}, found.findings)
    _follow_rosters(history, _of(found, Roster))
    _follow_plans(history, _of(found, Amendment))
    _check_enrolments(history, _of(found, Enrolment))
    for paper, consent in _judged(history, _of(found, Acceptance)):
        if _is_of_a_plan(consent, history):
            history.acceptances[consent.sender, consent.plan.version] = consent
        else:
            sentence = "The acceptance is not of a plan of this federation."
            history.find(FindingKind.CONTENT, sentence, paper.path)
    history.records = _judged(history, _of(found, Record))
    history.finals = _judged(history, _of(found, Final))
    history.scores = _judged(history, _of(found, Scores))
    for paper, content in _judged(history, _of(found, Approval)):
        history.approvals.append(SignedApproval(paper.path, paper.key, content))
    _judged(history, _of(found, Erasure))
    return history


def _of(found: Gathered, kind: type[Content]) -> list[tuple[Signed, Content]]:
    return [(p.signed, p.content) for p in found.papers if isinstance(p.content, kind)]


def _start(found: Gathered) -> Start | None:
    good = None
    for signed, start in _of(found, Start):
        coordinator = start.roster.coordinator
        if coordinator.public_key == signed.key:
            good = start
        else:
            error = StrangerError(
                "start.json is not signed by its coordinator",
                expected=coordinator.public_key.fingerprint,
                found=signed.key.fingerprint,
            )
            found.findings.append(finding_of(error, signed.path))
    return good


def _grouped(
    papers: list[tuple[Signed, Content]], version: Callable[[Content], int]
) -> dict[int, list[tuple[Signed, Content]]]:
    groups: dict[int, list[tuple[Signed, Content]]] = {}
    for signed, content in papers:
        groups.setdefault(version(content), []).append((signed, content))
    return dict(sorted(groups.items()))


def _follow_rosters(history: History, papers: list[tuple[Signed, Roster]]) -> None:
    """Choose the roster of each version that the chain leads to, and judge every file by it."""
    by_version = _grouped(papers, lambda roster: roster.version)
    first = history.known.start.roster
    chosen = history.rosters
    for version in range(first.version - 1, 0, -1):
        after = chosen.get(version + 1)
        for _, roster in by_version.get(version, []):
            if after is None or roster.digest == after.previous:
                chosen[version] = roster
    for version, there in by_version.items():
        for signed, roster in there if version > first.version else []:
            if version not in chosen and _roster_error(history, signed, roster) is None:
                chosen[version] = roster
    newest = max(chosen)
    history.known = replace(history.known, roster=chosen[newest])
    for version, there in by_version.items():
        stories = [(signed.digest, signed.path) for signed, _ in there]
        twins(history.findings, f"version {version} of the roster", stories, None)
        for signed, roster in there:
            error = _roster_error(history, signed, roster)
            if error is not None:
                _add(history, error, signed.path)
            elif version not in chosen or signed.digest != chosen[version].digest:
                sentence = f"This is not the version {version} that the other rosters follow."
                history.find(FindingKind.TWO_STORIES, sentence, signed.path)
    for version in range(1, newest + 1):
        if version not in by_version and version != first.version:  # that one stands in start.json
            history.miss(f"Version {version} of the roster is missing")


def _roster_error(history: History, signed: Signed, roster: Roster) -> BrainfedError | None:
    """Why a roster can't come after the one before it; None where it can."""
    before = max((v for v in history.rosters if v < roster.version), default=None)
    is_before_start = roster.version <= history.known.start.roster.version
    belongs = None if is_before_start else history.known.digest
    if roster.federation != belongs:
        return WrongFederationError(
            "The roster doesn't name the federation that it is of",
            expected=str(belongs)[:16],
            found=str(roster.federation)[:16],
        )
    try:
        if before is None:
            verify.check_coordinator(signed.key, replace(history.known, roster=roster), signed.path)
        else:
            roster.check_follows(history.rosters[before], signed.key)
    except BrainfedError as error:
        return error
    return None


def _follow_plans(history: History, papers: list[tuple[Signed, Amendment]]) -> None:
    """Append each amendment that follows; its signer is the coordinator of the roster it names."""
    by_version = _grouped(papers, lambda amendment: amendment.plan.version)
    for version, there in by_version.items():
        stories = [(signed.digest, signed.path) for signed, _ in there]
        twins(history.findings, f"version {version} of the plan", stories, None)
        for gap in range(len(history.known.plans) + 1, version):
            history.miss(f"The amendment to version {gap} of the plan is missing")
        for signed, amendment in there:
            if amendment.roster_version > max(history.rosters):
                history.miss(
                    f"Version {amendment.roster_version} of the roster is missing", signed.path
                )
                continue
            at = history.at(amendment.roster_version)
            try:
                verify.check_document(Amendment, amendment.dumps(), signed, at)
                verify.check_coordinator(signed.key, at, signed.path)
                if version == len(history.known.plans) + 1:
                    history.known = history.known.amended(amendment)
            except BrainfedError as error:
                _add(history, error, signed.path)


def _add(history: History, error: BrainfedError, file: Path) -> None:
    """Add what is wrong with a roster or an amendment."""
    found = finding_of(error, file)
    is_signer = found.kind is FindingKind.SIGNER
    kind = FindingKind.SIGNER if is_signer else FindingKind.HISTORY
    history.findings.append(replace(found, kind=kind))


def _check_enrolments(history: History, papers: list[tuple[Signed, Enrolment]]) -> None:
    """Every key of the roster but the coordinator's came with an enrolment that it signed."""
    good = set()
    for signed, content in papers:
        try:
            enrolment.check_own(content, signed.key, signed.path)
            good.add((content.name, content.role, content.key))
        except BrainfedError as error:
            history.findings.append(finding_of(error, signed.path))
    for entry in history.known.roster.principals:
        is_coordinator = entry.role is Role.COORDINATOR
        if not is_coordinator and (entry.name, entry.role, entry.key) not in good:
            fingerprint = entry.public_key.fingerprint
            history.miss(f"The enrolment of {entry.name} with {fingerprint} is missing")


AnyBelonging = TypeVar("AnyBelonging", bound=Belonging)


def _judged(
    history: History, papers: list[tuple[Signed, AnyBelonging]]
) -> list[tuple[Signed, AnyBelonging]]:
    """Those that their signer could sign, in this federation and under its plan."""
    good = []
    for signed, content in papers:
        if not history.can_judge(content, signed.path):
            continue
        try:
            at = history.at(content.roster_version, signed.key)
            verify.check_document(type(content), content.dumps(), signed, at)
            # Records and approvals count by edition, in the chain.
            if isinstance(content, Scores | Final):
                history.known.roster.signer(signed.key, content.round)
            good.append((signed, content))
        except BrainfedError as error:
            number = getattr(content, "round", None)
            history.findings.append(finding_of(error, signed.path, number))
    return good


def _is_of_a_plan(consent: Acceptance, history: History) -> bool:
    entry = history.known.plans[consent.plan.version - 1]
    terms = entry.plan.terms
    return (consent.plan, consent.from_round, consent.weights_licence, consent.agreement) == (
        entry.version,
        entry.from_round,
        terms.weights_licence,
        terms.agreement_sha256 or None,
    )
