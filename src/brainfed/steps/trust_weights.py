"""Whether a file is global weights of a federation: in its workspace, or by its start alone."""

from dataclasses import dataclass
from pathlib import Path

from brainfed.errors import StrangerError, UsageError, WrongRoundError
from brainfed.formats import document, federation, rounds, signature, verify, weights
from brainfed.formats.federation import Federation
from brainfed.formats.manifest import Kind
from brainfed.formats.start import Start
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """Global weights whose signature, header and values have been checked."""

    file: WeightsFile
    known: Federation
    start_path: Path | None
    """The start that they were held against; None where the workspace's federation vouches."""

    @property
    def plan(self) -> Plan:
        """The plan of their round, where it is known, else that of the start.

        Network and data tables, which alone count for a prediction, are the same in both.
        """
        return self.known.plan_of(self.file.manifest.round)

    @property
    def coordinator(self) -> str:
        """Who signed them."""
        return self.known.roster.coordinator.name

    @property
    def fingerprint(self) -> str:
        """Of the coordinator's key."""
        return self.known.roster.coordinator.public_key.fingerprint


def trust(path: Path, start: Path | None, place: Workspace | None) -> Trusted:
    """Check global weights against a start, or against the federation of a workspace.

    Args:
        path: The weight file, its signature beside it.
        start: A start.json, its signature beside it; goes before the workspace.
        place: The workspace; without one that has joined, a start beside the weights is taken.

    Raises:
        UsageError: No such file, or no start.
        FileRefusedError: One of them is damaged, unsigned, of a stranger or of another federation,
            or the weights are not global ones.
    """
    if not path.is_file():
        raise UsageError(
            "There is no such weight file",
            where=path,
            hint="name a .global.safetensors file, its .sig beside it",
        )
    joined = place if place is not None and federation.has_started(place) else None
    if start is None and joined is not None:
        known = federation.load(joined)
        file = rounds.verify_weights(path, known)
    else:
        start = start or _start_beside(path)
        known = read_start(start)
        file = _verify_alone(path, known)
    if file.manifest.kind is not Kind.GLOBAL:
        raise WrongRoundError(
            "These are not global weights",
            expected="kind global, signed by the coordinator",
            found=f"kind {file.manifest.kind}, of {file.manifest.sender}",
            where=path,
            hint="`brainfed evaluate --weights FILE` scores an update in the site's workspace",
        )
    return Trusted(file=file, known=known, start_path=start)


def read_start(path: Path) -> Federation:
    """The federation that a start.json begins, if its own coordinator signed it.

    That shows that the file is whole. Whose key it is, its fingerprint must tell a person.

    Raises:
        UsageError: No such file.
        FileRefusedError: Damaged, unsigned, or signed by another key.
    """
    if not path.is_file():
        raise UsageError("There is no such start file", where=path, hint="--start START.json")
    signed = signature.verify_file(path)
    content = document.read(path, Start)
    document.check_purpose("", content.purpose, "The start", path)
    known = federation.assemble(content, signed.digest, None)
    verify.check_coordinator(signed.key, known, path)
    return known


def _verify_alone(path: Path, known: Federation) -> WeightsFile:
    rounds.check_size(path, known)
    signed = signature.verify_file(path)
    try:
        with path.open("rb") as stream:
            return verify.check_global(stream, path.stat().st_size, signed, known)
    except StrangerError as error:
        # The manifest is only asked to say better what is wrong.
        if weights.read_manifest(path).kind is not Kind.GLOBAL:
            raise WrongRoundError(
                "These are not global weights",
                expected="kind global, signed by the coordinator",
                found=f"kind {weights.read_manifest(path).kind}",
                where=path,
                hint="a .global.safetensors file of this federation",
            ) from error
        raise


def _start_beside(path: Path) -> Path:
    found = sorted(path.parent.glob(f"*{federation.START}"))
    if len(found) != 1:
        raise UsageError(
            "Nothing says which federation the weights are of"
            if not found
            else "Several start files lie beside the weights",
            expected=f"{federation.START} of the federation, and its .sig",
            found=", ".join(one.name for one in found) or None,
            where=path.parent,
            hint="name it with --start START.json, or run the command in a workspace",
        )
    return found[0]
