"""The SBOM of brainfed: which packages it needs, and CycloneDX of them.

The work is done by cyclonedx-bom. Here its bill is narrowed to what brainfed needs, gets the
digests of the wheels, and is held against the schema.
"""

import json
import subprocess
import sys
from collections.abc import Container, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def write_sbom(out: Path, python: Path | str, digests: Mapping[str, str | None]) -> None:
    """Write a CycloneDX 1.6 SBOM of some packages of an environment.

    `digests` are those of their wheels by name, or None. It has no time of day and no serial
    number, so that the same packages give the same bytes.
    """
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    with TemporaryDirectory() as temporary:
        raw = Path(temporary) / "sbom.json"
        words = ["--output-reproducible", "--spec-version", "1.6", "--output-file", raw]
        words += ["--pyproject", PROJECT]
        tool = [sys.executable, "-m", "cyclonedx_py", "environment"]
        subprocess.run([*tool, *map(str, words), str(python)], check=True)
        bill = only(json.loads(raw.read_text("utf-8")), digests)
    for component in [bill["metadata"]["component"], *bill["components"]]:
        digest = digests.get(canonicalize_name(component["name"]))
        if digest is not None:
            component["hashes"] = [{"alg": "SHA-256", "content": digest}]
    text = json.dumps(bill, indent=1, sort_keys=True) + "\n"
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong is not None:
        raise SystemExit(f"The SBOM doesn't fit the schema of CycloneDX 1.6: {wrong}")
    out.write_text(text, "utf-8")


def needed(package: str, extras: Iterable[str] | None = None) -> set[str]:
    """The packages of this environment that a package of it needs, itself among them, by name.

    With all its extras, unless some are named. The edges of the bill don't say it: they follow
    extras that nobody asked for, too.
    """
    if extras is None:
        extras = distribution(package).metadata.get_all("Provides-Extra") or []
    found: set[str] = set()
    ahead = [(canonicalize_name(package), frozenset(extras))]
    seen = set()
    while ahead:
        name, wanted = ahead.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:
            # Of an extra that isn't here, or left out on purpose as in the Makefile.
            continue
        found.add(name)
        for requirement in map(Requirement, lines):
            marker = requirement.marker
            cases = [{"extra": extra} for extra in {"", *wanted}]
            if marker is None or any(marker.evaluate(case) for case in cases):
                ahead.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found


def only(bill: dict[str, Any], names: Container[str]) -> dict[str, Any]:
    """The bill without packages of other names, such as the tools of a developer."""
    root = bill["metadata"]["component"]["bom-ref"]
    parts = [part for part in bill["components"] if canonicalize_name(part["name"]) in names]
    refs = {root, *(part["bom-ref"] for part in parts)}
    edges = [entry for entry in bill["dependencies"] if entry["ref"] in refs]
    for entry in edges:
        entry["dependsOn"] = [ref for ref in entry.get("dependsOn", []) if ref in refs]
    return bill | {"components": parts, "dependencies": edges}
