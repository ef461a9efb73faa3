"""Makes the worked examples of the pages in this folder, and writes them into the pages.

`python docs/formats/examples.py` rewrites every block under a line `<!-- example: NAME -->`. The
examples are one small federation, the same in all pages and in every run, so that digests and
signatures are true. Its private keys are made from text that stands here: they belong to everybody
and must never be admitted anywhere.
"""

import hashlib
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from brainfed import plan as plans
from brainfed.core import averaging, canonical, sshsig
from brainfed.core.architecture import TensorTable, tensor_table
from brainfed.core.labels import LabelProtocol
from brainfed.core.metrics import Measure
from brainfed.core.scoring import Summary
from brainfed.core.volume import Geometry
from brainfed.formats import dataset, identities, training_log, weights
from brainfed.formats import start as starts
from brainfed.formats.dataset import Case, Index, SkippedCase, Source, SplitFile, Subset
from brainfed.formats.document import PlanVersion
from brainfed.formats.enrolment import Enrolment
from brainfed.formats.manifest import Manifest
from brainfed.formats.record import Input, InputStatus, Record
from brainfed.formats.roster import Principal, PrincipalRole, Roster
from brainfed.plan import Plan, Region

PAGES = Path(__file__).parent
DAY = "2026-11-23"
BLOCK = re.compile(r"(<!-- example: ([a-z0-9-]+) -->\n```[a-z]*\n)(.*?)(^```$)", re.DOTALL | re.M)


@dataclass(frozen=True)
class Step:
    """A step of training, as the log keeps it."""

    number: int
    loss: float
    rate: float


