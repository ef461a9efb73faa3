"""Make the pack for a review: `make review-pack`.

The whole documentation as pages that open from a stick, each marked, beginning at `docs/review/`;
the SBOM of this environment, the licences of its parts, and a zip of it all.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SBOM = "sbom.cdx.json"
LICENCE_NAMES = ("licen", "copying", "notice")


def main(out: Path) -> None:
    """Make the folder `out` anew, and `out`.zip beside it."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    run(str(ROOT / "install" / "wheelhouse.py"), "sbom", str(out / SBOM))
    write_licences(out)
    run(
        *("-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "--tag", "review"),
        *("--conf-dir", str(ROOT / "docs"), "--doctree-dir", str(out.parent / ".doctrees-review")),
        *(str(ROOT), str(out)),
    )
    (out / ".buildinfo").unlink()
    archive = shutil.make_archive(str(out), "zip", out.parent, out.name)
    print(f"{out}: open {out / 'index.html'}; all of it in {archive}.")


def run(*words: str) -> None:
    """Run Python with these words; its own errors are the message."""
    if subprocess.run([sys.executable, *words], check=False, cwd=ROOT).returncode != 0:
        raise SystemExit(f"The pack is not made: {' '.join(words)} ended with an error.")


def components(sbom: Path) -> list[tuple[str, str, str]]:
    """Name, version and licence of each part in an SBOM, by name."""
    parts = json.loads(sbom.read_text("utf-8"))["components"]
    rows = [
        (part["name"], part["version"], ", ".join(_licences(part)) or "see its texts")
        for part in parts
    ]
    return sorted(rows, key=lambda row: row[0].lower())


def _licences(part: dict[str, list[dict[str, dict[str, str]]]]) -> Iterator[str]:
    for found in part.get("licenses", []):
        licence = found.get("license", found)
        # A licence without a name of SPDX may be its whole text; its first line is its name.
        name = licence.get("id") or licence.get("expression") or licence.get("name")
        if name:
            yield str(name).splitlines()[0].removeprefix("License :: OSI Approved :: ")[:80]


def write_licences(out: Path) -> None:
    """Copy brainfed's licence and those that the installed parts of the SBOM bring."""
    folder = out / "licences"
    for name, version, _ in components(out / SBOM):
        try:
            files = distribution(name).files or []
        except PackageNotFoundError:
            continue
        for file in files:
            is_metadata = any(".dist-info" in part for part in file.parts)
            if is_metadata and any(word in file.name.lower() for word in LICENCE_NAMES):
                target = folder / f"{name}-{version}" / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(Path(str(file.locate())).read_bytes())
    shutil.copy(ROOT / "LICENSE", folder / "brainfed-LICENSE")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
