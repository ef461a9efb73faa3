"""What an audit costs: `python tests/benchmarks/bench_audit.py [--folder FOLDER]`.

Makes a federation of 8 sites with a network of 7.8 million parameters and 20 closed rounds in
FOLDER (5.7 GB, taken away afterwards; the system's temporary folder where none is given). Every
file is another one: the updates are a block of random values, shifted. Each measurement is a
process of its own: `audit` of 20 rounds, reading the same bytes with SHA-256 and nothing else, in
one thread and in two, and `audit` of the first 5 rounds, whose memory must be the same. Prints a
table.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.builders import a_plan
from tests.federation import a_key, a_principal

from brainfed.core.architecture import n_parameters, tensor_table
from brainfed.core.averaging import weighted_mean
from brainfed.formats import document, federation, signature, weights
from brainfed.formats.acceptance import Acceptance
from brainfed.formats.enrolment import Enrolment
from brainfed.formats.manifest import Kind, Manifest
from brainfed.formats.record import Input, InputStatus, Record
from brainfed.formats.roster import Role, Roster
from brainfed.formats.start import make
from brainfed.formats.workspace import Workspace

N_SITES, N_ROUNDS, N_FEW = 8, 20, 5
DAY = "2026-03-01"
CHANNELS = (32, 64, 128, 256, 512)
SPARE_BYTES = 2 * 10**9
SITES = tuple(f"site-{number}" for number in range(N_SITES))
LEAD = "uni-lead"
AUDIT = """
import sys
from pathlib import Path
from brainfed.steps.audit import audit
done = audit([Path(sys.argv[1])])
assert not done.findings, done.findings[:3]
assert sum(row.outcome == "to the bit" for row in done.rounds) == int(sys.argv[2])
"""
READ = """
import hashlib, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
def read(path):
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
with ThreadPoolExecutor(int(sys.argv[2])) as threads:
    list(threads.map(read, sorted(Path(sys.argv[1]).rglob("*.safetensors"))))
