"""Speed of `import`: `python tests/benchmarks/bench_import.py [FOLDER]`.

Makes a federation with a network of 31 million parameters in FOLDER (about 2 GB, taken away
afterwards; the system's temporary folder where none is given). It takes an update of 124 MB in,
again and again, and beside each import measures plain SHA-256 over the same file, all from the page
cache; then once more with flushing to the disk left out. Then it times an import from a folder of
10,000 files that are not ours, of 10,000 signatures, and of 10,000 JSON files. Prints a table and
writes it to `docs/results/import.md`.
"""

import hashlib
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.bench_aggregate import cpu
from tests.builders import a_plan
from tests.federation import (
    Small,
    a_federation,
    carry,
    close_round,
    take,
    train,
)

from brainfed.core import sshsig
from brainfed.formats import pour
from brainfed.steps.exchange import export
from brainfed.steps.receive import Import

ROOT = Path(__file__).resolve().parents[2]
AIM = 0.60
RUNS = 9
MANY = 10_000
LOAD = f"{os.getloadavg()[0]:.1f}"


@dataclass
class Measured:
    """Seconds of the runs of one kind, and of plain SHA-256 beside each."""

    what: str
    seconds: list[float]
    plain: list[float]

    @property
    def ratio(self) -> float:
        """Speed of the import by that of SHA-256: the median over pairs."""
        pairs = zip(self.plain, self.seconds, strict=True)
        return statistics.median(plain / seconds for plain, seconds in pairs)


def a_large_federation(root: Path, encryption: str) -> Small:
    plan = a_plan(
        network={"channels": (64, 128, 256, 512, 1024)}, exchange={"encryption": encryption}
    )
    return a_federation(root, plan=plan)


