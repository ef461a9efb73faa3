"""What `brainfed status` costs: `python tests/benchmarks/bench_status.py [--folder FOLDER]`.

Makes the coordinator's workspace and that of one site in a federation of 100 sites with 200 closed
rounds (half a GB on the disk, half a minute; taken away afterwards). Every site is in every record,
now and then one is absent or left out, all have scored all rounds but the newest, and half of the
updates of the open round have come. Every file is signed and of its real form; the network is tiny.
Then CPU seconds (user and system, of the whole process) of `brainfed status`, by the
coordinator and the site, in words and with --json; writes them to `docs/results/status.md`.
"""

import argparse
import hashlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.builders import a_plan
from tests.federation import a_key, a_principal

from brainfed.core.architecture import n_parameters, tensor_table
from brainfed.core.metrics import Measure
from brainfed.core.sshsig import public_key
from brainfed.formats import document, federation, rounds, signature, weights, workspace
from brainfed.formats.acceptance import Acceptance
from brainfed.formats.manifest import Kind
from brainfed.formats.record import Input, InputStatus, Reason, Record
from brainfed.formats.roster import Role, Roster
from brainfed.formats.scores import Figure, Scores
from brainfed.formats.start import make
from brainfed.formats.workspace import Workspace
from brainfed.plan import Region
from brainfed.steps.initialise import initialise

ROOT = Path(__file__).resolve().parents[2]
N_SITES, N_ROUNDS = 100, 200
LIMIT_SECONDS = 1.0
N_RUNS = 11
DAY = "2026-03-01"
LEAD = "uni-lead"
SITES = tuple(f"site-{number:03d}" for number in range(1, N_SITES + 1))
PROGRAM = "from brainfed.__main__ import main; main()"


class Maker:
    """Writes the two workspaces, one round at a time."""

    def __init__(self, root: Path) -> None:
        self.lead = _workspace(root / LEAD, Role.COORDINATOR, LEAD)
        self.site = _workspace(root / SITES[0], Role.SITE, SITES[0])
        self.keys = {name: a_key(seed) for seed, name in enumerate(SITES, start=1)}
        self.keys |= {LEAD: self.lead.private_key(), SITES[0]: self.site.private_key()}
        self.plan = a_plan(rounds=N_ROUNDS + 1, participation={"floor": 5})
        self.table = tensor_table(self.plan)
        random = np.random.default_rng(1)
        self.values = random.normal(0, 0.1, n_parameters(self.table)).astype("<f4").tobytes()
        self.known = self._begin()
        self.parent: str | None = None

    def _begin(self) -> federation.Federation:
        roles = {LEAD: Role.COORDINATOR}
        first = Roster(
            version=1,
            recovery=public_key(self.lead.open_key(self.lead.recovery_path)).line,
            principals=tuple(
                a_principal(name, key, roles.get(name, Role.SITE))
                for name, key in sorted(self.keys.items())
            ),
        )
        start = make(self.plan, first, purpose="simulation", nonce="0" * 32, day=DAY)
        known = federation.assemble(start, document.sha256(start.dumps()), first)
        for place in (self.lead, self.site):
            self._put(federation.roster_path(place, 1), first, LEAD)
            self._put(federation.start_path(place), start, LEAD)
            federation.write_allowed_signers(place, first)
            (place.federation_folder / federation.PLAN).write_text(start.plan_text)
        for name in SITES:
            consent = Acceptance(
                **self._about(known),
                sender=name,
                plan=start.plan,
                from_round=0,
                weights_licence=start.weights_licence,
                agreement=None,
                day=DAY,
            )
            self._put(federation.acceptance_path(self.lead, name, 1), consent, name)
            if name == self.site.name:
                self._put(federation.acceptance_path(self.site, name, 1), consent, name)
        return known

    def _about(self, known: federation.Federation) -> dict[str, Any]:
        return {"purpose": "simulation", "federation": known.digest, "roster_version": 1}

    def _put(self, path: Path, content: document.Header, name: str) -> None:
        self._sign(path, content.dumps(), name)

    def _sign(self, path: Path, data: bytes, name: str) -> str:
        """Write a file and its signature, without waiting for the disk as brainfed does."""
        path.write_bytes(data)
        digest = hashlib.sha256(data)
        text = signature.sshsig.sign(self.keys[name], digest.digest()).armored
        signature.signature_path(path).write_bytes(text)
        return digest.hexdigest()

    def round(self, number: int) -> None:
        """Write a closed round, or the open one with half of its updates."""
        is_open = number > N_ROUNDS
        for place in (self.lead, self.site):
            place.round_folder(number).mkdir()
        inputs = []
        if number:
            senders = SITES[: N_SITES // 2] if is_open else SITES
            inputs = [self._input(number, index, name) for index, name in enumerate(senders)]
        if is_open:
            return
        parent, self.parent = self.parent, self._weights(Kind.GLOBAL, LEAD, number)
        if number:
            assert parent is not None
            record = self._record(number, parent, tuple(inputs))
            self._put_for_both(number, f"{self.known.file_stem(record)}.record.json", record, LEAD)
        if number < N_ROUNDS:
            for name in SITES:
                self._scores(number, name)

    def _input(self, number: int, index: int, name: str) -> Input:
        fate = (number * 31 + index) % 40
        if fate == 0 and number <= N_ROUNDS:
            return Input(sender=name, digest=None, weight=0, status=InputStatus.ABSENT, reason=None)
        digest = self._weights(Kind.UPDATE, name, number)
        is_in = fate != 1
        return Input(
            sender=name,
            digest=digest,
            weight=10 + index if is_in else 0,
            status=InputStatus.INCLUDED if is_in else InputStatus.EXCLUDED,
            reason=None if is_in else Reason.FAILED_SCREENING,
        )

    def _weights(self, kind: Kind, sender: str, number: int) -> str:
        is_update = kind is Kind.UPDATE
        count = 30 if is_update else None
        manifest = rounds.new_manifest(
            self.known,
            number,
            kind=kind,
            sender=sender,
            parent=self.parent,
            split="0" * 64 if is_update else None,
            n_patients=count,
            n_cases=count,
            n_slices=count,
            n_validation=count,
            versions={"brainfed": version("brainfed")},
        )
        data = weights.header_bytes(manifest, self.table) + self.values
        name = self.known.weights_name(manifest)
        digest = self._sign(self.lead.round_folder(number) / name, data, sender)
        if sender in {LEAD, self.site.name}:
            self._sign(self.site.round_folder(number) / name, data, sender)
        return digest

    def _record(self, number: int, parent: str, inputs: tuple[Input, ...]) -> Record:
        assert self.parent is not None
        return Record(
            **self._about(self.known),
            sender=LEAD,
            plan=self.known.start.plan,
            round=number,
            edition=1,
            supersedes=None,
            rule=self.plan.aggregation.rule,
            weights_by=self.plan.aggregation.weights,
            parent=parent,
            inputs=inputs,
            next_site=None,
            global_digest=self.parent,
            state_digest=None,
            day=DAY,
        )

    def _scores(self, number: int, name: str) -> None:
        figure = Figure(
            subset="validation",
            group="all",
            measure=Measure.DICE,
            region=Region.WT,
            n=8,
            mean=800_000,
            sd=100_000,
            q1=None,
            median=None,
            q3=None,
        )
        assert self.parent is not None
        told = Scores(
            **self._about(self.known),
            sender=name,
            plan=self.known.start.plan,
            round=number,
            edition=1,
            weights=self.parent,
            split="0" * 64,
            n_cases=8,
            figures=(figure,),
            day=DAY,
        )
        self._put_for_both(number, f"{self.known.file_stem(told)}.scores.json", told, name)

    def _put_for_both(
        self, number: int, file_name: str, content: document.Header, sender: str
    ) -> None:
        self._put(self.lead.round_folder(number) / file_name, content, sender)
        if sender in {LEAD, self.site.name}:
            self._put(self.site.round_folder(number) / file_name, content, sender)


def _workspace(root: Path, role: Role, name: str) -> Workspace:
    initialise(root, role, name)
    return workspace.find(root)


def cpu_seconds(folder: Path, *words: str) -> float:
    """Of one run of brainfed in a folder."""
    command = [sys.executable, "-c", PROGRAM, *words]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} failed")
    return usage.ru_utime + usage.ru_stime


