"""Import: take from a medium what concerns this workspace, after checking it.

The order of checks and all limits stand in `docs/formats/media.md`; in short: look, sniff, cap, a
signature that may fit, copy, signature, kind, whose key, accept. Only the local copy is looked
into, and a file is what its signed content says, whatever its name (portals rename). A file that is
refused changes nothing but one line in the ledger.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from brainfed.core import sshsig
from brainfed.core.progress import Progress, silent
from brainfed.core.sshsig import PublicKey, Signature
from brainfed.errors import (
    BrainfedError,
    FileRefusedError,
    NotForUsError,
    NotReadyError,
    PlanError,
    QuorumError,
    SignatureError,
    StrangerError,
    WrongRoleError,
)
from brainfed.formats import federation, ledger, medium, weights
from brainfed.formats.ledger import Event
from brainfed.formats.medium import Item, Sniffed
from brainfed.formats.signature import Signed
from brainfed.formats.workspace import Workspace
from brainfed.steps import accept
from brainfed.steps.accept import Confirm
from brainfed.steps.pairing import Signatures
from brainfed.steps.stage import Incoming, Staged, name_the_original, staging
from brainfed.steps.verdict import Verdict

REFUSALS = (FileRefusedError, NotReadyError, WrongRoleError, PlanError, QuorumError)
"""What is wrong with one file and doesn't stop the others."""
KEPT_BYTES = 2**26
"""Of copies that wait in the inbox; what doesn't fit is copied again when its turn comes."""
KEPT_WEIGHTS = 4
"""Weight files of the plan's largest size that may wait there, should that be more."""


@dataclass(frozen=True)
class Received:
    """What became of one file."""

    path: Path
    """The file on the medium, or the zip that holds it."""
    name: str
    """Its name for people; of a zip's member, with the zip's."""
    verdict: Verdict
    what: str
    error: BrainfedError | None = None


@dataclass(frozen=True)
class Import:
    """What became of all files."""

    files: tuple[Received, ...]
    n_foreign: int

    @property
    def refused(self) -> tuple[Received, ...]:
        """The files that were refused."""
        return tuple(f for f in self.files if f.verdict is Verdict.REFUSED)


def receive(
    place: Workspace,
    sources: Sequence[Path],
    *,
    confirm: Confirm,
    progress: Progress = silent,
) -> Import:
    """Import files or folders into a workspace.

    Args:
        place: The workspace.
        sources: Files, or folders that are searched three levels deep.
        confirm: Asked before a site joins a federation, and before it goes on under a new plan.
        progress: Told of each file.

    Raises:
        UsageError: A source isn't there, or holds too many files.
        PlanError: The readable copy of the plan in force was edited.
        ResourceError: The medium can't be read or the disk refuses.
    """
    found = medium.look(sources)
    with staging(place) as prefix:
        run = _Run(place, found, confirm, progress, prefix)
        return Import(tuple(run.all()), found.n_foreign)


