"""What the doctor looks at in software: Python, libraries, ssh-keygen, and a signature."""

import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from brainfed.core import sshsig
from brainfed.errors import SignatureError
from brainfed.formats import atomic, courier, signature
from brainfed.plan import BrainMask, Encryption, Plan, Space
from brainfed.steps.doctor_check import Checked, Health

OLDEST_OPENSSH = (8, 1)
"""The first that signs and checks files."""
SECONDS = 10
"""The most that another program may take."""


def python() -> Checked:
    """Python against what brainfed needs."""
    needed = metadata.metadata("brainfed")["Requires-Python"]
    found = platform.python_version()
    if Version(found) in SpecifierSet(needed, prereleases=True):
        return Checked("Python", Health.OK, found)
    return Checked("Python", Health.BAD, f"{found}, not {needed}", f"install Python {needed}")


def brainfed(plan: Plan | None) -> Checked:
    """This brainfed against the oldest that the plan lets take part."""
    found = metadata.version("brainfed")
    if plan is None:
        return Checked("brainfed", Health.OK, found)
    wanted = plan.terms.minimum_version
    if Version(found) >= Version(wanted):
        return Checked("brainfed", Health.OK, f"{found}; the plan asks for {wanted} or later")
    todo = f"install brainfed {wanted} or later"
    return Checked("brainfed", Health.BAD, f"{found}; the plan asks for {wanted}", todo)


def libraries() -> Checked:
    """Every library that brainfed needs, against the oldest version that it works with."""
    wrong, found = [], []
    for line in metadata.requires("brainfed") or ():
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        there = _version(wanted.name)
        if there is None:
            wrong.append(f"{wanted.name} is missing")
        elif not wanted.specifier.contains(there, prereleases=True):
            wrong.append(f"{wanted.name} {there}, not {wanted.specifier}")
        found.append(f"{wanted.name} {there}")
    if wrong:
        return Checked("libraries", Health.BAD, "; ".join(wrong), "install brainfed again")
    return Checked("libraries", Health.OK, ", ".join(found))


def extras(plan: Plan | None) -> Checked:
    """The optional packages: bad where the plan can't do without."""
    needed = _needed_extras(plan)
    there: list[str] = []
    missing: list[str] = []
    wrong: list[str] = []
    for extra in metadata.metadata("brainfed").get_all("Provides-Extra") or ():
        requirements = [
            wanted
            for line in metadata.requires("brainfed") or ()
            if (wanted := Requirement(line)).marker is not None
            and not wanted.marker.evaluate({"extra": ""})
            and wanted.marker.evaluate({"extra": extra})
        ]
        if all(_fits(wanted) for wanted in requirements):
            there.append(extra)
        else:
            (wrong if extra in needed else missing).append(extra)
    found = f"here: {', '.join(there) or 'none'}; not here: {', '.join(wrong + missing) or 'none'}"
    if wrong:
        todo = f'the plan needs it: pip install "brainfed[{",".join(wrong)}]"'
        return Checked("optional packages", Health.BAD, found, todo)
    is_wanted = plan is not None and plan.exchange.encryption is not Encryption.OFF
    if is_wanted and not courier.is_available():
        todo = f"weights would travel in the clear; to encrypt them: {courier.INSTALL}"
        return Checked("optional packages", Health.LOOK, found, todo)
    return Checked("optional packages", Health.OK, found)


def _needed_extras(plan: Plan | None) -> set[str]:
    if plan is None:
        return set()
    preparation = plan.preparation
    return {
        extra
        for extra, is_needed in (
            ("encrypt", plan.exchange.encryption is Encryption.REQUIRED),
            ("atlas", preparation.space is Space.MNI152),
            ("brain", preparation.brain is BrainMask.DEEPBET),
        )
        if is_needed
    }


def _fits(wanted: Requirement) -> bool:
    there = _version(wanted.name)
    return there is not None and wanted.specifier.contains(there, prereleases=True)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def ssh_keygen() -> Checked:
    """OpenSSH, with which others can check files without brainfed."""
    if shutil.which("ssh-keygen") is None:
        todo = "brainfed signs and checks by itself; install OpenSSH to check files without it"
        return Checked("ssh-keygen", Health.LOOK, "not here", todo)
    found = _openssh()
    if found is None:
        todo = "run `ssh -V`; it should be 8.1 or later"
        return Checked("ssh-keygen", Health.LOOK, "here, its version is unknown", todo)
    text = ".".join(map(str, found))
    if found < OLDEST_OPENSSH:
        todo = "it can't check signatures of files; brainfed does so by itself"
        return Checked("ssh-keygen", Health.LOOK, f"OpenSSH {text}, older than 8.1", todo)
    return Checked("ssh-keygen", Health.OK, f"OpenSSH {text}")


def _openssh() -> tuple[int, int] | None:
    """The version of OpenSSH; None where `ssh` is missing or says another thing."""
    program = shutil.which("ssh")
    if program is None:
        return None
    done = _called([program, "-V"])
    told = re.search(r"OpenSSH\D*(\d+)\.(\d+)", done.stderr + done.stdout)
    return None if told is None else (int(told[1]), int(told[2]))


def sign(folder: Path) -> Checked:
    """Make a throw-away key, sign with it, and check that by brainfed and by ssh-keygen.

    Raises:
        BrainfedError: The disk refuses, or the signature is wrong.
    """
    key_path, path = folder / "key", folder / "file"
    public = signature.make_key(key_path, None)
    atomic.write_bytes(path, b"a file to sign\n")
    signature.sign_file(path, signature.load_key(key_path))
    if signature.verify_file(path).key != public:
        raise SignatureError("A signature names another key than the one that made it", where=path)
    program, found = shutil.which("ssh-keygen"), _openssh()
    if program is None or found is None or found < OLDEST_OPENSSH:
        return Checked("a signature", Health.OK, "made, and checked by brainfed")
    allowed = folder / "allowed"
    line = f'doctor namespaces="{sshsig.NAMESPACE}" {public.line}\n'
    atomic.write_bytes(allowed, line.encode())
    words = [program, "-Y", "verify", "-n", sshsig.NAMESPACE, "-f", str(allowed), "-I", "doctor"]
    done = _called([*words, "-s", str(signature.signature_path(path))], path.read_bytes())
    if done.returncode:
        todo = "send this line to the developers; brainfed checks it well by itself"
        return Checked("a signature", Health.BAD, done.stderr.strip()[:200], todo)
    return Checked("a signature", Health.OK, "made, and checked by brainfed and by ssh-keygen")


def _called(words: list[str], given: bytes = b"") -> "subprocess.CompletedProcess[str]":
    """Call a program of the system with fixed words."""
    try:
        return subprocess.run(  # noqa: S603 - its path was looked up, nobody else's words
            words,
            input=given.decode(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 1, "", f"no answer in {SECONDS} s")