def a_key(name: str) -> Ed25519PrivateKey:
    """The key of a party of the example; anybody can make it."""
    seed = hashlib.sha256(f"brainfed example, never admit: {name}".encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(seed)


def key_line(name: str) -> str:
    """Its public half, as rosters hold it."""
    return sshsig.public_key(a_key(name)).line


def sign(name: str, data: bytes) -> str:
    """The text of a signature file."""
    return sshsig.sign(a_key(name), hashlib.sha256(data).digest()).armored.decode("ascii")


def sha256(data: bytes) -> str:
    """Hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def a_plan() -> Plan:
    """Two levels of two and four channels: the smallest network that has all kinds of tensors."""
    return Plan.model_validate(
        {
            "name": "walk",
            "rounds": 2,
            "scans": {"required": ("flair",)},
            "grid": {"size": (32, 32)},
            "network": {"channels": (2, 4)},
        }
    )


def a_weight_file(manifest: Manifest, values: np.ndarray, table: TensorTable) -> bytes:
    """A weight file from its manifest and all values one after the other."""
    return weights.header_bytes(manifest, table) + values.astype("<f4").tobytes()


def federation() -> dict[str, Any]:
    """All exchanged files of round 0 and 1, and the documents in them."""
    plan = a_plan()
    table = tensor_table(plan)
    names = ("hospital-a", "hospital-b")
    enrolments = {n: Enrolment(name=n, key=key_line(n), n_patients=None) for n in names}
    principals = [Principal(name=n, role=PrincipalRole.SITE, key=key_line(n)) for n in names]
    lead = Principal(name="uni-lead", role=PrincipalRole.COORDINATOR, key=key_line("uni-lead"))
    roster = Roster(version=1, federation=None, principals=(*principals, lead))
    nonce = sha256(b"a nonce is random; this one is made from this text")[:32]
    start = starts.make(plan, roster, purpose="drill", nonce=nonce, day=DAY)
    about = {
        "purpose": "drill",
        "federation": sha256(start.dumps()),
        "plan": PlanVersion(version=1, digest=plans.plan_digest(plan)),
        "edition": 1,
        "roster_version": 1,
    }
    unused = dict.fromkeys(
        ("parent", "split", "n_patients", "n_cases", "n_slices", "n_validation")
    ) | {"scores": ()}
    libraries = {"brainfed": "0.1.0", "numpy": "2.4.6"}
    trained = libraries | {"torch": "2.13.0"}
    n_values = sum(int(np.prod(shape)) for shape in table.values())
    first = ((np.arange(n_values) % 17 - 8) / 16).astype(np.float32)
    global0 = Manifest.model_validate(
        about | unused | {"kind": "global", "round": 0, "sender": "uni-lead", "versions": libraries}
    )
    files = {"global0": a_weight_file(global0, first, table)}
    manifests = {"global0": global0}
    parent = sha256(files["global0"])
    sizes: dict[str, tuple[int, int, int, int | str]] = {
        "hospital-a": (12, 14, 1680, 6),
        "hospital-b": (7, 7, 840, "fewer than 5"),
    }
    updates = {}
    for number, (name, (patients, cases, slices, held_out)) in enumerate(sizes.items(), start=1):
        manifest = Manifest.model_validate(
            about
            | {
                "kind": "update",
                "round": 1,
                "sender": name,
                "parent": parent,
                "split": sha256(f"in truth keyed by {name}".encode()),
                "n_patients": patients,
                "n_cases": cases,
                "n_slices": slices,
                "n_validation": held_out,
                "scores": tuple(scores(held_out)),
                "versions": trained,
            }
        )
        updates[name] = (first + np.float32(0.1) * np.float32(number)).astype(np.float32)
        files[name] = a_weight_file(manifest, updates[name], table)
        manifests[name] = manifest
    shares = [sizes[name][0] for name in names]
    mean = averaging.weighted_mean([updates[name] for name in names], shares)
    global1 = Manifest.model_validate(
        about
        | unused
        | {
            "kind": "global",
            "round": 1,
            "sender": "uni-lead",
            "parent": parent,
            "versions": libraries,
        }
    )
    files["global1"], manifests["global1"] = a_weight_file(global1, mean, table), global1
    inputs = tuple(
        Input(
            sender=name,
            digest=sha256(files[name]),
            weight=weight,
            status=InputStatus.INCLUDED,
            reason=None,
        )
        for name, weight in zip(names, shares, strict=True)
    )
    record = Record.model_validate(
        about
        | {
            "round": 1,
            "supersedes": None,
            "sender": "uni-lead",
            "rule": plan.aggregation.rule,
            "weights_by": plan.aggregation.weights,
            "parent": parent,
            "inputs": inputs,
            "next_site": None,
            "global_digest": sha256(files["global1"]),
            "state_digest": None,
            "day": DAY,
        }
    )
    return {
        "table": table,
        "enrolment": enrolments["hospital-a"],
        "roster": roster,
        "start": start,
        "record": record,
        "manifests": manifests,
        "files": files,
        "values": [updates[name] for name in names],
    }


def scores(n: int | str) -> list[dict[str, Any]]:
    """Scores before and after, silent where the number of patients is below the floor."""
    enough = isinstance(n, int)
    return [
        {
            "weights": which,
            "subset": "validation",
            "measure": "dice",
            "region": "WT",
            "n": n,
            "mean": mean if enough else None,
            "sd": sd if enough else None,
        }
        for which, mean, sd in (("incoming", 12_500, 4_082), ("result", 713_200, 91_017))
    ]


def shown(data: bytes) -> str:
    """Canonical JSON with line breaks for people."""
    return json.dumps(json.loads(data), indent=1) + "\n"


def header_shown(data: bytes) -> str:
    """The JSON of a header, one entry a line; without the line ends it is the file's."""
    text = data[8 : 8 + int.from_bytes(data[:8], "little")].decode().rstrip(" ")
    return re.sub(r',(?="[a-z.]+[0-9a-z.]*":\{"data_offsets")', ",\n", text) + "\n"


def layout(data: bytes) -> str:
    """Where the parts of a weight file lie."""
    length = int.from_bytes(data[:8], "little")
    padding = length - len(data[8 : 8 + length].rstrip(b" "))
    n_values = (len(data) - 8 - length) // 4
    return (
        f"bytes 0 to 7       {data[:8].hex(' ')}   the number {length}\n"
        f"bytes 8 to {7 + length}    the header, {padding} spaces at its end\n"
        f"bytes {8 + length} to {len(data) - 1} the values, {n_values} float32\n"
        f"SHA-256            {sha256(data)}\n"
    )


def averaging_cases() -> str:
    """Values and weights of up to three sites, and the bits of the mean."""
    rows = [
        ((1, 1), (0.1, 0.2)),
        ((12, 7), (0.1, 0.2)),
        ((3, 5, 2), (1.0, -1.0, 1e-8)),
        ((1, 1), (-0.0, -0.0)),
        ((1, 1), (1.0, 1.0000001192092896)),
        ((536_870_910, 1), (3.4028234663852886e38, -3.4028234663852886e38)),
        ((7, 9), (1.401298464324817e-45, 0.0)),
    ]
    lines = []
    for shares, numbers in rows:
        values = [np.array([number], np.float32) for number in numbers]
        mean = averaging.weighted_mean(values, shares)
        words = [" ".join(f"{v.view(np.uint32)[0]:08x}" for v in values)]
        words.insert(0, " ".join(map(str, shares)))
        lines.append(f"{words[0]} | {words[1]} | {mean.view(np.uint32)[0]:08x}\n")
    return "".join(lines)


def ledger_lines() -> str:
    """Three lines in a row."""
    made: list[dict[str, Any]] = [
        {"event": "made", "what": "workspace", "name": "hospital-a"},
        {"event": "accepted", "file": "walk.start.json", "what": "the start: this site has joined"},
        {"event": "refused", "file": "u.safetensors", "reason": "StrangerError"},
    ]
    made[0]["fingerprint"] = sshsig.public_key(a_key("hospital-a")).fingerprint
    made[1]["digest"] = sha256(federation()["start"].dumps())
    made[2]["message"] = "The signature is by a key that is not in the roster"
    previous, lines = "0" * 64, []
    for minute, fields in enumerate(made):
        line = canonical.dumps({"at": f"{DAY}T09:0{minute}:00Z", "previous": previous, **fields})
        previous = sha256(line)
        lines.append(line.decode() + "\n")
    return "".join(lines)


def local_files(folder: Path) -> dict[str, str]:
    """The files of a site's data folder, written by the code itself."""
    ids = identities.Identities(
        key=hashlib.sha256(b"a key is random; this one is made from this text").digest()
    )
    case, patient = ids.case_id("Brats18_TCIA02_606_1"), ids.patient_id("Brats18_TCIA02_606")
    ids.cases[case], ids.patients[patient] = "Brats18_TCIA02_606_1", "Brats18_TCIA02_606"
    data_digest = plans.data_digest(a_plan())
    made_case = a_case(case, patient, data_digest)
    entry = dataset.entry_of(made_case, sha256(b"the case file"))
    skipped = SkippedCase(id=ids.case_id("other"), reason="the modality flair is missing")
    dataset.write_index(folder, Index(data_digest=data_digest, cases=(entry,), skipped=(skipped,)))
    split = SplitFile(rule=a_plan().split.rule, seed=2018, assignments={patient: Subset.TRAIN})
    dataset.write_split(folder, split)
    identities.write(folder, ids)
    write_log(folder / training_log.NAME)
    dataset.write_case(folder / "case.h5", made_case)
    made = {"training-log": folder / training_log.NAME, "cases": dataset.index_path(folder)}
    made |= {"split": dataset.split_path(folder), "identities": identities.path_of(folder)}
    texts = {name: path.read_text("ascii") for name, path in made.items()}
    return texts | {"case": case_listing(folder / "case.h5")}


def write_log(path: Path) -> None:
    """A short training log."""

    def summary(mean: float, sd: float) -> Summary:
        return Summary(Region.WT, Measure.DICE, n=3, mean=mean, sd=sd, median=mean, worst=())

    training_log.write(
        path,
        incoming=[summary(0.0125, 0.004082)],
        steps=[Step(1, 1.31, 0.001), Step(2, 1.17, 0.001)],
        result=[summary(0.7132, 0.091017)],
        seconds=41.5,
        device="cpu",
    )


def a_case(case: str, patient: str, data_digest: str) -> Case:
    """A tiny case: nothing but a little oedema."""
    label = np.zeros((2, 8, 8), np.uint8)
    label[0, 3:5, 3:5] = 2
    grid = Geometry(
        size=(8, 8, 2),
        spacing_mm=(1.0, 1.0, 3.0),
        origin_mm=(0.0, 0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    return Case(
        id=case,
        patient=patient,
        image=np.zeros((1, 2, 8, 8), np.float16),
        label=label,
        brain_mask=np.zeros((2, 8, 8), np.bool_),
        protocol=LabelProtocol.BRATS2017,
        spacing_mm=(3.0, 1.0, 1.0),
        spacing_nominal=False,
        present=(True,),
        data_digest=data_digest,
        native=grid,
        geometry=grid,
        source=Source(
            digest=sha256(b"the scan files"),
            scan_digests=(sha256(b"the voxels"),),
            tumour_lost_fraction=0.0,
        ),
    )


def case_listing(path: Path) -> str:
    """What stands in a case file."""
    lines = []
    with h5py.File(path, "r") as file:
        for name, values in sorted(file.items()):
            lines.append(
                f"dataset {name}: {values.dtype} {values.shape}, chunk {values.chunks}, "
                f"{values.compression}\n"
            )
        for name, value in sorted(file.attrs.items()):
            text = value.tolist() if isinstance(value, np.ndarray) else str(value)
            lines.append(f"{name} = {text}\n")
    return "".join(lines)


def digests(made: dict[str, Any]) -> str:
    """All exchanged files of the example and their digests."""
    prefix = f"walk-{sha256(made['start'].dumps())[:8]}"
    named = {
        "hospital-a.enrolment.json": made["enrolment"].dumps(),
        f"{prefix}.roster.v0001.json": made["roster"].dumps(),
        f"{prefix}.start.json": made["start"].dumps(),
        f"{prefix}.r0000.uni-lead.global.safetensors": made["files"]["global0"],
        f"{prefix}.r0001.hospital-a.update.safetensors": made["files"]["hospital-a"],
        f"{prefix}.r0001.hospital-b.update.safetensors": made["files"]["hospital-b"],
        f"{prefix}.r0001.uni-lead.global.safetensors": made["files"]["global1"],
        f"{prefix}.r0001.uni-lead.record.json": made["record"].dumps(),
    }
    return "".join(f"{sha256(data)}  {name}\n" for name, data in named.items())


def examples() -> dict[str, str]:
    """Every example by name."""
    made = federation()
    manifests = made["manifests"]
    enrolment: bytes = made["enrolment"].dumps()
    update: bytes = made["files"]["hospital-a"]
    with tempfile.TemporaryDirectory() as folder:
        local = local_files(Path(folder))
    return local | {
        "enrolment": enrolment.decode() + "\n",
        "enrolment-signature": sign("hospital-a", enrolment),
        "roster": shown(made["roster"].dumps()),
        "allowed-signers": made["roster"].allowed_signers().decode(),
        "start": shown(made["start"].dumps()),
        "plan": made["start"].plan_text,
        "record": shown(made["record"].dumps()),
        "manifest-update": shown(manifests["hospital-a"].dumps()),
        "manifest-below-floor": shown(manifests["hospital-b"].dumps()),
        "manifest-global": shown(manifests["global1"].dumps()),
        "header": header_shown(update),
        "layout": layout(update),
        "averaging-cases": averaging_cases(),
        "ledger": ledger_lines(),
        "digests": digests(made),
    }


def main() -> None:
    """Write the examples into the pages."""
    made = examples()
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text("utf-8")
        new = BLOCK.sub(lambda found: found[1] + made[found[2]] + found[4], text)
        if new != text:
            page.write_text(new, "utf-8")
            print(f"wrote {page.name}")


if __name__ == "__main__":
    main()
