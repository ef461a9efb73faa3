"""A weight file that is read once, stretch by stretch, and checked completely on the way.

The header, the sender and the key are checked when it is opened, each value when it is read, and
the signature over all bytes at the end: only then is it known that what was read was signed. So
nothing that follows from the values may be put in place before `close_checked`.
"""

import hashlib
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from brainfed.core import sshsig
from brainfed.errors import MalformedError
from brainfed.formats import rounds, signature, verify, weights
from brainfed.formats.federation import Federation
from brainfed.formats.pour import Hash
from brainfed.formats.weights import WeightsFile


class CheckedStream:
    """One weight file, open; several may be read at once by several threads, each by one."""

    def __init__(self, path: Path, federation: Federation) -> None:
        """Open a file, its signature beside it, and check all that its header says.

        Raises:
            FileRefusedError: One of its kinds, saying what is wrong.
        """
        self.path = path
        n_bytes = rounds.check_size(path, federation)
        self._signature = signature.read_signature(path)
        federation.roster.entry(self._signature.key)
        self._stream = path.open("rb", buffering=0)
        try:
            self._header = weights.read_raw_header(self._stream, path)
            self.manifest = weights.check_header(self._header, n_bytes, federation.table_of, path)
            verify.check_origin(self.manifest, self._signature.key, federation, path)
        except BaseException:
            self._stream.close()
            raise
        self._table = federation.table_of(self.manifest)
        self._hashes: dict[str, Hash] = {}
        self.rewind()

    def rewind(self) -> None:
        """Go back to the first value; what was read before counts for nothing."""
        self._stream.seek(len(self._header))
        algorithms = {"sha256", self._signature.hash_algorithm}
        self._hashes = {name: hashlib.new(name, self._header) for name in algorithms}

    def read_into(self, values: npt.NDArray[np.float32]) -> None:
        """Fill an array with the next values.

        Raises:
            TensorsError: One is NaN or infinite.
            MalformedError: The file has become shorter.
        """
        memory = values.view(np.uint8).data
        done = 0
        while done < len(memory):
            n = self._stream.readinto(memory[done:])
            if not n:
                raise MalformedError("The weight file has become shorter", where=self.path)
            done += n
        for digest in self._hashes.values():
            digest.update(memory)
        if not np.isfinite(values).all():
            weights.check(self.path, self._table)  # names the tensor
            raise MalformedError("The weight file was changed while it was read", where=self.path)

    def close_checked(self) -> WeightsFile:
        """Check the signature over all that was read, which must be the whole file.

        Raises:
            SignatureError: It is not one over these bytes.
        """
        digests = {name: digest.digest() for name, digest in self._hashes.items()}
        sshsig.verify(self._signature, digests[self._signature.hash_algorithm])
        self._stream.close()
        return WeightsFile(self.path, digests["sha256"].hex(), self.manifest)

    def __enter__(self) -> Self:
        """Use it in a with block; it is closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file; without `close_checked` nothing that was read is known to be signed."""
        self._stream.close()
