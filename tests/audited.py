"""A whole archive in memory, made by the script of the golden files, and ways to tell it otherwise.

The script imports nothing of brainfed, so audit is held against the pages of `docs/formats/` and
not against the code that it shares with aggregation. `Archive` is a dict of bytes by name.
"""

import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from brainfed.core.sshsig import RELEASE_NAMESPACE
from tests.golden import make

Archive = dict[str, bytes]
LEAD, A, B, C = make.LEAD, make.A, make.B, make.C


@functools.cache
def _federation() -> tuple[tuple[str, bytes], ...]:
    return tuple(make.federation().items())


def an_archive() -> Archive:
    """Three sites, three rounds, an amendment, a new key, a revoked one, a lost coordinator key."""
    return dict(_federation())


def signed_names() -> list[str]:
    """The signed files, without their signatures."""
    files = an_archive()
    return [name for name in files if f"{name}.sig" in files]


def write(files: Archive, folder: Path) -> Path:
    """Put an archive on the disk; gives the folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def only(files: Archive, *parts: str) -> Archive:
    """The files whose names hold one of the parts."""
    return {name: data for name, data in files.items() if any(part in name for part in parts)}


def name_of(files: Iterable[str], *parts: str) -> str:
    """The one signed file whose name holds all parts."""
    (name,) = (n for n in files if all(p in n for p in parts) and not n.endswith(".sig"))
    return name


def sign(files: Archive, name: str, key: str) -> None:
    """Sign a file anew by the key of a name of the golden script; any other text is a stranger."""
    namespace = RELEASE_NAMESPACE if name.endswith(".approval.json") else "brainfed"
    files[f"{name}.sig"] = make.signature(files[name], key, namespace=namespace.encode())


def key_of(name: str, files: Archive) -> str:
    """By whose key a file is signed, as the golden script names it."""
    keys = [*make.ROLES, f"{A} again", f"{LEAD} again", "recovery"]
    for key in keys:
        for algorithm in ("sha256", "sha512"):
            namespace = RELEASE_NAMESPACE if name.endswith(".approval.json") else "brainfed"
            text = make.signature(
                files[name], key, namespace=namespace.encode(), algorithm=algorithm
            )
            if text == files[f"{name}.sig"]:
                return key
    raise AssertionError(name)


def edit_json(files: Archive, name: str, edit: Callable[[dict[str, Any]], object]) -> str:
    """Change a signed JSON file and let its signer sign it; gives the new digest."""
    key = key_of(name, files)
    content = json.loads(files[name])
    edit(content)
    files[name] = make.canonical(content)
    sign(files, name, key)
    return make.sha256(files[name])


def edit_weights(
    files: Archive,
    name: str,
    *,
    manifest: Callable[[dict[str, Any]], object] = lambda content: None,
    values: Callable[[np.ndarray], object] = lambda values: None,
) -> str:
    """Change a weight file and let its signer sign it; gives the new digest."""
    key = key_of(name, files)
    content, numbers = read_weights(files[name])
    manifest(content)
    values(numbers)
    files[name] = make.weight_file(content, numbers)
    sign(files, name, key)
    return make.sha256(files[name])


def read_weights(data: bytes) -> tuple[dict[str, Any], np.ndarray]:
    """Manifest and values of a weight file."""
    length = 8 + int.from_bytes(data[:8], "little")
    manifest = json.loads(json.loads(data[8:length])["__metadata__"]["brainfed"])
    return manifest, np.frombuffer(data[length:], "<f4").copy()


def retell(files: Archive, round_number: int, values: Callable[[np.ndarray], object]) -> None:
    """Another story of one round, consistent in itself: another global, named by its record.

    Whatever follows that round is taken away.
    """
    for name in list(files):
        if name.startswith("rounds/") and int(name[8:12]) > round_number:
            del files[name]
    of_round = f".r{round_number:04d}."
    digest = edit_weights(files, name_of(files, of_round, ".global."), values=values)
    edit_json(
        files,
        name_of(files, of_round, ".record."),
        lambda content: content.update(global_digest=digest),
    )


def close_round_as(files: Archive, round_number: int, name: str) -> None:
    """The last round as somebody else than the coordinator closes it, right in every number."""
    of_round = f".r{round_number:04d}."
    target, record = (name_of(files, of_round, f"{LEAD}.{k}.") for k in ("global", "record"))
    manifest, values = read_weights(files[target])
    files[target] = make.weight_file(manifest | {"sender": name}, values)
    content = json.loads(files[record]) | {"sender": name}
    files[record] = make.canonical(content | {"global_digest": make.sha256(files[target])})
    for path in (target, record):
        sign(files, path, name)


def retell_rosters(files: Archive, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change each roster after the start and chain them anew, each signed by its signer."""
    previous = make.sha256(files["federation/roster.v0001.json"])
    for version in (2, 3, 4):
        name = f"federation/roster.v{version:04d}.json"

        def change(content: dict[str, Any], previous: str = previous) -> None:
            content["previous"] = previous
            edit(content)

        previous = edit_json(files, name, change)
