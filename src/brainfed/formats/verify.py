"""Whose a signed file is and whether it belongs here: the checks that every reader makes.

Bytes in, typed content out; nothing here opens a file or decides what becomes of one, so import,
aggregation, audit and the fuzzer all stand on the same few functions. They come after the signature
(`formats.signature`) and in this order: the key is in the roster; the content has the one form of
its kind; its sender holds the key, in a role that may sign it, in a round in which the key counts;
federation, purpose and plan are this one's. What they don't do: hold a file against the others that
lie here (`steps.accept`), or say that its numbers were come by honestly.
"""

from pathlib import Path
from typing import BinaryIO, TypeVar

from brainfed.core.sshsig import PublicKey
from brainfed.errors import (
    MalformedError,
    StrangerError,
    WrongFederationError,
    WrongRoundError,
)
from brainfed.formats import weights
from brainfed.formats.acceptance import Acceptance
from brainfed.formats.amendment import Amendment
from brainfed.formats.approval import Approval
from brainfed.formats.document import Belonging
from brainfed.formats.erasure import Erasure
from brainfed.formats.federation import Federation
from brainfed.formats.final import Final
from brainfed.formats.manifest import Kind, Manifest
from brainfed.formats.record import Record
from brainfed.formats.roster import Role
from brainfed.formats.scores import Scores
from brainfed.formats.signature import Signed
from brainfed.formats.weights import WeightsFile

SIGNERS: dict[type[Belonging], frozenset[Role]] = {
    Acceptance: frozenset({Role.SITE, Role.EVALUATOR}),
    Amendment: frozenset({Role.COORDINATOR}),
    Record: frozenset({Role.COORDINATOR}),
    Scores: frozenset({Role.SITE, Role.EVALUATOR}),
    Approval: frozenset({Role.APPROVER}),
    Final: frozenset({Role.COORDINATOR}),
    Erasure: frozenset({Role.SITE, Role.EVALUATOR}),
}
"""Who may sign which kind of signed JSON; enrolment, roster and start have rules of their own."""

AnyBelonging = TypeVar("AnyBelonging", bound=Belonging)


def check_weights(
    stream: BinaryIO, n_bytes: int, signed: Signed, federation: Federation
) -> WeightsFile:
    """Check a weight file completely, once its signature is known to fit.

    Args:
        stream: The file, from its first byte.
        n_bytes: Its size.
        signed: Its path, key and digest.
        federation: What is known here.

    Raises:
        FileRefusedError: One of its kinds, saying what is wrong.
    """
    federation.roster.entry(signed.key)
    manifest = weights.check_stream(stream, n_bytes, federation.table_of, signed.path)
    check_origin(manifest, signed.key, federation, signed.path)
    return WeightsFile(signed.path, signed.digest, manifest)


def check_origin(manifest: Manifest, key: PublicKey, federation: Federation, where: Path) -> None:
    """Check what a weight file says of itself against the key that signed it and this federation.

    Raises:
        FileRefusedError: One of its kinds, saying what is wrong.
    """
    role = Role.SITE if manifest.kind is Kind.UPDATE else Role.COORDINATOR
    _check_signer(
        manifest, key, federation, where, roles=frozenset({role}), round_number=manifest.round
    )
    check_belongs(manifest, federation, where)


def check_global(
    stream: BinaryIO, n_bytes: int, signed: Signed, federation: Federation
) -> WeightsFile:
    """Check global weights where nothing but the start is known, so outside any workspace.

    As `check_weights`, but for what only newer files could say: the weights may have been signed
    under a newer roster or plan. Both leave the plan's network and data tables as they were; the
    key must be the one that the coordinator had at the start. Whether it was revoked since can't
    be known here.

    Raises:
        FileRefusedError: One of its kinds, saying what is wrong.
    """
    check_coordinator(signed.key, federation, signed.path)
    manifest = weights.check_stream(stream, n_bytes, federation.table_of, signed.path)
    if manifest.sender != federation.roster.coordinator.name:
        raise StrangerError(
            "The file names another sender than the one who signed it",
            expected=federation.roster.coordinator.name,
            found=manifest.sender,
            where=signed.path,
            hint=f"only {manifest.sender} itself can send this file",
        )
    _check_federation(manifest, federation, signed.path)
    return WeightsFile(signed.path, signed.digest, manifest)


