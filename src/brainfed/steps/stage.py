"""From a medium to a local copy: cap, copy, signature, kind (`docs/formats/media.md`)."""

import contextlib
import io
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainfed.core import canonical, sshsig
from brainfed.core.architecture import TensorTable
from brainfed.core.sshsig import Signature
from brainfed.errors import BrainfedError, NotReadyError
from brainfed.formats import atomic, courier, document, pour, weights
from brainfed.formats.medium import Item, Sniffed
from brainfed.formats.signature import Signed, signature_path
from brainfed.formats.workspace import Workspace
from brainfed.steps.pairing import Signatures

ORDER = ("start", "roster", "amendment", "acceptance", "record")
"""Signed JSON by kind, others last; weight files come after all, by round."""
WEIGHTS = "weights"


@dataclass(frozen=True)
class Staged:
    """A local copy with its signature beside it, checked against it."""

    incoming: "Incoming"
    signed: Signed
    signature: Signature
    kind: str
    order: tuple[int, ...]

    @property
    def item(self) -> Item:
        """What it is a copy of."""
        return self.incoming.item

    @property
    def n_bytes(self) -> int:
        """What it takes of the disk, counting its signature at its cap."""
        return self.signed.path.stat().st_size + sshsig.MAX_SIGNATURE_BYTES

    def make_sure(self, signatures: Signatures) -> None:
        """Copy it again, under the same signature, where its copy was dropped.

        Raises:
            SignatureError: These bytes are not on the medium any more.
            FileRefusedError: Likewise; no copy is left.
            ResourceError: The medium can't be read or the disk refuses.
        """
        if not self.signed.path.exists():
            self.incoming.stage([self.signature], signatures)

    def drop(self) -> None:
        """Remove what is left of the copy."""
        atomic.remove(signature_path(self.signed.path))
        atomic.remove(self.signed.path)


@contextlib.contextmanager
def staging(place: Workspace) -> Iterator[Path]:
    """What the paths of local copies begin with; afterwards none of them is left."""
    prefix = place.inbox / f"{atomic.TEMPORARY_PREFIX}{secrets.token_hex(4)}-"
    try:
        yield prefix
    finally:
        for path in place.inbox.glob(f"{prefix.name}*"):
            atomic.remove(path)


@dataclass(frozen=True)
class Incoming:
    """A file on its way in."""

    item: Item
    local: Path
    """Where its copy comes to lie."""
    table: TensorTable | None
    """Of the plan's network, which says how large weights can be; not needed for signed JSON."""
    identity_path: Path

    def stage(self, candidates: Sequence[Signature], signatures: Signatures) -> Staged:
        """Copy the file, and find the signature that is over its bytes.

        Raises:
            FileRefusedError: Too large, unsigned, not readable for us; no copy is left.
            NotReadyError: It is encrypted, and the extra isn't installed.
            ResourceError: The medium can't be read or the disk refuses.
        """
        local = self.local
        try:
            digests = self._copy({"sha256", *(c.hash_algorithm for c in candidates)})
            found = signatures.match(candidates, digests)
            kind, order = self._kind_and_order()
            cap = sshsig.MAX_SIGNATURE_BYTES
            atomic.stage(
                io.BytesIO(found.armored), signature_path(local), cap_bytes=cap, where=local
            )
        except BrainfedError as error:
            atomic.remove(local)  # at once: refused files must not fill the disk
            name_the_original(error, local, self.item)
            raise
        signed = Signed(local, found.key, digests["sha256"].hex())
        return Staged(self, signed, found, kind, order)

    def _copy(self, hashes: set[str]) -> dict[str, bytes]:
        item, names = self.item, sorted(hashes)
        is_encrypted = item.sniffed is Sniffed.ENCRYPTED
        cap = document.MAX_JSON_BYTES if self.table is None else weights.largest_file(self.table)
        cap_there = courier.largest_encrypted(cap) if is_encrypted else cap
        if item.n_bytes > cap_there:
            raise pour.too_large(cap_there, item.path, item.n_bytes)
        with item.opened() as stream:
            if not is_encrypted:
                return atomic.stage(
                    stream, self.local, cap_bytes=cap, where=item.path, hashes=names
                )
            if not courier.is_available():
                raise NotReadyError(
                    "The file is encrypted, and the extra that opens it isn't installed",
                    where=item.path,
                    hint=courier.INSTALL,
                )
            return courier.decrypt(
                stream,
                self.local,
                self.identity_path,
                cap_bytes=cap,
                where=item.path,
                hashes=names,
            )

    def _kind_and_order(self) -> tuple[str, tuple[int, ...]]:
        """What a copy with a good signature claims to be, and when its turn is."""
        if self.table is not None:
            manifest = weights.read_manifest(self.local)
            return WEIGHTS, (manifest.round, manifest.edition)
        data = document.read_capped(self.local)
        kind = document.kind_of(data)
        content: Any = canonical.loads(data)
        if kind == "amendment" and isinstance(content.get("plan"), dict):
            content = content["plan"]
        number = content.get("round" if kind == "record" else "version")
        rank = ORDER.index(kind) if kind in ORDER else len(ORDER)
        return kind, (rank, number if type(number) is int else 0)


def name_the_original(error: BrainfedError, local: Path, item: Item) -> None:
    """Name the file that a person knows: the local copy will be gone."""
    if error.where is not None:
        error.where = error.where.replace(str(local), item.label)