def report(found: dict[str, list[float]], n_files: int) -> str:
    """The page."""
    rows = "\n".join(
        f"| {what} | {statistics.median(s):.2f} | {min(s):.2f} | {max(s):.2f} |"
        for what, s in found.items()
    )
    slowest = max(statistics.median(s) for what, s in found.items() if "help" not in what)
    verdict = "within" if slowest < LIMIT_SECONDS else "ABOVE"
    return f"""# What status costs

CPU seconds (user and system) of a whole process, median of {N_RUNS - 1} runs; made by
`python tests/benchmarks/bench_status.py`. The federation has {N_SITES} sites and {N_ROUNDS} closed
rounds, and half of the updates of the open round have come; {n_files:,} files lie in the
coordinator's workspace.

| | median | fastest | slowest |
|---|---|---|---|
{rows}

The slowest median is {slowest:.2f} s, {verdict} the limit of {LIMIT_SECONDS:.0f} s. Load of the
machine after it: {", ".join(f"{load:.1f}" for load in os.getloadavg())}.

What the time goes into: about half is starting Python, its libraries and the formats; the rest is
the names of all files, and the records of all rounds, each with its signature. Other files of
closed rounds are not opened: `import` checked them, `aggregate` and `audit` check them again.

{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python \
{platform.python_version()}, numpy {version("numpy")}, pydantic {version("pydantic")}, brainfed \
{version("brainfed")}.
"""


def main() -> None:
    """Make the federation, measure, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where 2 GB are free")
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory(dir=folder) as name:
        maker = Maker(Path(name))
        for number in range(N_ROUNDS + 2):
            maker.round(number)
        places = {
            "`status` of the coordinator": (maker.lead.root, ("status",)),
            "the same with `--json`": (maker.lead.root, ("status", "--json")),
            "`status` of a site": (maker.site.root, ("status",)),
            "`brainfed --help`, to compare": (maker.lead.root, ("--help",)),
        }
        found: dict[str, list[float]] = {what: [] for what in places}
        for _ in range(N_RUNS):
            for what, (root, words) in places.items():
                found[what].append(cpu_seconds(root, *words))
        n_files = sum(1 for path in maker.lead.root.rglob("*") if path.is_file())
    # The first run of each fills the caches of the disk.
    text = report({what: seconds[1:] for what, seconds in found.items()}, n_files)
    sys.stdout.write(text)
    (ROOT / "docs" / "results" / "status.md").write_text(text)


if __name__ == "__main__":
    main()