class _Run:
    """One import: what is known so far, and what became of the files."""

    def __init__(
        self,
        place: Workspace,
        found: medium.Medium,
        confirm: Confirm,
        progress: Progress,
        prefix: Path,
    ) -> None:
        self._place, self._found = place, found
        self._confirm, self._progress, self._prefix = confirm, progress, prefix
        self._signatures = Signatures(found.items)
        self._files = [i for i in found.items if not self._signatures.is_signature(i)]
        self._known = federation.load(place) if federation.has_started(place) else None
        self._results: list[Received] = []
        self._notes: list[ledger.Entry] = []
        self._seen: dict[tuple[str, PublicKey], str] = {}
        self._n_begun = self._n_kept_bytes = 0

    def all(self) -> list[Received]:
        """Signed JSON first: it says under which plan and by whose keys the rest is judged."""
        for item, error in self._found.unreadable:
            self._refuse(item, error)
        documents = [item for item in self._files if item.sniffed is Sniffed.JSON]
        others = [item for item in self._files if item.sniffed is not Sniffed.JSON]
        finals = []  # last of all: a final names weights, which may lie on the same medium
        for items in (documents, others):
            self._n_kept_bytes = 0  # none is left, or next to nothing
            for staged in sorted(self._check_in(items), key=lambda staged: staged.order):
                if staged.kind == "final":
                    finals.append(staged)
                else:
                    self._accept(staged)
        for staged in finals:
            self._accept(staged)
        return self._results

    def _check_in(self, items: Sequence[Item]) -> list[Staged]:
        """Copy files and pair them with their signatures: their own ones first, then orphans."""
        staged: list[Staged] = []
        later: list[tuple[Item, BrainfedError | None]] = []
        try:
            for item in items:
                self._n_begun += 1
                self._progress("check", self._n_begun, len(self._files), item.name)
                own = self._signatures.own(item)
                error = None if own is None else self._try_own(item, own, staged)
                if own is None or error is not None:
                    later.append((item, error))
            for item, error in later:
                self._try_orphans(item, error, staged)
        finally:
            if self._notes:  # with one flush: nothing was put in place yet
                ledger.append_all(self._place.ledger_path, self._notes)
                self._notes.clear()
        return staged

    def _try_own(self, item: Item, own: Item, staged: list[Staged]) -> BrainfedError | None:
        """Stage a file with the signature of its name; gives the error where another may fit."""
        try:
            candidate = own.signature or medium.read_signature(own)
            if item.sniffed is not Sniffed.JSON:
                self._federation().roster.entry(candidate.key)
            self._stage(item, [candidate], staged)
        except (SignatureError, StrangerError) as error:
            if own.signature is not None:
                self._signatures.add_orphan(own.signature)
            return error
        except REFUSALS as error:
            self._refuse(item, error)
        return None

    def _try_orphans(self, item: Item, error: BrainfedError | None, staged: list[Staged]) -> None:
        try:
            keys = None  # anybody may send an enrolment, and a start comes before the roster
            if item.sniffed is not Sniffed.JSON:
                keys = {principal.key for principal in self._federation().roster.principals}
            candidates = self._signatures.orphans_for(keys)
            if not candidates:
                raise error or self._signatures.unsigned(item)
            self._stage(item, candidates, staged)
        except SignatureError:
            self._refuse(item, error or self._signatures.unsigned(item))
        except REFUSALS as refusal:
            self._refuse(item, refusal)

    def _stage(self, item: Item, candidates: Sequence[Signature], staged: list[Staged]) -> None:
        """Cap, copy, signature, kind; a second copy of the same signed bytes is not kept.

        Nor is one that would fill the disk before anybody asked by whose key it is.
        """
        local = Path(f"{self._prefix}{self._n_begun:05d}-{len(staged):05d}")
        table = None if item.sniffed is Sniffed.JSON else self._federation().table
        copy = Incoming(item, local, table, self._place.identity_path)
        one = copy.stage(candidates, self._signatures)
        if self._is_repeated(item, one.signed):
            one.drop()
            return
        kept = self._n_kept_bytes + one.n_bytes
        most = 0 if table is None else KEPT_WEIGHTS * weights.largest_file(table)
        if kept <= max(KEPT_BYTES, most):
            self._n_kept_bytes = kept
        else:
            one.drop()
        staged.append(one)

    def _is_repeated(self, item: Item, signed: Signed) -> bool:
        first = self._seen.get((signed.digest, signed.key))
        if first is None:
            self._seen[signed.digest, signed.key] = item.name
            return False
        self._results.append(
            Received(item.path, item.name, Verdict.ALREADY, f"the same file as {first}")
        )
        return True

    def _accept(self, staged: Staged) -> None:
        """Whose key; then the file is held against the state of the workspace."""
        item, signed = staged.item, staged.signed
        what = f"{staged.kind}, not yet agreed to"
        is_ready = False
        try:
            self._check_key(staged)
            staged.make_sure(self._signatures)
            is_ready = True
            outcome = accept.accept(
                self._place, signed, staged.kind, self._confirm, known=self._known
            )
        except REFUSALS as error:
            name_the_original(error, signed.path, item)
            self._refuse(item, error, at_once=True)
        else:
            self._results.append(Received(item.path, item.name, outcome.verdict, outcome.what))
            what = outcome.what
        finally:
            # What a person declined, or wasn't there to be asked, lies in its place all the same.
            is_in_place = is_ready and not signed.path.exists()
            staged.drop()
            if is_in_place:
                self._place.note(Event.ACCEPTED, file=item.name, what=what, digest=signed.digest)
        if is_in_place and staged.kind in {"start", "roster", "amendment"}:
            self._known = federation.load(self._place)

    def _check_key(self, staged: Staged) -> None:
        """The key must be in the roster, whatever its status: the round says if it counts.

        An enrolment comes from outside it, and a start before it; the recovery key signs rosters.
        """
        expected, found = sshsig.NAMESPACE, staged.signature.namespace
        if staged.kind != "enrolment" and self._known is not None:
            roster, key = self._known.roster, staged.signed.key
            if staged.kind != "roster" or key.line != roster.recovery:
                expected = roster.entry(key).namespace
        if found != expected:
            raise SignatureError(
                "The signature is for another purpose",
                expected=f"namespace {expected}",
                found=f"namespace {found}",
            )

    def _federation(self) -> federation.Federation:
        return self._known or federation.load(self._place)  # which says what is to be done first

    def _refuse(self, item: Item, error: BrainfedError, *, at_once: bool = False) -> None:
        if isinstance(error, NotForUsError):  # one stick carries what several parties send
            what = "encrypted for others; if it is for you, ask the sender to export it again"
            self._results.append(Received(item.path, item.name, Verdict.IGNORED, what))
            return
        if error.where is None:
            error.where = item.label
        self._results.append(Received(item.path, item.name, Verdict.REFUSED, error.message, error))
        fields: dict[str, str | int | None] = {
            "file": item.name,
            "reason": type(error).__name__,
            "message": error.message,
        }
        if at_once:
            ledger.append(self._place.ledger_path, Event.REFUSED, **fields)
        else:
            self._notes.append((Event.REFUSED, fields))
