"""Weight files: safetensors with float32 tensors and one manifest (`docs/formats/weights.md`).

Our files have exactly one spelling: the header is canonical JSON of the manifest and of the plan's
tensor table, padded with spaces to a multiple of 8 bytes, the tensors follow in name order without
a gap. So reading is: build the header that must stand there, and compare. Nothing is allocated
from a number that a file claims.
"""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from brainfed.core import canonical
from brainfed.core.architecture import TensorTable, n_parameters
from brainfed.errors import MalformedError, TensorsError, TooLargeError
from brainfed.formats import atomic
from brainfed.formats.manifest import Manifest

# NumPy and safetensors cost a tenth of a second, and many commands read headers alone: both are
# imported where values are touched.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_HEADER_BYTES = 4 * 2**20
MANIFEST_KEY = "brainfed"
CHUNK_VALUES = 2**18
"""Values that are read at a time when a file is scanned (1 MiB)."""

Tensors = Mapping[str, "npt.NDArray[np.float32]"]


@dataclass(frozen=True)
class WeightsFile:
    """A weight file whose signature, header and values have been checked."""

    path: Path
    digest: str
    manifest: Manifest


def header_bytes(manifest: Manifest, table: TensorTable) -> bytes:
    """The one header for a manifest and a tensor table, with its eight bytes of length."""
    content: dict[str, Any] = {"__metadata__": {MANIFEST_KEY: manifest.dumps().decode("ascii")}}
    offset = 0
    for name, shape in sorted(table.items()):
        end = offset + 4 * math.prod(shape)
        content[name] = {"data_offsets": [offset, end], "dtype": "F32", "shape": list(shape)}
        offset = end
    text = canonical.dumps(content)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def largest_file(table: TensorTable) -> int:
    """The cap in bytes for a weight file of this table."""
    return 8 + MAX_HEADER_BYTES + 4 * n_parameters(table)


def read_raw_header(stream: BinaryIO, where: Path) -> bytes:
    """The header with its length field, without looking into it.

    Raises:
        TooLargeError: It claims more than 4 MiB.
        MalformedError: The file ends inside it.
    """
    prefix = stream.read(8)
    if len(prefix) < 8:
        raise MalformedError("The weight file ends inside its header", where=where)
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise TooLargeError(
            "The header of the weight file is too large",
            expected=f"at most {MAX_HEADER_BYTES} B",
            found=f"{length} B",
            where=where,
        )
    text = stream.read(length)
    if len(text) != length:
        raise MalformedError("The weight file ends inside its header", where=where)
    return prefix + text


def parse_manifest(header: bytes, where: Path) -> Manifest:
    """The manifest in a header, and nothing else checked.

    Raises:
        MalformedError: No safetensors header with exactly our manifest in it.
    """
    content = _header_json(header, where)
    metadata = content.get("__metadata__")
    text = metadata.get(MANIFEST_KEY) if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(text, str) or len(metadata) != 1:
        raise MalformedError(
            "The weight file carries no brainfed manifest",
            expected=f"exactly one metadata entry, `{MANIFEST_KEY}`",
            where=where,
        )
    return Manifest.loads(text.encode("utf-8", "replace"))


def read_manifest(path: Path) -> Manifest:
    """The manifest of a weight file; for files of this workspace and for inspection.

    Raises:
        FileRefusedError: Not a weight file of ours.
    """
    with path.open("rb") as stream:
        return parse_manifest(read_raw_header(stream, path), path)


def claimed_table(header: bytes, where: Path) -> TensorTable:
    """Names and shapes that a header claims, for inspection of a file without its plan.

    Raises:
        TensorsError: An entry is not a float32 tensor.
    """
    table: TensorTable = {}
    for name, entry in _header_json(header, where).items():
        if name == "__metadata__":
            continue
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if (
            not isinstance(shape, list)
            or entry.get("dtype") != "F32"
            or not all(type(edge) is int and 0 < edge < 2**31 for edge in shape)
        ):
            raise TensorsError(
                "Not a float32 tensor", found=str(entry)[:60], where=f"{where}, {name[:60]!r}"
            )
        table[name] = tuple(shape)
    return table


def check(path: Path, table: TensorTable) -> Manifest:
    """As `check_stream`, of a file."""
    with path.open("rb") as stream:
        return check_stream(stream, path.stat().st_size, lambda _: table, path)


TableOf = Callable[[Manifest], TensorTable]
"""Names and shapes that must be in a file of this manifest."""


def check_stream(stream: BinaryIO, n_bytes: int, table_of: TableOf, where: Path) -> Manifest:
    """Check header, size and values of a weight file against the plan's tensor table.

    Args:
        stream: The file, from its first byte.
        n_bytes: Its size.
        table_of: Names and shapes that must be there.
        where: Its name for messages.

    Raises:
        MalformedError: Not our format, or not its one spelling.
        TensorsError: A tensor is missing, extra, of another shape or dtype, or not finite.
    """
    header = read_raw_header(stream, where)
    manifest = check_header(header, n_bytes, table_of, where)
    check_finite(stream, table_of(manifest), where)
    return manifest


