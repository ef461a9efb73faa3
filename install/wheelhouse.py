"""Gather all that a machine without a network needs to install brainfed: `make wheelhouse`.

`gather` makes a folder of wheels for this Python and any Linux of this processor with glibc 2.28 or
later (the floor of torch), and beside them: requirements with hashes, an SBOM, licences, digests of
everything, and a signature over the digests. pip asks an index here, never where it installs.
`sbom` writes the SBOM of the environment that it runs in, as far as brainfed needs it.
"""

import argparse
import csv
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from packaging.utils import parse_wheel_filename
from sbom import needed, write_sbom

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
TORCH_INDEX = "https://download.pytorch.org/whl"
NAMESPACE = "brainfed-wheelhouse"
"""Of the signature: not that of exchanged files, so that one can't be taken for the other."""
GLIBC_MINOR = 28
"""Wheels for glibc 2.x up to this x are taken. Younger ones don't run on RHEL 8 and its kin."""
REQUIREMENTS, SUMS, SBOM = "requirements.txt", "SHA256SUMS", "sbom.cdx.json"
ALONG = ("install/Dockerfile", "install/brainfed.def")
PAGES = {"docs/how-to/install-offline.md": "README.md", "docs/how-to/containers.md": None}
"""Pages that lie beside the wheels, under another name where one stands here."""
LICENCE = re.compile(r"licen[cs]e|copying|notice|authors", re.IGNORECASE)


@dataclass(frozen=True)
class Wheel:
    """One wheel of the folder."""

    path: Path
    name: str
    """As PEP 503 spells it."""
    version: str
    digest: str
    """SHA-256 of the file, in hex."""


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    gather_words = commands.add_parser("gather")
    gather_words.add_argument("out", type=Path, help="a new or empty folder")
    gather_words.add_argument("--extras", default="encrypt,dicom")
    gather_words.add_argument("--torch", default="cpu", help="cpu, or a CUDA build such as cu128")
    gather_words.add_argument("--key", type=Path, help="an SSH key that signs the digests")
    commands.add_parser("sbom").add_argument("out", type=Path, help="a JSON file")
    given = parser.parse_args(words)
    if given.command == "sbom":
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_sbom(given.out, sys.executable, dict.fromkeys(needed("brainfed")))
        return
    extras = sorted(filter(None, given.extras.split(",")))
    gather(given.out, extras, build=given.torch, key=given.key)


