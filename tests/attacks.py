"""Ways to damage a signed file: each takes a path, changes the file there, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Edit = Callable[[dict[str, Any]], None]


def flip_bit(path: Path, bit: int) -> None:
    """Change one bit, counted from the start of the file."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def truncate(path: Path, n_bytes: int = 1) -> None:
    """Cut bytes off the end."""
    path.write_bytes(path.read_bytes()[:-n_bytes])


def append(path: Path, data: bytes = b"\0\0\0\0") -> None:
    """Add bytes at the end."""
    path.write_bytes(path.read_bytes() + data)


def header_and_body(path: Path) -> tuple[bytes, bytes]:
    """The header's text without its length, and the values."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return data[8 : 8 + length], data[8 + length :]


def put_header(path: Path, text: bytes, body: bytes | None = None) -> None:
    """Another header text before the same values, or other ones."""
    if body is None:
        body = header_and_body(path)[1]
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def edit_header(path: Path, edit: Edit, *, body: bytes | None = None) -> None:
    """Change the header's JSON, and write it as canonically as our writer does."""
    content = json.loads(header_and_body(path)[0])
    edit(content)
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    put_header(path, text + b" " * (-len(text) % 8), body)


def edit_manifest(path: Path, edit: Edit) -> None:
    """Change the manifest, and write it canonically."""

    def change(content: dict[str, Any]) -> None:
        manifest = json.loads(content["__metadata__"]["brainfed"])
        edit(manifest)
        content["__metadata__"]["brainfed"] = json.dumps(
            manifest, sort_keys=True, separators=(",", ":")
        )

    edit_header(path, change)


def edit_json(path: Path, edit: Edit) -> None:
    """Change a signed JSON file, and write it canonically."""
    content = json.loads(path.read_bytes())
    edit(content)
    path.write_bytes(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def setting(key: str, value: Any) -> Edit:
    """An edit that sets one entry."""

    def edit(content: dict[str, Any]) -> None:
        content[key] = value

    return edit


def put_value(path: Path, index: int, value: float) -> None:
    """Another number among the values, such as NaN."""
    text, body = header_and_body(path)
    values = np.frombuffer(body, "<f4").copy()
    values[index] = value
    put_header(path, text, values.tobytes())


def claim_header_of(path: Path, n_bytes: int) -> None:
    """A length field that claims a header of so many bytes; the file stays as small as it is."""
    path.write_bytes(n_bytes.to_bytes(8, "little") + path.read_bytes()[8:])


def duplicate_key(path: Path) -> None:
    """A tensor's entry twice in the header."""
    text, _ = header_and_body(path)
    entries = text.rstrip()[1:-1]
    twice = b'"head.bias":' + entries.split(b'"head.bias":')[1].split(b"}")[0] + b"},"
    put_header(path, b"{" + twice + entries + b"}")


def open_hole(path: Path) -> None:
    """Four unused bytes between two tensors, with offsets that fit."""
    text, body = header_and_body(path)
    content = json.loads(text)
    names = sorted(name for name in content if name != "__metadata__")
    cut = content[names[0]]["data_offsets"][1]

    def shift(content: dict[str, Any]) -> None:
        for name in names[1:]:
            content[name]["data_offsets"] = [4 + edge for edge in content[name]["data_offsets"]]

    edit_header(path, shift, body=body[:cut] + b"leak" + body[cut:])


def swap_tensors(path: Path) -> None:
    """Two tensors of one shape whose offsets are exchanged."""

    def swap(content: dict[str, Any]) -> None:
        first = content["encoder.level1.conv1.bias"]
        second = content["encoder.level1.conv2.bias"]
        first["data_offsets"], second["data_offsets"] = (
            second["data_offsets"],
            first["data_offsets"],
        )

    edit_header(path, swap)


def add_tensor(path: Path) -> None:
    """One tensor more than the plan has."""
    _, body = header_and_body(path)
    entry = {"data_offsets": [len(body), len(body) + 4], "dtype": "F32", "shape": [1]}
    edit_header(path, setting("zzz", entry), body=body + b"\0\0\0\0")


def drop_tensor(path: Path) -> None:
    """The last tensor and its values taken out."""
    text, body = header_and_body(path)
    content = json.loads(text)
    last = max(name for name in content if name != "__metadata__")
    start, _ = content[last]["data_offsets"]
    edit_header(path, lambda content: content.pop(last), body=body[:start])


def change_entry(key: str, value: Any) -> Callable[[Path], None]:
    """An attack that changes one field of the entry of `head.weight`."""

    def attack(path: Path) -> None:
        edit_header(path, lambda content: content["head.weight"].update({key: value}))

    return attack


def nested_json(depth: int) -> bytes:
    """Brackets within brackets."""
    return b'{"":' + b"[" * depth + b"]" * depth + b"}"
