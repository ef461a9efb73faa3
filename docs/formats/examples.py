"""Takes the worked examples of the pages in this folder from the golden files.

`python docs/formats/examples.py` rewrites every block under a line `<!-- example: NAME -->`. The
exchanged files are those of `tests/golden/v1`, so the pages show what every later version must
still read. The local files, which are never exchanged, are made here. The keys behind all of it
belong to everybody and must never be admitted anywhere.
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

from brainfed.core import averaging, canonical, sshsig
from brainfed.core.labels import LabelProtocol
from brainfed.core.metrics import Measure
from brainfed.core.scoring import Summary
from brainfed.core.volume import Geometry
from brainfed.formats import dataset, identities, sent, training_log
from brainfed.formats.case_file import IDENTITY, Native
from brainfed.formats.dataset import (
    Case,
    Index,
    Quality,
    SkippedCase,
    Source,
    SplitFile,
    Subset,
    Verdict,
)
from brainfed.formats.found_case import LabelOrigin
from brainfed.formats.scores import Group
from brainfed.plan import Region, SplitRule

PAGES = Path(__file__).parent
GOLDEN = PAGES.parents[1] / "tests" / "golden" / "v1"
DAY = "2026-11-23"
BLOCK = re.compile(r"(<!-- example: ([a-z0-9-]+) -->\n```[a-z]*\n)(.*?)(^```$)", re.DOTALL | re.M)


@dataclass(frozen=True)
class Step:
    """A step of training, as the log keeps it."""

    number: int
    loss: float
    dice: float
    rate: float


def golden(pattern: str) -> bytes:
    """The one golden file of that name, `PREFIX` standing for the federation."""
    (path,) = GOLDEN.glob(pattern.replace("PREFIX", "walk-????????"))
    return path.read_bytes()


def sha256(data: bytes) -> str:
    """Hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def manifest(data: bytes) -> bytes:
    """The manifest of a weight file."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    text: str = header["__metadata__"]["brainfed"]
    return text.encode()


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
    key = json.loads(golden("federation/hospital-a.roster.v0001.enrolment.json"))["key"]
    made[0]["fingerprint"] = sshsig.parse_public_key(key).fingerprint
    made[1]["digest"] = sha256(golden("federation/start.json"))
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
    data_digest = json.loads(golden("federation/start.json"))["data"]
    made_case = a_case(case, patient, data_digest)
    entry = dataset.entry_of(made_case, sha256(b"the case file"))
    skipped = SkippedCase(id=ids.case_id("other"), reason="the modality flair is missing")
    dataset.write_index(folder, Index(data_digest=data_digest, cases=(entry,), skipped=(skipped,)))
    split = SplitFile(rule=SplitRule.FRACTIONS, seed=2018, assignments={patient: Subset.TRAIN})
    dataset.write_split(folder, split)
    identities.write(folder, ids)
    write_sent(folder, ids)
    write_log(folder / training_log.NAME)
    dataset.write_case(folder / "case.h5", made_case)
    made = {"training-log": folder / training_log.NAME, "cases": dataset.index_path(folder)}
    made |= {"split": dataset.split_path(folder), "identities": identities.path_of(folder)}
    texts = {name: path.read_text("ascii") for name, path in made.items()}
    texts["sent"] = shown(sent.path_of(folder).read_bytes())
    return texts | {"case": case_listing(folder / "case.h5")}


def write_sent(folder: Path, ids: identities.Identities) -> None:
    """Ten patients that were told, and an eleventh that makes them wait."""
    patients = [ids.patient_id(f"Brats18_TCIA02_{number}_1") for number in range(606, 617)]
    memory = sent.Sent(first_round=0, groups=())
    for number, who in ((2, patients[:10]), (3, patients)):
        _, memory = sent.choose(
            memory, "validation", {Group.ALL: frozenset(who)}, round_number=number, floor=5
        )
    sent.write(folder, memory)


def write_log(path: Path) -> None:
    """A short training log."""

    def summary(mean: float, sd: float) -> Summary:
        return Summary(Region.WT, Measure.DICE, n=3, mean=mean, sd=sd, median=mean, worst=())

    training_log.write(
        path,
        incoming=[summary(0.0125, 0.004082)],
        steps=[Step(1, 1.31, 0.0412, 0.001), Step(2, 1.17, 0.0655, 0.001)],
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
        label_origin=LabelOrigin.BY_HAND,
        spacing_mm=(3.0, 1.0, 1.0),
        spacing_nominal=False,
        present=(True,),
        data_digest=data_digest,
        natives=(Native(grid, IDENTITY),),
        geometry=grid,
        quality=Quality(
            verdict=Verdict.OK,
            findings=("flair: only 2 slices",),
            tumour_lost_fraction=0.0,
            tumour_outside_brain_fraction=0.0,
            brain_lost_fraction=0.0,
        ),
        source=Source(
            digest=sha256(b"the scan files"),
            scan_digests=(sha256(b"the voxels"),),
            recipe=sha256(b"the recipe"),
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


def digests() -> str:
    """All signed golden files and their digests."""
    paths = [path.with_suffix("") for path in GOLDEN.rglob("*.sig")]
    names = sorted(path.relative_to(GOLDEN).as_posix() for path in paths)
    return "".join(f"{sha256((GOLDEN / name).read_bytes())}  {name}\n" for name in names)


def examples() -> dict[str, str]:
    """Every example by name."""
    enrolment = "federation/hospital-a.roster.v0001.enrolment.json"
    update = golden("rounds/r0001/PREFIX.r0001.hospital-a.update.safetensors")
    small = golden("rounds/r0001/PREFIX.r0001.hospital-b.update.safetensors")
    average = golden("rounds/r0001/PREFIX.r0001.uni-lead.global.safetensors")
    last = "rounds/r0003/PREFIX.r0003"
    start = golden("federation/start.json")
    with tempfile.TemporaryDirectory() as folder:
        local = local_files(Path(folder))
    return local | {
        "enrolment": golden(enrolment).decode() + "\n",
        "enrolment-signature": golden(f"{enrolment}.sig").decode(),
        "roster": shown(golden("federation/roster.v0004.json")),
        "allowed-signers": golden("federation/roster").decode(),
        "revoked": golden("federation/revoked").decode(),
        "start": shown(start),
        "plan": json.loads(start)["plan_text"],
        "amendment": shown(golden("federation/plan.v0002.amendment.json")),
        "acceptance": shown(golden("federation/hospital-a.plan.v0002.acceptance.json")),
        "record": shown(golden("rounds/r0002/PREFIX.r0002.uni-lead.record.json")),
        "manifest-update": shown(manifest(update)),
        "manifest-below-floor": shown(manifest(small)),
        "manifest-global": shown(manifest(average)),
        "header": header_shown(update),
        "layout": layout(update),
        "scores": shown(golden(f"{last}.hospital-a.scores.json")),
        "approval": shown(golden(f"{last}.hospital-a.release.approval.json")),
        "erasure": shown(golden("federation/hospital-a.erasure.json")),
        "final": shown(golden(f"{last}.uni-lead.final.json")),
        "averaging-cases": averaging_cases(),
        "ledger": ledger_lines(),
        "digests": digests(),
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