"""


@dataclass
class Measured:
    """One process."""

    what: str
    seconds: float
    peak_mb: float


class Maker:
    """Writes the federation, one round at a time."""

    def __init__(self, root: Path) -> None:
        self.place = Workspace(root, Role.AUDITOR, "")
        self.keys = {name: a_key(seed) for seed, name in enumerate((LEAD, *SITES), start=1)}
        self.plan = a_plan(network={"channels": CHANNELS}, rounds=N_ROUNDS)
        self.table = tensor_table(self.plan)
        self.random = np.random.default_rng(1)
        self.noise = self.random.normal(0, 0.05, n_parameters(self.table)).astype(np.float32)
        self.known = self._begin()

    def _begin(self) -> federation.Federation:
        for folder in ("federation", "rounds"):
            (self.place.root / folder).mkdir(parents=True)
        first = Roster(
            version=1,
            principals=tuple(
                a_principal(name, key, Role.COORDINATOR if name == LEAD else Role.SITE)
                for name, key in sorted(self.keys.items())
            ),
        )
        self._put(federation.roster_path(self.place, 1), first, LEAD)
        start = make(self.plan, first, purpose="drill", nonce="0" * 32, day=DAY)
        self._put(federation.start_path(self.place), start, LEAD)
        digest = document.sha256(start.dumps())
        known = federation.assemble(start, digest, first)
        folder = self.place.federation_folder
        (folder / federation.ROSTER).write_bytes(first.allowed_signers())
        (folder / federation.REVOKED).write_bytes(first.revoked_keys())
        (folder / federation.PLAN).write_text(start.plan_text)
        self.about = {"purpose": "drill", "federation": digest, "roster_version": 1}
        for entry in first.sites:
            request = Enrolment(name=entry.name, role=Role.SITE, key=entry.key)
            self._put(federation.enrolment_path(self.place, entry.name, 1), request, entry.name)
            consent = Acceptance(
                **self.about,
                sender=entry.name,
                plan=start.plan,
                from_round=0,
                weights_licence=start.weights_licence,
                agreement=None,
                day=DAY,
            )
            self._put(federation.acceptance_path(self.place, entry.name, 1), consent, entry.name)
        return known

    def _put(self, path: Path, content: document.Header, name: str) -> None:
        document.write_signed(path, content, self.keys[name])

    def round(self, number: int, parent: str | None) -> str:
        """Write a closed round; gives the digest of its global weights."""
        self.place.round_folder(number).mkdir()
        if parent is None:
            return self._weights(Kind.GLOBAL, LEAD, 0, None, self.noise)
        updates, inputs = [], []
        for index, name in enumerate(SITES):
            values = np.roll(self.noise, 1009 * (number * N_SITES + index))
            values = values + np.float32(number / 100)
            digest = self._weights(Kind.UPDATE, name, number, parent, values)
            updates.append(values)
            inputs.append(
                Input(
                    sender=name,
                    digest=digest,
                    weight=10 + index,
                    status=InputStatus.INCLUDED,
                    reason=None,
                )
            )
        mean = weighted_mean(updates, [entry.weight for entry in inputs])
        digest = self._weights(Kind.GLOBAL, LEAD, number, parent, mean)
        record = Record(
            **self.about,
            sender=LEAD,
            plan=self.known.start.plan,
            round=number,
            edition=1,
            supersedes=None,
            rule=self.plan.aggregation.rule,
            weights_by=self.plan.aggregation.weights,
            parent=parent,
            inputs=tuple(inputs),
            next_site=None,
            global_digest=digest,
            state_digest=None,
            day=DAY,
        )
        folder = self.place.round_folder(number)
        self._put(folder / f"{self.known.file_stem(record)}.record.json", record, LEAD)
        return digest

    def _weights(
        self, kind: Kind, sender: str, number: int, parent: str | None, values: np.ndarray
    ) -> str:
        is_update = kind is Kind.UPDATE
        count = 10 + SITES.index(sender) if is_update else None
        manifest = Manifest(
            **self.about,
            kind=kind,
            plan=self.known.start.plan,
            round=number,
            edition=1,
            sender=sender,
            parent=parent,
            split="0" * 64 if is_update else None,
            n_patients=count,
            n_cases=count,
            n_slices=count,
            n_validation=count,
            scores=(),
            versions={"brainfed": version("brainfed")},
        )
        data = weights.header_bytes(manifest, self.table) + values.astype("<f4").tobytes()
        path = self.place.round_folder(number) / self.known.weights_name(manifest)
        path.write_bytes(data)
        signature.sign_file(path, self.keys[sender])
        return hashlib.sha256(data).hexdigest()


def measure(what: str, program: str, folder: Path, number: int) -> Measured:
    """Run a program over the folder; its peak is resident memory without mapped pages."""
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", program, folder, str(number)]) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.01)
    if process.returncode:
        raise SystemExit(f"{what} failed")
    return Measured(what, time.perf_counter() - start, peak / 1e6)


def anonymous_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line for line in lines if line.startswith("RssAnon:")]
    return 1024 * int(found[0].split()[1]) if found else 0


def first_rounds(root: Path, few: Path) -> None:
    """The same federation as it was after its first rounds; the big files are hard links."""
    shutil.copytree(root / "federation", few / "federation")
    for number in range(N_FEW + 1):
        name = f"rounds/r{number:04d}"
        shutil.copytree(root / name, few / name, copy_function=os.link)


def report(results: list[Measured], n_values: int, n_bytes: int) -> str:
    rows = "\n".join(f"| {r.what} | {r.seconds:.1f} s | {r.peak_mb:.0f} MB |" for r in results)
    seconds = {r.what: r.seconds for r in results}
    audit, one, two = (seconds[w] for w in (f"audit, {N_ROUNDS} rounds", "read 1", "read 2"))
    return f"""{N_ROUNDS} rounds x {N_SITES} sites x {4 * n_values / 1e6:.0f} MB \
({n_values:,} values), {n_bytes / 1e9:.2f} GB of weight files

| | time | peak memory |
|---|---|---|
{rows}

audit takes {audit / one:.2f} times as long as reading and hashing the same bytes in one thread,
{audit / two:.2f} times as long as in two ("read N": N threads). Load of the machine after it:
{", ".join(f"{load:.1f}" for load in os.getloadavg())}.

{platform.system()} {platform.machine()}, {cpu()}; Python {platform.python_version()}, \
numpy {version("numpy")}, cryptography {version("cryptography")}, brainfed {version("brainfed")}.
"""


def cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where 8 GB are free")
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory(dir=folder) as name:
        maker = Maker(Path(name) / "archive")
        n_values = n_parameters(maker.table)
        n_bytes = 4 * n_values * (N_ROUNDS * (N_SITES + 1) + 1)
        free = shutil.disk_usage(name).free
        if free < n_bytes + SPARE_BYTES:
            raise SystemExit(f"{n_bytes / 1e9:.1f} GB are needed in {name}, {free / 1e9:.1f} free")
        digest = None
        for number in range(N_ROUNDS + 1):
            digest = maker.round(number, digest)
            sys.stderr.write(f"round {number} written\n")
        root, few = maker.place.root, Path(name) / "few"
        first_rounds(root, few)
        results = [
            measure("read 1", READ, root, 1),
            measure(f"audit, {N_ROUNDS} rounds", AUDIT, root, N_ROUNDS),
            measure("read 2", READ, root, 2),
            measure(f"audit, {N_FEW} rounds", AUDIT, few, N_FEW),
        ]
    sys.stdout.write(report(results, n_values, n_bytes))


if __name__ == "__main__":
    main()
