"""Inspect: say what a file holds, all of it, and claim no more than is true."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainfed.core import canonical, sshsig
from brainfed.errors import BrainfedError, MalformedError, TensorsError, UsageError
from brainfed.formats import document, federation, signature, weights
from brainfed.formats.workspace import Workspace


@dataclass(frozen=True)
class Tensor:
    """One tensor of a weight file."""

    name: str
    shape: tuple[int, ...]
    n_bytes: int


@dataclass(frozen=True)
class Inspected:
    """All that a file holds."""

    path: Path
    n_bytes: int
    digest: str
    kind: str
    signature: str
    """In words: whose, or why none counts."""
    content: dict[str, Any]
    """Every field of the manifest, or of the signed JSON."""
    tensors: tuple[Tensor, ...]
    is_canonical: bool
    """Whether nothing but the listed fields and tensors can stand in the file."""


def inspect(path: Path, place: Workspace | None) -> Inspected:
    """Look into a weight file, a signed JSON file or a signature's subject.

    Args:
        path: The file.
        place: The workspace whose roster tells names from keys; None outside of one.

    Raises:
        UsageError: There is no such file.
        FileRefusedError: It is neither a weight file nor signed JSON of ours.
    """
    if not path.is_file():
        raise UsageError(
            "There is no such file",
            expected="a weight file or a signed JSON file",
            where=path,
            hint="look where it lies, such as in outbox/ or rounds/: `brainfed inspect FILE`",
        )
    with path.open("rb") as stream:
        start = stream.read(2)
    is_json = start == b'{"'
    content, tensors, is_canonical = _json(path) if is_json else _weights(path)
    return Inspected(
        path=path,
        n_bytes=path.stat().st_size,
        digest=signature.digest_of(path).hex(),
        kind=str(content.get("kind")),
        signature=_signature(path, place),
        content=content,
        tensors=tensors,
        is_canonical=is_canonical,
    )


def _json(path: Path) -> tuple[dict[str, Any], tuple[Tensor, ...], bool]:
    data = document.read_capped(path)
    document.kind_of(data)
    content = canonical.loads(data)
    return content, (), True


def _weights(path: Path) -> tuple[dict[str, Any], tuple[Tensor, ...], bool]:
    with path.open("rb") as stream:
        header = weights.read_raw_header(stream, path)
    manifest = weights.parse_manifest(header, path)
    table = weights.claimed_table(header, path)
    tensors = tuple(
        Tensor(name, shape, 4 * math.prod(shape)) for name, shape in sorted(table.items())
    )
    try:
        weights.check(path, table)
        is_canonical = True
    except (MalformedError, TensorsError):
        is_canonical = False
    return manifest.model_dump(mode="json"), tensors, is_canonical


def _signature(path: Path, place: Workspace | None) -> str:
    try:
        found = signature.read_signature(path)
        key = signature.verify_file(path, _namespace(found.namespace)).key
    except BrainfedError as error:
        return f"none that counts: {error.message}"
    if place is None or not federation.has_started(place):
        return f"fits the bytes; made by the key {key.fingerprint}, whose owner isn't known here"
    try:
        holder = federation.load(place).roster.entry(key)
    except BrainfedError as error:
        return f"fits the bytes, but {error.message[0].lower()}{error.message[1:]}"
    since = f", revoked since round {holder.revoked_since}" if not holder.is_active else ""
    return f"fits the bytes; made by {holder.name} ({holder.role}{since}), key {key.fingerprint}"


def _namespace(claimed: str) -> str:
    """That of approvals where the signature claims it, else that of everything else."""
    is_release = claimed == sshsig.RELEASE_NAMESPACE
    return sshsig.RELEASE_NAMESPACE if is_release else sshsig.NAMESPACE