def clocked(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def plain_sha256(path: Path) -> None:
    with path.open("rb") as stream:
        hashlib.file_digest(stream, "sha256")


def one_accepted(done: Import) -> None:
    if [file.verdict.value for file in done.files if ".update." in file.name] != ["accepted"]:
        raise SystemExit(f"the update was not accepted: {done.files}")


def measure(small: Small, what: str, number: int) -> Measured:
    """Import the update of hospital-a, which is taken out again after each run."""
    site, coordinator = small.sites["hospital-a"], small.coordinator
    for old in site.round_folder(number).glob("*.update.safetensors*"):
        old.unlink()
    path = train(site)
    export(site, small.medium())
    for other in small.medium().glob("*.acceptance.json*"):
        other.unlink()
    result = Measured(what, [], [])
    for run in range(RUNS + 1):
        plain = clocked(lambda: plain_sha256(path))
        seconds = clocked(lambda: one_accepted(take(coordinator, small.medium())))
        for file in coordinator.round_folder(number).glob("*.update.safetensors*"):
            file.unlink()
        if run:  # the first one warms up
            result.plain.append(plain)
            result.seconds.append(seconds)
        sys.stderr.write(f"{what}: {seconds:.3f} s, SHA-256 {plain:.3f} s\n")
    return result


def acceptances(small: Small) -> None:
    for site in small.sites.values():
        carry(site, small.coordinator, small.medium(f"acceptance-{site.name}"))


def finish_round(small: Small) -> None:
    """Close round 1, whose update of hospital-a has been measured already."""
    for path in small.sites["hospital-a"].round_folder(1).iterdir():
        path.unlink()
    close_round(small)
    for path in small.medium().iterdir():
        path.unlink()


def without_flushing(action: Callable[[], Measured]) -> Measured:
    """The disk left out: neither flushed nor begun to be written to while we copy."""
    kept = os.fsync, pour._begin_writeback
    os.fsync, pour._begin_writeback = lambda descriptor: None, lambda target, n_bytes: None
    try:
        return action()
    finally:
        os.fsync, pour._begin_writeback = kept


def of_many(small: Small) -> list[tuple[str, float]]:
    """Seconds of an import from a folder of many small files of one kind."""
    key = small.sites["hospital-a"].private_key()
    armored = sshsig.sign(key, bytes(32)).armored
    kinds = {
        f"{MANY:,} foreign files": ("jpg", b"\xff\xd8\xff" + bytes(1000)),
        f"{MANY:,} signatures without files": ("sig", armored),
        f"{MANY:,} JSON files without signatures": ("json", b'{"a":1}'),
    }
    rows = []
    for what, (ending, data) in kinds.items():
        folder = small.medium(ending)
        for number in range(MANY):
            (folder / f"{number}.{ending}").write_bytes(data)
        rows.append((what, clocked(lambda folder=folder: take(small.coordinator, folder))))
        sys.stderr.write(f"{rows[-1]}\n")
    mixed = small.medium("json")
    for number in range(1000):
        (mixed / f"x{number}.sig").write_bytes(armored)
    what = f"{MANY:,} JSON files and 1,000 signatures of other names"
    rows.append((what, clocked(lambda: take(small.coordinator, mixed))))
    return rows


def report(measured: list[Measured], many: list[tuple[str, float]], n_bytes: int) -> str:
    passed = measured[0].ratio >= AIM
    rows = "\n".join(
        f"| {m.what} | {milliseconds(m.seconds)} | {milliseconds(m.plain)} | {m.ratio:.0%} "
        f"| {n_bytes / statistics.median(m.seconds) / 1e9:.2f} GB/s |"
        for m in measured
    )
    counts = "\n".join(f"| {what} | {seconds:.1f} s |" for what, seconds in many)
    return f"""# Speed of `import`

`python tests/benchmarks/bench_import.py`: an update of {n_bytes / 1e6:.0f} MB taken in by the
coordinator's import step, from a folder on the same disk and in the page cache, {RUNS} runs after
one that warms up. An import is all of it: look, copy, signature, form, every value finite, rename,
ledger. Beside each run plain SHA-256 (`hashlib.file_digest`) over the same file. The ratio is that
of the speeds, pair by pair, the median. Aim: {AIM:.0%} with flushing, in round 2 and later.
**{"Reached." if passed else "NOT reached."}**

| what | import, min / median | SHA-256, min / median | ratio | speed, median |
|---|---|---|---|---|
{rows}

In round 1 the parent of an update is the global weights of round 0, which no record names, so their
digest is read from the disk: one more pass over as many bytes. "Without flushing" leaves out
`fsync` and the early beginning of it, to tell the disk's part from ours.

Many small files in one folder, with flushing:

| what | time |
|---|---|
{counts}

{platform.system()} {platform.machine()}, {cpu()}, shared with other work (load {LOAD} at the \
start: of two processors, and the import uses both); \
Python {platform.python_version()}, numpy {version("numpy")}, cryptography \
{version("cryptography")}, pyrage {version("pyrage")}, brainfed {version("brainfed")}.
"""


def milliseconds(values: list[float]) -> str:
    return f"{min(values) * 1e3:.0f} / {statistics.median(values) * 1e3:.0f} ms"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=folder) as root:
        clear = a_large_federation(Path(root) / "clear", "off")
        acceptances(clear)
        first = measure(clear, "round 1", 1)
        finish_round(clear)
        measured = [measure(clear, "round 2", 2)]
        measured.append(without_flushing(lambda: measure(clear, "round 2, without flushing", 2)))
        measured.append(first)
        secret = a_large_federation(Path(root) / "secret", "required")
        acceptances(secret)
        measured.append(measure(secret, "round 1, encrypted (age)", 1))
        many = of_many(clear)
        updates = clear.sites["hospital-a"].round_folder(2).glob("*.update.safetensors")
        n_bytes = next(updates).stat().st_size
    text = report(measured, many, n_bytes)
    sys.stdout.write(text)
    target = ROOT / "docs" / "results" / "import.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


if __name__ == "__main__":
    main()