def check_document(
    kind: type[AnyBelonging], data: bytes, signed: Signed, federation: Federation
) -> AnyBelonging:
    """Check a signed JSON file completely, once its signature is known to fit.

    Args:
        kind: What it must be.
        data: The file's bytes.
        signed: Its path, key and digest.
        federation: What is known here.

    Raises:
        FileRefusedError: One of its kinds, saying what is wrong.
    """
    federation.roster.entry(signed.key)
    content = kind.loads(data)
    _check_signer(
        content,
        signed.key,
        federation,
        signed.path,
        roles=SIGNERS[kind],
        round_number=_round_of(content),
    )
    _check_federation(content, federation, signed.path)
    if isinstance(content, Record | Scores | Final):
        _check_plan(content, federation, signed.path)
    if isinstance(content, Scores):
        _check_floor(content, federation, signed.path)
    return content


def _round_of(content: Belonging) -> int:
    """The round in which the signing key must count.

    A new plan is signed rounds before it begins, so an amendment's key must count when it comes:
    `steps.accept` asks for the coordinator's newest key, `steps.audit` for that of its roster.
    """
    if isinstance(content, Record | Scores | Approval | Final):
        return content.round
    return content.from_round if isinstance(content, Acceptance) else 0


def _check_signer(
    about: Manifest | Belonging,
    key: PublicKey,
    federation: Federation,
    where: Path,
    *,
    roles: frozenset[Role],
    round_number: int,
) -> None:
    holder = federation.roster.signer(key, round_number)
    if about.sender != holder.name:
        raise StrangerError(
            "The file names another sender than the one who signed it",
            expected=holder.name,
            found=about.sender,
            where=where,
            hint=f"only {about.sender} itself can send this file",
        )
    if holder.role not in roles:
        what = about.kind if isinstance(about, Manifest) else type(about).__name__.lower()
        raise StrangerError(
            f"A {holder.role} can't sign a file of this kind",
            expected=f"the signature of a {' or '.join(sorted(roles))} on this {what}",
            found=holder.name,
            where=where,
        )
    if about.roster_version > federation.roster.version:
        raise WrongRoundError(
            "The file was signed under a newer roster than the newest one here",
            expected=f"version {federation.roster.version} or older",
            found=f"version {about.roster_version}",
            where=where,
            hint="import the newest roster from the coordinator first",
        )


def check_belongs(about: Manifest | Record, federation: Federation, where: Path) -> None:
    """Refuse a manifest or record of another federation, purpose or plan.

    Raises:
        WrongFederationError: Another federation or plan.
        WrongRoundError: Another purpose.
    """
    _check_federation(about, federation, where)
    _check_plan(about, federation, where)


def _check_federation(about: Manifest | Belonging, federation: Federation, where: Path) -> None:
    if about.federation != federation.digest:
        raise WrongFederationError(
            "The file belongs to another federation",
            expected=federation.digest[:16],
            found=about.federation[:16],
            where=where,
        )
    if about.purpose != federation.start.purpose:
        raise WrongRoundError(
            "The file has another purpose",
            expected=federation.start.purpose,
            found=about.purpose,
            where=where,
        )


def _check_plan(
    about: Manifest | Record | Scores | Final, federation: Federation, where: Path
) -> None:
    version = federation.in_force(about.round).version
    if about.plan != version:
        raise WrongFederationError(
            f"The file was made under another plan than that of round {about.round}",
            expected=f"version {version.version}, {version.digest[:16]}",
            found=f"version {about.plan.version}, {about.plan.digest[:16]}",
            where=where,
            hint="a newer plan comes from the coordinator: import it, accept it, and make the file "
            "again under it",
        )


def _check_floor(scores: Scores, federation: Federation, where: Path) -> None:
    """No figure may stand for fewer patients than the plan lets it."""
    floor = federation.plan_of(scores.round).participation.floor
    smallest = min((f.n for f in scores.figures if isinstance(f.n, int)), default=floor)
    if smallest < floor:
        raise MalformedError(
            "A figure stands for fewer patients than the plan allows",
            expected=f"at least {floor}, or that they are fewer",
            found=smallest,
            where=where,
            hint=f"delete the file, and tell {scores.sender}: brainfed doesn't write this",
        )


def check_coordinator(signer: PublicKey, federation: Federation, where: Path) -> None:
    """Check that a key is the coordinator's newest one.

    Raises:
        StrangerError: It isn't.
    """
    coordinator = federation.roster.coordinator
    if signer != coordinator.public_key:
        raise StrangerError(
            "The file is not signed by the coordinator",
            expected=f"{coordinator.name}, {coordinator.public_key.fingerprint}",
            found=signer.fingerprint,
            where=where,
        )