def gather(out: Path, extras: Sequence[str], *, build: str, key: Path | None) -> None:
    """Fill the folder `out`; it appears whole or not at all."""
    if sys.platform != "linux":
        raise SystemExit(f"A wheelhouse is made on Linux, for Linux; this is {sys.platform}.")
    if out.exists() and any(out.iterdir()):
        raise SystemExit(f"{out} must be new or empty, and has files. Remove it, or name another.")
    if key is not None and not key.is_file():
        raise SystemExit(f"There is no key {key}. Make one: ssh-keygen -t ed25519 -f {key}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".wheelhouse-", dir=out.parent) as temporary:
        folder = Path(temporary) / "wheelhouse"
        folder.mkdir()
        download(folder, extras, build)
        found = wheels_in(folder)
        requirements = "\n".join(requirement_lines(found, extras)) + "\n"
        (folder / REQUIREMENTS).write_text(requirements)
        python = _installed(folder, Path(temporary) / "venv")
        write_sbom(folder / SBOM, python, {wheel.name: wheel.digest for wheel in found})
        without = write_licences(folder, found)
        _copy_along(folder)
        write_sums(folder)
        if key is not None:
            _run("ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", key, folder / SUMS)
        folder.rename(out)
    size_mb = sum(wheel.path.stat().st_size for wheel in wheels_in(out)) / 1e6
    print(f"{out}: {len(found)} wheels, {size_mb:.0f} MB, with {REQUIREMENTS}, {SBOM}, {SUMS}.")
    for name in without:
        print(f"No licence text lies in the wheel of {name}.")
    print(_signed(out, key))


def download(folder: Path, extras: Sequence[str], build: str) -> None:
    """Put brainfed's own wheel, torch's of this build, and those of all they need into a folder.

    torch comes first and alone from PyTorch's index: PyPI has one build of it, with CUDA. So no
    other package can come from there. Only wheels are taken: nothing is built at a hospital.
    """
    pip = [sys.executable, "-m", "pip"]
    own = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    _run(*own, ROOT)
    (brainfed,) = folder.glob("brainfed-*.whl")
    fetch = [*pip, "download", "--quiet", "--only-binary", ":all:", "--dest", folder]
    fetch += ["--constraint", CONSTRAINTS, *_platform_words(platform.machine())]
    pinned = re.search(r"^torch==\S+$", CONSTRAINTS.read_text(), re.MULTILINE)
    assert pinned is not None, CONSTRAINTS
    index = f"{TORCH_INDEX}/{build}"
    _run(*fetch, "--no-deps", "--index-url", index, f"{pinned[0]}+{build}")
    (torch,) = folder.glob("torch-*.whl")
    _run(*fetch, torch, f"{brainfed}[{','.join(extras)}]")


def _platform_words(machine: str) -> Iterator[str]:
    for minor in range(GLIBC_MINOR, 16, -1):
        yield from ("--platform", f"manylinux_2_{minor}_{machine}")
    yield from ("--platform", f"manylinux2014_{machine}", "--platform", f"linux_{machine}")


def wheels_in(folder: Path) -> list[Wheel]:
    """The wheels of a folder, by name."""
    found = []
    for path in folder.glob("*.whl"):
        name, version, _, _ = parse_wheel_filename(path.name)
        found.append(Wheel(path, name, str(version), _digest(path)))
    return sorted(found, key=lambda wheel: wheel.name)


def requirement_lines(wheels: Iterable[Wheel], extras: Sequence[str]) -> Iterator[str]:
    """What `pip install --require-hashes` reads: every package, at one version, of one digest."""
    system = f"Linux {platform.machine()} with glibc 2.{GLIBC_MINOR} or later"
    yield f"# For CPython {sys.version_info.major}.{sys.version_info.minor} on {system}."
    for wheel in wheels:
        own = f"[{','.join(extras)}]" if extras and wheel.name == "brainfed" else ""
        yield f"{wheel.name}{own}=={wheel.version} --hash=sha256:{wheel.digest}"


def _installed(folder: Path, venv: Path) -> Path:
    """The Python of a fresh environment with these wheels alone: they are complete, or pip says."""
    _run(sys.executable, "-m", "venv", "--without-pip", venv)
    python = venv / "bin" / "python"
    words = ["--quiet", "--no-compile", "--no-index", "--find-links", folder, "--require-hashes"]
    here = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    _run(
        *(sys.executable, "-m", "pip", "--python", python, "install", *words),
        *("--requirement", folder / REQUIREMENTS),
        environment=here | {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    return python


def write_licences(folder: Path, wheels: Iterable[Wheel]) -> list[str]:
    """Write each package's licences, and its own SBOMs (PEP 770), as they lie in its wheel.

    Returns:
        Packages whose wheel has no licence text.
    """
    rows, without = [], []
    for wheel in wheels:
        with ZipFile(wheel.path) as packed:
            names = [name for name in sorted(packed.namelist()) if not name.endswith("/")]
            metadata = next(n for n in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
            texts = [name for name in names if _is_licence(name)]
            bills = [name for name in names if ".dist-info/sboms/" in name]
            for kind, group in (("licences", texts), ("sboms", bills)):
                for name in group:
                    target = folder / kind / f"{wheel.name}-{wheel.version}" / _below(name)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(packed.read(name))
            declared = licence_of(message_from_bytes(packed.read(metadata)))
        rows.append((wheel.name, wheel.version, declared, len(texts)))
        without += [] if texts else [wheel.name]
    with (folder / "licences.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerows([("package", "version", "licence", "texts"), *rows])
    return without


def licence_of(metadata: Message) -> str:
    """The licence that a package declares: SPDX expression, classifiers, or the first line."""
    if expression := metadata["License-Expression"]:
        return str(expression)
    classifiers = metadata.get_all("Classifier") or []
    named = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License ::")]
    first_line = str(metadata["License"] or "").strip().partition("\n")[0]
    return "; ".join(named) or first_line or "see its text"


def _is_licence(name: str) -> bool:
    path = PurePosixPath(name)
    is_code = path.suffix in {".py", ".pyi", ".so", ".h"}
    return ".dist-info/licenses/" in name or (bool(LICENCE.search(path.name)) and not is_code)


def _below(name: str) -> PurePosixPath:
    """Where a file of a wheel is put: without the folders of metadata, never above the target."""
    parts = [part for part in PurePosixPath(name).parts if part not in {"..", "/"}]
    if parts[0].endswith(".dist-info"):
        parts = parts[2 if parts[1] in {"licenses", "sboms"} else 1 :]
    return PurePosixPath(*parts)


def _copy_along(folder: Path) -> None:
    for name in ALONG:
        shutil.copyfile(ROOT / name, folder / Path(name).name)
    for name, other in PAGES.items():
        # The pages that they link don't lie here.
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", (ROOT / name).read_text("utf-8"))
        (folder / (other or Path(name).name)).write_text(text, "utf-8")


def write_sums(folder: Path) -> None:
    """Write the digests of all files, as `sha256sum -c` reads them."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    lines = [f"{_digest(files[name])}  {name}\n" for name in sorted(files) if files[name].is_file()]
    (folder / SUMS).write_text("".join(lines), "utf-8")


def _signed(out: Path, key: Path | None) -> str:
    """Write the maker's public key beside the folder, and say how it must travel."""
    if key is None:
        return f"It is not signed: KEY=FILE signs {SUMS} with an SSH key."
    public = key if key.suffix == ".pub" else key.with_name(f"{key.name}.pub")
    signers = out.with_name("wheelhouse.signers")
    # Two words alone: the comment of a key carries user@host.
    kind, blob = public.read_text().split()[:2]
    signers.write_text(f'maker namespaces="{NAMESPACE}" {kind} {blob}\n')
    return f"Signed. Bring {signers} by another way than the wheels: who has both can change both."


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(*words: object, environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run([str(word) for word in words], env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"This didn't go well, see above: {' '.join(map(str, words))}")


if __name__ == "__main__":
    main()
