"""Chain: follow the rounds of a federation, one after the other, in memory that doesn't grow.

Each round is held against the one before, its record against the plan, the roster and the updates
that it names, and its global weights against the mean of those updates.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from brainfed.core.progress import Progress
from brainfed.errors import BrainfedError, UnsignedError
from brainfed.formats import approval
from brainfed.formats.manifest import Kind
from brainfed.formats.record import Input, InputStatus, Record
from brainfed.formats.roster import Role
from brainfed.formats.signature import Signed
from brainfed.steps.findings import FindingKind, finding_of, twins
from brainfed.steps.gather import Claim
from brainfed.steps.history import History
from brainfed.steps.record_rules import plan_faults, share_faults, turn_fault
from brainfed.steps.rederive import (
    AggregationFiles,
    Outcome,
    RoundAudit,
    Weighty,
    check_claims,
    rederive,
)

Globals = dict[int, dict[str, Path]]
"""Of one round, by edition: digests of global weights, and where that is said."""


def follow(history: History, claims: Sequence[Claim], progress: Progress) -> tuple[RoundAudit, ...]:
    """Check all weight files and re-derive every round; findings go to `history`."""
    numbers = {claim.manifest.round for claim in claims} | {r.round for _, r in history.records}
    rows: list[RoundAudit] = []
    seen: set[int] = set()
    before: dict[int, _Round] = {}
    for done, number in enumerate(sorted(numbers), start=1):
        files = check_claims(history, [c for c in claims if c.manifest.round == number])
        records = [(s, r) for s, r in history.records if r.round == number]
        history.versions |= {r.global_digest: r.roster_version for _, r in records}
        history.versions |= {s.digest: r.roster_version for s, r in records}
        history.versions |= {f.signed.digest: f.manifest.roster_version for f in files}
        now = _Round(history, number, files, records, before.get(number - 1))
        rows += now.rows()
        before = {number: replace(now, earlier=None)}
        if now.globals():
            seen.add(number)
            _miss_rounds(history, seen, number)
        elif files:  # updates alone: the round before must have been closed
            _miss_rounds(history, seen, number - 1)
        progress("audit", done, len(numbers), f"round {number}")
    return tuple(rows)


def _miss_rounds(history: History, seen: set[int], last: int) -> None:
    """Name the rounds up to `last` of which there are neither global weights nor a record."""
    for number in set(range(last + 1)) - seen:
        seen.add(number)
        history.miss(f"The global weights of round {number} are missing", None, number)
        if number:
            history.miss(f"The record of round {number} is missing", None, number)


@dataclass(frozen=True)
class _Round:
    history: History
    number: int
    files: Sequence[Weighty]
    records: Sequence[tuple[Signed, Record]]
    earlier: "_Round | None"
    """The round before; None where nothing of it is here."""

    @property
    def before(self) -> Globals:
        """Of the round before."""
        return {} if self.earlier is None else self.earlier.globals()

    def rows(self) -> list[RoundAudit]:
        """Check everything of the round."""
        updates: dict[tuple[str, int], list[tuple[str, Path]]] = {}
        for file in self._of(Kind.UPDATE):
            whose = (file.manifest.sender, file.manifest.edition)
            updates.setdefault(whose, []).append((file.signed.digest, file.path))
        for (sender, edition), there in updates.items():
            self._twins(f"the update of {sender}, round {self.number}, edition {edition}", there)
        rows = []
        for edition in self._editions():
            rows += self._edition(edition)
        self._check_unnamed()
        return rows

    def globals(self) -> Globals:
        """The global weights, by their files and by their records."""
        found: Globals = {}
        for signed, record in self.records:
            found.setdefault(record.edition, {})[record.global_digest] = signed.path
        for file in self._of(Kind.GLOBAL):
            found.setdefault(file.manifest.edition, {})[file.signed.digest] = file.path
        return found

    def _of(self, kind: Kind) -> list[Weighty]:
        return [file for file in self.files if file.manifest.kind is kind]

    def _editions(self) -> list[int]:
        there = sorted(self.globals())
        for edition in set(range(1, max(there, default=0))) - set(there):
            self._miss(f"Edition {edition} of round {self.number} is missing")
        return there

    def _edition(self, edition: int) -> list[RoundAudit]:
        """One edition: usually one record and one file of global weights."""
        there = [f for f in self._of(Kind.GLOBAL) if f.manifest.edition == edition]
        files = {f.signed.digest: f for f in there}
        of_round = f"round {self.number}, edition {edition}"
        self._twins(f"the global weights of {of_round}", [(f.signed.digest, f.path) for f in there])
        for file in there:
            parent, what = file.manifest.parent, "These global weights"
            self._check_parent(what, parent, file.path, edition)
            self.history.rests_on(f"{what} are", file.manifest, file.path, parent)
            self._check_signer(file.signed, edition)
        if self.number == 0:
            return [RoundAudit(0, edition, (), (), (), Outcome.GIVEN, d, None) for d in files]
        papers = [(s, r) for s, r in self.records if r.edition == edition]
        self._twins(f"the record of {of_round}", [(s.digest, s.path) for s, _ in papers])
        if not papers:
            self._miss(f"The record of {of_round}, is missing")
        rows = [self._row(signed, record) for signed, record in papers]
        named = {record.global_digest for _, record in papers}
        for digest, file in files.items():
            if digest not in named:
                outcome = Outcome.IMPOSSIBLE
                if papers:
                    outcome = Outcome.DIFFERS
                    sentence = "The record of this edition names other global weights than these."
                    self._find(FindingKind.TWO_STORIES, sentence, file.path)
                row = RoundAudit(self.number, edition, (), (), (), outcome, digest, None)
                rows.append(row)
        return list({(row.digest, row.record): row for row in rows}.values())

    def _row(self, signed: Signed, record: Record) -> RoundAudit:
        self._check_record(signed, record)
        updates = [self._check_input(entry, signed, record) for entry in record.inputs]
        target = next((f for f in self.files if f.signed.digest == record.global_digest), None)
        outcome = Outcome.IMPOSSIBLE
        if target is None:
            self._miss(
                f"The global weights of round {self.number}, edition {record.edition}, "
                f"{record.global_digest[:16]}, are missing"
            )
        else:
            self._check_global(target, record)
            included = [
                (entry, update)
                for entry, update in zip(record.inputs, updates, strict=True)
                if entry.status is InputStatus.INCLUDED
            ]
            plan = self.history.known.plan_of(self.number)
            told = [(entry, None if u is None else u.manifest) for entry, u in included]
            for what in share_faults(told, plan):
                self._record(signed, what)
            outcome = rederive(self.history, self._files(record, target, included))

        def names(status: InputStatus) -> tuple[str, ...]:
            return tuple(entry.sender for entry in record.inputs if entry.status is status)

        return RoundAudit(
            round=self.number,
            edition=record.edition,
            included=names(InputStatus.INCLUDED),
            excluded=names(InputStatus.EXCLUDED),
            absent=names(InputStatus.ABSENT),
            outcome=outcome,
            digest=record.global_digest,
            record=signed.digest,
        )

    def _check_record(self, signed: Signed, record: Record) -> None:
        """Hold a record against the roster, the plan, and the record and round before."""
        self._check_signer(signed, record.edition)
        self._check_parent("The record", record.parent, signed.path, record.edition)
        before = (record.parent, record.supersedes, *(entry.digest for entry in record.inputs))
        self.history.rests_on("The record is", record, signed.path, *before)
        plan = self.history.known.plan_of(self.number)
        for what in plan_faults(record, plan):
            self._record(signed, what)
        roster = self.history.at(record.roster_version).roster
        sites = [site.name for site in roster.sites]
        fault = turn_fault(record, plan, sites, self._record_before(record))
        if fault is not None:
            self._record(signed, fault)
        named = {entry.sender for entry in record.inputs}
        for name in sorted({*sites} - named):
            self._record(signed, f"The record says nothing of the active site {name}")
        for name in sorted(named - {p.name for p in roster.principals if p.role is Role.SITE}):
            self._record(signed, f"The record names {name}, which is no site of its roster")
        earlier = {s.digest for s, r in self.records if r.edition == record.edition - 1}
        if earlier and record.supersedes not in earlier:
            self._record(signed, "The record supersedes another one than the edition before")
        there = {file.signed.digest for file in self._of(Kind.STATE)}
        if record.state_digest is not None and record.state_digest not in there:
            self._miss(f"The state {record.state_digest[:16]} of the rule is missing")

    def _check_input(self, entry: Input, signed: Signed, record: Record) -> Weighty | None:
        """Find the update that a record names, and hold it against what the record says of it."""
        if entry.digest is None:
            return None
        who = f"the update of {entry.sender} for round {self.number}"
        update = next((f for f in self.files if f.signed.digest == entry.digest), None)
        if update is None:
            others = [f for f in self._of(Kind.UPDATE) if f.manifest.sender == entry.sender]
            if others:
                told = ", ".join(f"{f.signed.digest[:16]} in {f.path}" for f in others)
                sentence = f"The record names {entry.digest[:16]} as {who}; here is {told}."
                self._find(FindingKind.TWO_STORIES, sentence, signed.path)
            else:
                self._miss(f"{who.capitalize()}, {entry.digest[:16]}, is missing")
            return None
        about = update.manifest
        if (about.kind, about.sender) != (Kind.UPDATE, entry.sender):
            self._record(signed, f"What the record names as {who} is another file, {update.path}")
            return None
        if about.parent != record.parent:
            what = f"{who.capitalize()} and the record follow different global weights"
            sentence = f"{what}: {str(about.parent)[:16]} and {record.parent[:16]}."
            self._find(FindingKind.TWO_STORIES, sentence, update.path)
        if entry.status is InputStatus.INCLUDED:
            self._check_signer(update.signed, record.edition)
            self._check_approved(update, record)
        version = about.plan.version
        if (entry.sender, version) not in self.history.acceptances:
            self._miss(
                f"The acceptance of version {version} of the plan by {entry.sender} is missing"
            )
        return update

    def _check_approved(self, update: Weighty, record: Record) -> None:
        """What is included had the approval of its site, where the plan asks or there is one.

        Its key must count. The newest edition is judged by the newest roster, as the signatures of
        its updates are.
        """
        about, history = update.manifest, self.history
        digest, approver = update.signed.digest, approval.approver_of(about.sender)
        there = [one for one in history.approvals if one.content.round == self.number]
        of_it = {(one.content.sender, one.content.update) for one in there}
        asks = history.known.plan_of(self.number).exchange.approval
        if not asks and (approver, digest) not in of_it:
            return
        is_newest = record.edition == max(self.globals())
        roster = history.known.roster if is_newest else history.at(record.roster_version).roster
        try:
            approval.check_approved(about, digest, there, roster, update.path)
        except UnsignedError:
            self._miss(
                f"The approval of the update of {about.sender} for round {self.number}, "
                f"{digest[:16]}, is missing"
            )
        except BrainfedError as error:
            at = next((one.path for one in there if one.content.update == digest), update.path)
            history.findings.append(finding_of(error, at, self.number))

    def _record_before(self, record: Record) -> Record | None:
        """The record of the global weights that this round began with; None where not here."""
        there = [] if self.earlier is None else self.earlier.records
        return next((r for _, r in there if r.global_digest == record.parent), None)

    def _files(
        self,
        record: Record,
        target: Weighty,
        included: Sequence[tuple[Input, Weighty | None]],
    ) -> AggregationFiles:
        """All files of one aggregation, as far as they are here."""
        before = self._record_before(record)
        earlier = [] if self.earlier is None else self.earlier.files
        goes_on = before is not None and before.rule is record.rule
        wanted = before.state_digest if before is not None and goes_on else None
        state = _by_digest(self.files, record.state_digest)
        state_before = _by_digest(earlier, wanted)
        is_complete = (state is None) == (record.state_digest is None) and (
            state_before is None
        ) == (wanted is None)
        if record.state_digest is not None and before is None and self.number > 1:
            is_complete = False
        if state is not None:
            self._check_global(state, record)
        return AggregationFiles(
            target=target,
            state=state,
            parent=_by_digest(earlier, record.parent),
            included=included,
            state_before=state_before,
            is_complete=is_complete,
        )

    def _check_global(self, target: Weighty, record: Record) -> None:
        """The manifest of global weights or a state is the one that follows from their record."""
        about = target.manifest
        fields = ("round", "edition", "sender", "roster_version", "plan", "parent")
        different = [name for name in fields if getattr(about, name) != getattr(record, name)]
        is_state = target.signed.digest == record.state_digest
        if about.kind is not (Kind.STATE if is_state else Kind.GLOBAL):
            different = ["kind"]
        if different:
            sentence = f"The manifest and the record differ in {', '.join(different)}."
            self._find(FindingKind.RECORD, sentence, target.path)

    def _check_unnamed(self) -> None:
        """Updates that no record names, on their way or left out: their parent tells a story."""
        named = {entry.digest for _, record in self.records for entry in record.inputs}
        for file in self._of(Kind.UPDATE):
            if file.signed.digest not in named:
                self._check_parent(
                    f"The update of {file.manifest.sender}", file.manifest.parent, file.path
                )
        states = {record.state_digest for _, record in self.records}
        for file in self._of(Kind.STATE):
            if file.signed.digest not in states:
                self._find(FindingKind.RECORD, "No record names this state of a rule.", file.path)

    def _check_parent(
        self, what: str, parent: str | None, path: Path, edition: int | None = None
    ) -> None:
        """What follows global weights must follow those of the round before that lie here.

        The newest edition follows the newest one; what was superseded, or counts in no record, may
        follow an older one.
        """
        if parent is None:
            return
        told = self._parents()
        is_newest = edition is not None and edition == max(self.globals())
        right = (
            told[max(told)] if is_newest else {d: p for by in told.values() for d, p in by.items()}
        )
        if parent not in right:
            there = ", ".join(f"{digest[:16]} by {where}" for digest, where in right.items())
            sentence = (
                f"{what} follows {parent[:16]} as global weights of round {self.number - 1}; "
                f"others here say {there}. The coordinator told two stories, or an edition is "
                "missing."
            )
            self._find(FindingKind.TWO_STORIES, sentence, path)

    def _parents(self) -> Globals:
        """The global weights of the round before; where none are here, what this round calls so."""
        if self.before:
            return self.before
        claims = [(r.parent, s.path) for s, r in self.records]
        claims += [(str(f.manifest.parent), f.path) for f in self.files]
        return {1: dict(claims[:1])}

    def _check_signer(self, signed: Signed, edition: int) -> None:
        """What the newest edition rests on is signed by keys that count by the newest roster."""
        if edition < max(self.globals()):
            return
        try:
            self.history.known.roster.signer(signed.key, self.number)
        except BrainfedError as error:
            self.history.findings.append(finding_of(error, signed.path, self.number))

    def _twins(self, what: str, versions: Iterable[tuple[str, Path]]) -> None:
        twins(self.history.findings, what, versions, self.number)

    def _record(self, signed: Signed, what: str) -> None:
        self._find(FindingKind.RECORD, f"{what}.", signed.path)

    def _find(self, kind: FindingKind, sentence: str, file: Path) -> None:
        self.history.find(kind, sentence, file, self.number)

    def _miss(self, what: str) -> None:
        self.history.miss(what, None, self.number)


def _by_digest(files: Sequence[Weighty], digest: str | None) -> Weighty | None:
    return next((file for file in files if file.signed.digest == digest), None)
