"""Canonical JSON: sorted keys, no spaces, ASCII, integers only; one value, one sequence of bytes.

Reading refuses every other spelling of the same value, so a signed file has exactly one form
(`docs/formats/canonical-json.md`).
"""

import json
from typing import Any, NoReturn

from brainfed.errors import MalformedError

MAX_INTEGER = 2**53 - 1
"""Largest magnitude that every JSON reader keeps exact (RFC 8259, section 6)."""


def dumps(value: Any) -> bytes:
    """The canonical bytes of a value of dicts, lists, strings, integers, booleans and None.

    Raises:
        MalformedError: The value holds a float, too large an integer, or a lone surrogate.
    """
    _check(value)
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")


def loads(data: bytes) -> Any:
    """Read canonical JSON.

    Raises:
        MalformedError: Not JSON, or not its canonical form (duplicate keys, spaces, floats, other
            order or escapes).
    """
    try:
        value = json.loads(data.decode("ascii"), parse_float=_no_float, parse_constant=_no_float)
        is_canonical = dumps(value) == data
    except (ValueError, RecursionError) as error:
        raise MalformedError("Not canonical JSON", found=error) from None
    if not is_canonical:
        raise MalformedError(
            "The JSON is not in canonical form",
            expected="sorted keys, each once, no spaces, ASCII, integers only",
        )
    return value


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"number {text[:20]!r} is not an integer")


def _check(value: Any) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise MalformedError("An integer is too large for JSON", expected="under 2^53")
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise MalformedError("A string holds a lone surrogate")
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise MalformedError("A key is not a string", found=type(key).__name__)
            _check(key)
            _check(item)
    else:
        raise MalformedError("Not a value of canonical JSON", found=type(value).__name__)
