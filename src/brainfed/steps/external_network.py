"""A network of the sites' own as the plan writes it down: the tensors of a file of its weights."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import ValidationError

from brainfed.errors import TensorsError, UsageError
from brainfed.formats import given_weights
from brainfed.plan import TENSOR, Architecture, Network


def network_of(path: Path, local: Sequence[str] = ()) -> Network:
    """The table `network` for the weights in a file.

    Args:
        path: A safetensors file.
        local: Names of tensors that each site keeps to itself, or patterns with `*` and `?`. All
            that are not float32 are kept besides.

    Raises:
        UsageError: The file is missing or a pickle; a pattern fits no tensor.
        FileRefusedError: Not a safetensors file, or of tensors that a plan can't hold.
    """
    header = given_weights.read_header(path)
    lines = []
    for name, tensor in header.items():
        line = " ".join((name, tensor.kind, *map(str, tensor.shape)))
        if not re.fullmatch(TENSOR, line):
            raise TensorsError(
                "A plan can't hold this tensor",
                expected="a name of letters, digits and . _ : / - up to 200 long, and a shape "
                "without 0",
                found=line[:80],
                where=path,
                hint="rename it in the file, and back in your program",
            )
        lines.append(line)
    kept = {name for name, tensor in header.items() if tensor.kind != "F32"}
    for pattern in local:
        found = {name for name in header if fnmatchcase(name, pattern)}
        if not found:
            raise UsageError(
                "No tensor has such a name",
                expected=f"a name among {', '.join(list(header)[:3])} ...",
                found=pattern,
                where="--local",
                hint="`brainfed plan from-weights FILE` without --local lists all names",
            )
        kept |= found
    try:
        return Network(
            architecture=Architecture.EXTERNAL, tensors=tuple(lines), local=tuple(sorted(kept))
        )
    except ValidationError as error:
        raise TensorsError(
            "No plan can be made of this file",
            found=error.errors()[0]["msg"].removeprefix("Value error, "),
            where=path,
        ) from None
