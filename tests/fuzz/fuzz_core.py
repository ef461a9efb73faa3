"""A million wrong files through the in-memory core, and ten thousand through import itself.

`make fuzz`, or `python -m tests.fuzz.fuzz_core --cases 1000000 --imports 10000`. Prints what became
of each class of files. Ends with exit code 1 if a file was accepted that is not one of the genuine
ones, unchanged; if an error came out that is not one of ours; or if the memory grew over the limit.
"""

import argparse
import hashlib
import multiprocessing
import os
import platform
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from brainfed.errors import BrainfedError, FileRefusedError
from brainfed.steps.verdict import Verdict
from tests.fuzz import mutate
from tests.fuzz.corpus import Scene, a_scene, a_scene_in, present

MAX_MEMORY_BYTES = 300 * 2**20
GENUINE = "accepted, being genuine and unchanged"
TRUSTED_SHARE = 0.1
"""Of all cases: changed content that its rightful sender signs."""


@dataclass
class Tally:
    """What became of the cases."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By class of files and outcome: a verdict, or the name of the error."""
    wrong: list[str] = field(default_factory=list)
    peak_bytes: int = 0

    def add(self, other: "Tally") -> None:
        self.counts += other.counts
        self.wrong += other.wrong
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)


def fuzz(scene: Scene, n_cases: int, seed: int) -> Tally:
    """Judge `n_cases` files; the same seed makes the same files."""
    tally = Tally()
    rng = random.Random(seed)
    names = list(scene.parties)
    for number in range(n_cases):
        is_trusted = rng.random() < TRUSTED_SHARE
        how = mutate.malformed_by_a_trusted_signer if is_trusted else rng.choice(mutate.UNTRUSTED)
        data, armored, name = how(rng, scene)
        party = rng.choice(names)
        told = _judge(scene, party, data, armored, name)
        if told == Verdict.ACCEPTED and not is_trusted and _is_genuine(scene, party, data):
            told = GENUINE
        tally.counts[how.__name__, told] += 1
        case = f"seed {seed}, case {number}, {how.__name__}, at {party}: {told}"
        if told.startswith("BUG"):
            tally.wrong.append(case)
        if told == Verdict.ACCEPTED and not is_trusted:
            tally.wrong.append(f"ACCEPTED {case}")
    tally.peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return tally


def _judge(scene: Scene, party: str, data: bytes, armored: bytes, name: str) -> str:
    try:
        return str(present(scene.parties[party], data, armored, Path(name)).verdict)
    except FileRefusedError as error:
        return type(error).__name__
    except BrainfedError as error:
        return f"BUG {type(error).__name__} is not of the family"
    except Exception as error:  # the point of the exercise
        return f"BUG {type(error).__name__}: {error}"[:300]


def _is_genuine(scene: Scene, party: str, data: bytes) -> bool:
    return (party, hashlib.sha256(data).hexdigest()) in scene.fresh


def _worker(job: tuple[int, int]) -> Tally:
    n_cases, seed = job
    return fuzz(a_scene(), n_cases, seed)


def fuzz_in_parallel(n_cases: int, seed: int, jobs: int) -> Tally:
    """The same over several processes, in parts of 50,000."""
    part = 50_000
    parts = [
        (min(part, n_cases - start), seed + number)
        for number, start in enumerate(range(0, n_cases, part))
    ]
    total = Tally()
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs) as pool:
        for number, tally in enumerate(pool.imap_unordered(_worker, parts), start=1):
            total.add(tally)
            sys.stderr.write(f"{number} of {len(parts)} parts\n")
    return total


def fuzz_import(n_files: int, seed: int, *, batch: int = 250) -> Tally:
    """Bring files to two workspaces that have all genuine ones; only the ledger may change."""
    from brainfed.steps.receive import receive
    from tests.federation import carry, say_yes, snapshot

    tally = Tally()
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="brainfed-fuzz-") as folder:
        scene, small = a_scene_in(Path(folder) / "f")
        for site in small.sites.values():
            carry(site, small.coordinator, small.medium(f"last-{site.name}"))
            carry(small.coordinator, site, small.medium(f"last-to-{site.name}"))
        for start in range(0, n_files, batch):
            stick = Path(folder) / f"stick-{start}"
            stick.mkdir()
            for number in range(min(batch, n_files - start)):
                how = rng.choice(mutate.UNTRUSTED)
                data, armored, name = how(rng, scene)
                path = stick / _possible(name, number)
                path.write_bytes(data)
                path.with_name(path.name + ".sig").write_bytes(armored)
            for place in (small.coordinator, small.sites["hospital-a"]):
                before = snapshot(place)
                done = receive(place, [stick], confirm=say_yes)
                tally.counts.update(
                    ("import", type(f.error).__name__ if f.error else str(f.verdict))
                    for f in done.files
                )
                if any(f.verdict is Verdict.ACCEPTED for f in done.files):
                    tally.wrong.append(f"ACCEPTED by {place.name}, seed {seed}, batch {start}")
                if snapshot(place) != before or list(place.inbox.iterdir()):
                    tally.wrong.append(f"import changed {place.name}, seed {seed}, batch {start}")
            for path in stick.iterdir():
                path.unlink()
    tally.peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return tally


def _possible(name: str, number: int) -> str:
    """The name as far as this disk allows it: no slash, no zero byte, not too long."""
    text = name.encode("utf-8", "replace").decode().replace("/", "_").replace("\0", "_")
    return f"{text[:150]}.{number}" if not text.startswith(".") else f"x{text[:150]}.{number}"


def report(tally: Tally) -> str:
    """The outcome as text."""
    classes = sorted({name for name, _ in tally.counts})
    lines = []
    for name in classes:
        of = {told: n for (owner, told), n in tally.counts.items() if owner == name}
        total = sum(of.values())
        told = ", ".join(f"{t} {n:,}" for t, n in sorted(of.items(), key=lambda x: -x[1]))
        lines.append(f"{name} ({total:,}): {told}")
    lines.append(f"wrong: {len(tally.wrong)}; memory at most {tally.peak_bytes / 2**20:.0f} MiB")
    return "\n".join([*lines, *tally.wrong[:20]])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--imports", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    libraries = ", ".join(f"{n} {version(n)}" for n in ("brainfed", "pydantic", "cryptography"))
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    print(f"{libraries}; seed {args.seed}")
    start = time.monotonic()
    tally = fuzz_in_parallel(args.cases, args.seed, args.jobs)
    print(f"\n{args.cases:,} files through the core in {time.monotonic() - start:.0f} s")
    print(report(tally))
    start = time.monotonic()
    by_import = fuzz_import(args.imports, args.seed)
    print(f"\n{args.imports:,} files through import in {time.monotonic() - start:.0f} s")
    print(report(by_import))
    is_wrong = bool(tally.wrong or by_import.wrong)
    too_large = max(tally.peak_bytes, by_import.peak_bytes) > MAX_MEMORY_BYTES
    return 1 if is_wrong or too_large else 0


if __name__ == "__main__":
    raise SystemExit(main())
