"""Weights that a program other than brainfed wrote: a plain safetensors file, read with suspicion.

Any metadata, any order. Never a pickle: opening one runs whatever it holds, so a checkpoint is
opened by the site's own code, which writes safetensors (`docs/how-to/own-trainer.md`).
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from brainfed.core.architecture import TensorTable
from brainfed.errors import MalformedError, TensorsError, UsageError
from brainfed.formats import document, weights

PICKLES = (b"PK\x03\x04", b"\x80")
"""First bytes of what torch.save writes, today and in old versions."""
CONVERT = "convert it where it was made: safetensors.torch.save_file(state_dict, FILE)"


@dataclass(frozen=True, slots=True)
class GivenTensor:
    """What a header says of a tensor."""

    kind: str
    """As safetensors writes it, such as F32."""
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, GivenTensor]:
    """Names, types and shapes of all tensors, in name order.

    Raises:
        UsageError: There is no such file, or it is a pickle.
        MalformedError: Not a safetensors file, or a name stands twice in its header.
        WrongRoundError: It is of a drill.
        TooLargeError: Its header claims more than 4 MiB.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
            stream.seek(0)
            if start.startswith(PICKLES) and not _is_header_length(start):
                raise UsageError(
                    "This is a pickle, which brainfed never opens",
                    expected="a safetensors file",
                    where=path,
                    hint=CONVERT,
                )
            raw = weights.read_raw_header(stream, path)
    except OSError as error:
        raise UsageError(
            "The weight file can't be read",
            found=error.strerror,
            where=path,
            hint="name the safetensors file as it lies, and see who may read it",
        ) from None
    try:
        content = json.loads(raw[8:].decode("utf-8"), object_pairs_hook=_each_once)
        found = {
            name: GivenTensor(str(entry["dtype"]), tuple(int(edge) for edge in entry["shape"]))
            for name, entry in sorted(content.items())
            if name != "__metadata__"
        }
        # The library holds offsets and sizes against the file.
        with safetensors.safe_open(path, framework="numpy") as opened:
            said = (opened.metadata() or {}).get(weights.MANIFEST_KEY, "")
    except (
        AttributeError,
        KeyError,
        RecursionError,
        TypeError,
        ValueError,
        safetensors.SafetensorError,
    ) as error:
        raise MalformedError(
            "Not a safetensors file", found=str(error)[:200], where=path, hint=CONVERT
        ) from None
    if '"purpose":"drill"' in said:
        document.check_purpose("", "drill", "The weight file", path)
    return found


def read_tensors(
    path: Path, table: TensorTable, *, local: Collection[str] = ()
) -> dict[str, NDArray[np.float32]]:
    """The tensors of a table, in name order; those that stay local are left in the file.

    Args:
        path: The file.
        table: Names and shapes that must be there, all float32.
        local: Names that may be there and are not taken.

    Raises:
        TensorsError: One is missing, of another type or shape, or not finite; or one is there that
            is in neither.
        UsageError: As for `read_header`, likewise MalformedError and TooLargeError.
    """
    header = read_header(path)
    for title, names in (
        ("Tensors are missing", set(table) - set(header)),
        ("There are tensors that the plan doesn't have", set(header) - set(table) - set(local)),
    ):
        if names:
            raise TensorsError(
                title,
                expected=f"the {len(table)} tensors of the plan's network",
                found=", ".join(repr(name)[:60] for name in sorted(names)[:3]),
                where=path,
                hint="give the weights of the plan's network; what stays at each site is named in "
                "the plan's network.local",
            )
    for name, shape in table.items():
        found = header[name]
        if (found.kind, found.shape) != ("F32", shape):
            raise TensorsError(
                "A tensor is not the plan's",
                expected=f"F32 {list(shape)}",
                found=f"{found.kind} {list(found.shape)}",
                where=f"{path}, tensor {name}",
                hint="convert it to float32, or give the weights of the plan's network",
            )
    with safetensors.safe_open(path, framework="numpy") as content:
        tensors = {name: content.get_tensor(name) for name in sorted(table)}
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise TensorsError(
                "The weights hold NaN or infinity",
                where=f"{path}, tensor {name}",
                hint="training diverged: take weights of an earlier epoch, or train anew with a "
                "smaller rate",
            )
    return tensors


def _is_header_length(start: bytes) -> bool:
    """Whether the first eight bytes can be the length of a header: 0x80 begins some of them."""
    return int.from_bytes(start, "little") <= weights.MAX_HEADER_BYTES


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name stands twice in its header")
    return content
