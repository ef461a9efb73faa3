"""The program dcm2niix, which makes NIfTI of DICOM: where it is, and how it is run.

It sees one folder, has no settings of its own, and writes beside that folder alone. Of what it
makes only the voxels and their geometry are given on: no sidecar, no text, no extension.
"""

import contextlib
import functools
import importlib
import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from brainfed.core.slice_stack import ANOTHER
from brainfed.errors import NotReadyError, ResourceError, ScanError
from brainfed.formats import nifti
from brainfed.formats.dicom_header import INSTALL_HINT

SECONDS = 600
"""dcm2niix takes seconds; after this it hangs."""
_HEADER_BYTES, _FIRST_VOXEL = 348, 352
# Text of a NIfTI-1 header: data_type and db_name, descrip and aux_file, intent_name.
_TEXTS = ((4, 32), (148, 252), (328, 344))
# No sidecar, unpacked, neither cropped nor turned, no settings file, this folder alone, one volume
# whatever differs between the slices, no comment.
_OPTIONS = [
    "-b",
    "n",
    "-z",
    "n",
    "-x",
    "i",
    "-g",
    "i",
    "-d",
    "0",
    "-m",
    "y",
    "-f",
    "volume",
    "-o",
    "out",
]


def find_program() -> Path:
    """The dcm2niix that the extra brings, else the system's.

    Raises:
        NotReadyError: There is none.
    """
    with contextlib.suppress(ImportError):
        bundled = Path(importlib.import_module("dcm2niix").bin)
        if bundled.is_file():
            return bundled
    found = shutil.which("dcm2niix")
    if found is None:
        raise NotReadyError(
            "DICOM is converted by dcm2niix, which isn't installed",
            hint=f"{INSTALL_HINT}, or install your system's dcm2niix",
        )
    return Path(found).absolute()


@functools.cache
def version() -> str:
    """What the program calls itself, such as `v1.0.20260724`.

    Raises:
        NotReadyError: There is none.
        ResourceError: It can't be started.
    """
    words = _start(find_program(), ["--version"], Path.cwd(), "dcm2niix").stdout.split()
    return words[-1].decode("ascii", "replace") if words else "unknown"


def volume_of(folder: Path, where: str) -> tuple[bytes, tuple[str, ...]]:
    """Convert the DICOM files in a folder to one NIfTI-1 file without any text.

    Args:
        folder: A private folder; the files are in `in`, and `out` is empty.
        where: What is converted, for messages.

    Returns:
        The file, not packed, and what dcm2niix warned of.

    Raises:
        ScanError: dcm2niix fails, hangs, or makes no or several volumes.
        NotReadyError: There is no dcm2niix.
        ResourceError: It can't be started.
    """
    done = _start(find_program(), [*_OPTIONS, "in"], folder, where)
    text = (done.stdout + b"\n" + done.stderr).decode("utf-8", "replace").replace(str(folder), "")
    words = [line.strip() for line in text.splitlines() if line.strip()]
    if done.returncode != 0:
        raise ScanError(
            "dcm2niix can't convert the DICOM series",
            expected="exit code 0",
            found=f"exit code {done.returncode}: {' / '.join(words[-3:])}",
            where=where,
            hint="export the series again, or choose another one in cases.csv",
        )
    made = _one_volume(folder / "out", where, words)
    nifti.check(made)
    warned = dict.fromkeys(line for line in words if line.startswith("Warning"))
    return _without_text(made.read_bytes()), tuple(warned)


def _start(
    program: Path, arguments: Sequence[str], folder: Path, where: str
) -> subprocess.CompletedProcess[bytes]:
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    home = str(folder)  # it looks for settings there
    try:
        return subprocess.run(  # noqa: S603 - a program of ours, arguments without a choice
            [str(program), *arguments],
            cwd=folder,
            env={**kept, "HOME": home, "TMPDIR": home, "TEMP": home, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ScanError(
            "dcm2niix does not end", expected=f"{SECONDS} seconds at most", where=where
        ) from None
    except OSError as error:
        raise ResourceError(
            "dcm2niix can't be started", found=error.strerror, where=program, hint=INSTALL_HINT
        ) from error


def _one_volume(folder: Path, where: str, words: Sequence[str]) -> Path:
    made = sorted(folder.iterdir())
    if len(made) != 1 or made[0].suffix != ".nii":
        raise ScanError(
            "dcm2niix did not make one volume of the DICOM series",
            expected="one volume",
            found=f"{len(made)} files: {' / '.join(words[-3:])}",
            where=where,
            hint=ANOTHER,
        )
    return made[0]


def _without_text(data: bytes) -> bytes:
    """The file without any text in its header and without extensions."""
    order = "<" if data[:4] == struct.pack("<I", _HEADER_BYTES) else ">"
    (offset,) = struct.unpack_from(f"{order}f", data, 108)
    header = bytearray(data[:_HEADER_BYTES])
    for first, end in _TEXTS:
        header[first:end] = bytes(end - first)
    struct.pack_into(f"{order}f", header, 108, _FIRST_VOXEL)
    return bytes(header) + bytes(_FIRST_VOXEL - _HEADER_BYTES) + data[int(offset) :]
