"""Which signature on a medium belongs to which file, in a bounded number of tries."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from brainfed.core import sshsig
from brainfed.core.sshsig import Signature
from brainfed.errors import SignatureError, UnsignedError
from brainfed.formats.medium import SIGNATURE_SUFFIX, Item, Sniffed

MAX_TRIES = 256
"""Signatures of other names that are tried on one file."""
MAX_TRIES_IN_ALL = 2**14
"""And on all files of one import: a second or two of work."""
NAMESPACES = (sshsig.NAMESPACE, sshsig.RELEASE_NAMESPACE)


class Signatures:
    """The signatures on a medium: that of a file's own name, and the orphans.

    An orphan is one whose own file is absent, or doesn't fit it; portals rename, so it may belong
    to any file.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        taken = {item.signed_by for item in items if item.sniffed is not Sniffed.SIGNATURE}
        self._by_place = {
            item.lies_at: item
            for item in reversed(items)
            if item.sniffed is Sniffed.SIGNATURE or item.lies_at in taken
        }
        self._orphans = [
            item.signature
            for item in items
            if item.signature is not None and item.lies_at not in taken
        ]
        self._tries_left = MAX_TRIES_IN_ALL

    def is_signature(self, item: Item) -> bool:
        """Whether an item is one, or lies in the place of one."""
        return item.sniffed is Sniffed.SIGNATURE or item.lies_at in self._by_place

    def own(self, item: Item) -> Item | None:
        """What lies in the place of the signature of a file's name."""
        return self._by_place.get(item.signed_by)

    def add_orphan(self, signature: Signature) -> None:
        """A signature that doesn't fit the file of its name may belong to another."""
        self._orphans.append(signature)

    def orphans_for(self, keys: Iterable[str] | None) -> list[Signature]:
        """The orphans that may be tried on one file.

        Args:
            keys: Lines of the keys that come into question; all where None.
        """
        lines = None if keys is None else set(keys)
        fitting = (s for s in self._orphans if lines is None or s.key.line in lines)
        return list(islice(fitting, min(MAX_TRIES, self._tries_left)))

    def match(self, candidates: Sequence[Signature], digests: Mapping[str, bytes]) -> Signature:
        """The first of some signatures that is over the bytes of these digests.

        Raises:
            SignatureError: None is; the error of the last one.
        """
        error = SignatureError("No signature fits the file")
        for candidate in candidates:
            self._tries_left -= len(candidates) > 1
            namespace = candidate.namespace
            try:
                sshsig.verify(
                    candidate,
                    digests[candidate.hash_algorithm],
                    namespace if namespace in NAMESPACES else sshsig.NAMESPACE,
                )
            except SignatureError as failed:
                error = failed
            else:
                return candidate
        raise error

    def unsigned(self, item: Item) -> UnsignedError:
        """The error for a file to which no signature belongs."""
        if len(self._orphans) > MAX_TRIES or self._tries_left <= 0:
            return UnsignedError(
                "No signature of the file's name lies beside it, and there are too many others "
                "to try them all",
                expected=item.signed_by[1],
                found=f"{len(self._orphans)} signatures without their files",
                hint="give the file and its signature alone, in a folder of their own",
            )
        return UnsignedError(
            "No signature on the medium belongs to the file",
            expected=item.signed_by[1],
            hint=f"ask the sender for the {SIGNATURE_SUFFIX} file that belongs to it",
        )
