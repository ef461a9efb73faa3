"""A case's cache, `data/cache/<case id>/`: what each step made, by the digest of what it needs.

A step's key covers its inputs, its parameters, the code that did it and the libraries; so nothing
in here is ever out of date, and a changed plan finds again what it doesn't change. A file is the
SHA-256 of its content, a line end, and the content; a damaged one counts as missing. Local, mode
0600, can be deleted at any time. `docs/formats/cache.md` describes it.
"""

import hashlib
import importlib.metadata
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from brainfed.core import canonical
from brainfed.errors import ScanError
from brainfed.formats import atomic

_DIGEST_CHARACTERS = 64


def folder_of(data_folder: Path, case_id: str) -> Path:
    """Where a case's cache lies."""
    return data_folder / "cache" / case_id


@cache
def code_digest(*modules: ModuleType, libraries: tuple[str, ...] = ()) -> str:
    """SHA-256 (hexadecimal) over the source of modules and the versions of what they call.

    Args:
        modules: Each by itself: what they import is named beside them.
        libraries: Those that they call besides SimpleITK and NumPy, by the names of their packages.

    Raises:
        ScanError: The source can't be read; brainfed is installed in an unusual way.
    """
    digest = hashlib.sha256()
    for library in ("SimpleITK", "numpy", *libraries):
        digest.update(f"{library} {importlib.metadata.version(library)}\n".encode())
    for module in modules:
        try:
            digest.update(Path(str(module.__file__)).read_bytes())
        except OSError as error:
            raise ScanError(
                "The source of brainfed can't be read",
                found=error.strerror,
                where=module.__name__,
                hint="install brainfed from its wheel",
            ) from error
    return digest.hexdigest()


def key(**parts: str | int | bool | list[str] | None) -> str:
    """SHA-256 (hexadecimal) over all that a step depends on, by name."""
    return hashlib.sha256(canonical.dumps(parts)).hexdigest()


def digest_of(array: npt.NDArray[Any]) -> str:
    """SHA-256 (hexadecimal) over an array's type, shape and values."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class CaseCache:
    """The cache of one case."""

    folder: Path

    def path(self, step: str, step_key: str, ending: str = "bin") -> Path:
        """Where what a step made lies or is to lie.

        Args:
            step: Name of the step; with the modality, where it is done for each.
            step_key: SHA-256 over all it depends on (`key`).
            ending: Of the file's name.
        """
        return self.folder / f"{step}.{step_key[:16]}.{ending}"

    def make(self) -> None:
        """Make the folder, for the site alone.

        Raises:
            ResourceError: The disk refuses.
        """
        atomic.make_folder(self.folder)

    def fetch(self, step: str, step_key: str) -> bytes | None:
        """What the step made; None where it has not been done, or the file is damaged."""
        try:
            data = self.path(step, step_key).read_bytes()
        except OSError:
            return None
        head, content = data[:_DIGEST_CHARACTERS], data[_DIGEST_CHARACTERS + 1 :]
        return content if hashlib.sha256(content).hexdigest().encode() == head else None

    def store(self, step: str, step_key: str, content: bytes) -> None:
        """Keep what the step made, in place of what it made of other inputs.

        Raises:
            ResourceError: The disk refuses.
        """
        path = self.path(step, step_key)
        self.make()
        data = hashlib.sha256(content).hexdigest().encode() + b"\n" + content
        atomic.write_bytes(path, data, mode=0o600, replace=True)
        self.forget_others(step, path)

    def forget_others(self, step: str, path: Path) -> None:
        """Remove what the step made of other inputs."""
        for other in self.folder.glob(f"{step}.*"):
            if other != path:
                atomic.remove(other)


def pack(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Named arrays as bytes."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()


def unpack(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """What `pack` packed."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