def check_header(header: bytes, n_bytes: int, table_of: TableOf, where: Path) -> Manifest:
    """Check header and size alone; arguments and errors are those of `check_stream`."""
    manifest = parse_manifest(header, where)
    table = table_of(manifest)
    if header != header_bytes(manifest, table):
        raise _header_error(header, table, where)
    expected_bytes = len(header) + 4 * n_parameters(table)
    if n_bytes != expected_bytes:
        raise MalformedError(
            "The weight file is cut off or has bytes left over",
            expected=f"{expected_bytes} B",
            found=f"{n_bytes} B",
            where=where,
            hint="copy it again from the sender",
        )
    return manifest


def write(path: Path, manifest: Manifest, tensors: Tensors) -> None:
    """Write a weight file from tensors in memory.

    Args:
        path: Where; must not exist.
        manifest: What travels along.
        tensors: float32 arrays by name.

    Raises:
        TensorsError: A tensor is not float32 or not finite.
        ConflictError: There is such a file already.
    """
    import numpy as np

    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise TensorsError(
                "The weights can't be written",
                expected="finite float32 values",
                found="NaN or infinity" if tensor.dtype == np.float32 else tensor.dtype,
                where=f"tensor {name}",
                hint="training diverged: a smaller training.rate in the plan may help",
            )
    table = {name: tensor.shape for name, tensor in tensors.items()}
    with writer(path, manifest, table) as put:
        for name in sorted(tensors):
            put(tensors[name])


@contextlib.contextmanager
def state_writer(
    path: Path, manifest: Manifest, table: TensorTable, n_words: int
) -> "Iterator[Callable[[int, Sequence[npt.NDArray[np.float32]]], None]]":
    """Write the state of a rule: gives a function that takes a stretch of the values of each word.

    Its first argument is where the stretch begins, in values. Errors are those of `writer`.
    """
    import numpy as np

    with atomic.new_file(path) as stream:
        header = header_bytes(manifest, table)
        stream.write(header)
        n_values = n_parameters(table) // n_words

        def put(start: int, words: "Sequence[npt.NDArray[np.float32]]") -> None:
            for number, values in enumerate(words):
                stream.seek(len(header) + 4 * (number * n_values + start))
                stream.write(np.ascontiguousarray(values, dtype="<f4").tobytes())

        yield put


@contextlib.contextmanager
def writer(
    path: Path, manifest: Manifest, table: TensorTable
) -> "Iterator[Callable[[npt.NDArray[np.float32]], None]]":
    """Write a weight file piece by piece: gives a function that takes values in file order.

    Raises:
        ConflictError: There is such a file already.
        ResourceError: The disk refuses.
    """
    import numpy as np

    with atomic.new_file(path) as stream:
        stream.write(header_bytes(manifest, table))

        def put(values: "npt.NDArray[np.float32]") -> None:
            stream.write(np.ascontiguousarray(values, dtype="<f4").tobytes())

        yield put


def read_tensors(path: Path, table: TensorTable) -> "dict[str, npt.NDArray[np.float32]]":
    """All tensors of a checked file, in memory, in name order.

    Raises:
        FileRefusedError: The file is not what the table says.
    """
    import safetensors

    check(path, table)
    with safetensors.safe_open(path, framework="numpy") as content:
        return {name: content.get_tensor(name) for name in sorted(table)}


def data_start(path: Path) -> int:
    """Where the first tensor begins, in bytes from the start of a checked file."""
    with path.open("rb") as stream:
        return 8 + int.from_bytes(stream.read(8), "little")


def _header_json(header: bytes, where: Path) -> dict[str, Any]:
    try:
        content = json.loads(header[8:].decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise MalformedError(
            "Not a weight file", expected="a safetensors header", found=error, where=where
        ) from None
    if not isinstance(content, dict):
        raise MalformedError("Not a weight file", expected="a safetensors header", where=where)
    return content


def _header_error(header: bytes, table: TensorTable, where: Path) -> MalformedError | TensorsError:
    """Say in which way a header differs from the one that must stand there."""
    found = _header_json(header, where)
    names = set(found) - {"__metadata__"}
    for title, difference in (
        ("Tensors are missing", set(table) - names),
        ("There are tensors that the plan doesn't have", names - set(table)),
    ):
        if difference:
            return TensorsError(
                title,
                expected=f"the {len(table)} tensors of the plan's network",
                found=", ".join(sorted(repr(name)[:60] for name in difference)[:3]),
                where=where,
                hint="the file was made with another network",
            )
    for name, shape in table.items():
        entry = found[name] if isinstance(found[name], dict) else {}
        if (entry.get("dtype"), entry.get("shape")) != ("F32", list(shape)):
            return TensorsError(
                "A tensor is not the plan's",
                expected=f"F32 {list(shape)}",
                found=f"{str(entry.get('dtype'))[:20]} {str(entry.get('shape'))[:60]}",
                where=f"{where}, tensor {name}",
                hint="the file was made with another network",
            )
    return MalformedError(
        "The header is not in its canonical form",
        expected="sorted keys, each once, no spaces, tensors in name order without a gap",
        where=where,
        hint="only files written by brainfed are exchanged",
    )


def check_finite(stream: BinaryIO, table: TensorTable, where: Path) -> None:
    """Check the values of a file whose header has been read.

    Raises:
        TensorsError: One is NaN or infinite.
    """
    import numpy as np

    for name, shape in sorted(table.items()):
        left = math.prod(shape)
        while left:
            values = np.frombuffer(stream.read(4 * min(left, CHUNK_VALUES)), "<f4")
            if not np.isfinite(values).all():
                raise TensorsError(
                    "The weights hold NaN or infinity", where=f"{where}, tensor {name}"
                )
            left -= len(values)
