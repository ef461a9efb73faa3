"""Makes the golden files of version 1: a small complete federation, laid out as an archive.

`python tests/golden/make.py FOLDER` writes it. It imports nothing of brainfed: it is the pages of
`docs/formats/` written down a second time, so a change of the code can't change what it makes. The
files in `v1/` are frozen. A later version of the formats gets a script and a folder of its own.

The story: three sites, one of them with its key in a hardware token; an evaluator, an approver and
an auditor. hospital-c sends nothing in round 1. From round 2 on there is a new plan. In round 2
hospital-a rotates its key and hospital-b's key is revoked, each after its update had come. In round
3 the coordinator has lost its key and signs a new one in with the recovery key.

All private keys are made from text that stands here: they belong to everybody. Never admit them.
"""

import base64
import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

DAY = "2026-11-23"
LEAD, A, B, C = "uni-lead", "hospital-a", "hospital-b", "hospital-c"
EVALUATOR, APPROVER, AUDITOR = "clinic-e", "hospital-a.release", "ethics-board"
ROLES = {
    EVALUATOR: "evaluator",
    AUDITOR: "auditor",
    A: "site",
    APPROVER: "approver",
    B: "site",
    C: "site",
    LEAD: "coordinator",
}
RECIPIENTS = {
    A: "age1mwf37jfj0857lj2sn9mplqvj73v9d8wygx5pnette52nta6h49wszhf3hs",
    LEAD: "age1fwfnhatj2adw5l04nhhlm8hcsf2cd4r85frf2dcf9cgfkcgm45fq7xnj9n",
}
"""Their identities were thrown away; nothing is encrypted for them."""
DECLARED = {A: 12, B: 7}

PLAN = """\
format = 1
name = "walk"
seed = 2018
rounds = 3

[cohort]
treatment = "pre-operative"
minimum_age_years = 18
first_visit_only = false

[scans]
required = ["flair"]
optional = []
regions = ["WT"]

[grid]
in_plane_mm = 0.0
size = [32, 32]

[intensity]
zscore = "brain"

[split]
rule = "fractions"
validation = 0.2
test = 0.2

[network]
architecture = "unet-2d"
channels = [2, 4]
norm = "none"
activation = "relu"
dropout = 0.0
dropout_levels = []

[training]
loss = "dice-ce"
optimiser = "adamw"
rate = 0.001
schedule = "cosine"
weight_decay = 0.01
batch = 16
epochs_per_round = 1
steps_per_round = 0
foreground_fraction = 0.0

[training.augmentation]
flip = 0.0
rotate_degrees = 0.0
scale_fraction = 0.0
intensity_shift = 0.0
intensity_scale_fraction = 0.0

[aggregation]
rule = "fedavg"
weights = "patients"

[participation]
quorum_sites = 2
floor = 5

[exchange]
encryption = "where-possible"

[terms]
weights_licence = "not-agreed"
agreement_sha256 = ""
minimum_version = "0.1.0"
"""
PLAN_2 = PLAN.replace("rate = 0.001", "rate = 0.0005").replace("not-agreed", "CC-BY-4.0")
TENSORS: dict[str, tuple[int, ...]] = {
    "decoder.level1.conv1.bias": (2,),
    "decoder.level1.conv1.weight": (2, 6, 3, 3),
    "decoder.level1.conv2.bias": (2,),
    "decoder.level1.conv2.weight": (2, 2, 3, 3),
    "encoder.level1.conv1.bias": (2,),
    "encoder.level1.conv1.weight": (2, 1, 3, 3),
    "encoder.level1.conv2.bias": (2,),
    "encoder.level1.conv2.weight": (2, 2, 3, 3),
    "encoder.level2.conv1.bias": (4,),
    "encoder.level2.conv1.weight": (4, 2, 3, 3),
    "encoder.level2.conv2.bias": (4,),
    "encoder.level2.conv2.weight": (4, 4, 3, 3),
    "head.bias": (1,),
    "head.weight": (1, 2, 1, 1),
}
N_VALUES = sum(math.prod(shape) for shape in TENSORS.values())
LIBRARIES = {"brainfed": "0.1.0", "numpy": "2.4.6"}
COUNTS = {A: (12, 14, 1680, 6), B: (7, 7, 840, "fewer than 5"), C: (21, 21, 2520, 9)}
"""Of each site: patients, cases, slices, validation patients."""

Files = dict[str, bytes]


def sha256(data: bytes) -> str:
    """Hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def canonical(value: Any) -> bytes:
    """docs/formats/canonical-json.md."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


# --- keys and signatures: docs/formats/signature.md ---------------------------------------------


def string(data: bytes) -> bytes:
    """An SSH string: its length, then itself."""
    return len(data).to_bytes(4, "big") + data


def private(name: str) -> Ed25519PrivateKey:
    """The key of a party; anybody can make it."""
    seed = hashlib.sha256(f"brainfed golden, never admit: {name}".encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(seed)


def is_token(name: str) -> bool:
    """Whether the key is in a hardware token, here one made of software."""
    return name == C


def key_type(name: str) -> bytes:
    """As OpenSSH names it."""
    return b"sk-ssh-ed25519@openssh.com" if is_token(name) else b"ssh-ed25519"


def blob(name: str) -> bytes:
    """The public key in SSH's wire format."""
    raw = private(name).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return string(key_type(name)) + string(raw) + (string(b"ssh:") if is_token(name) else b"")


def key_line(name: str) -> str:
    """The public key as a roster has it."""
    return f"{key_type(name).decode()} {base64.b64encode(blob(name)).decode()}"


def signature(
    data: bytes, name: str, *, namespace: bytes = b"brainfed", algorithm: str = "sha256"
) -> bytes:
    """The text of a signature file."""
    head = string(namespace) + string(b"") + string(algorithm.encode())
    signed = b"SSHSIG" + head + string(hashlib.new(algorithm, data).digest())
    added = b""
    if is_token(name):  # PROTOCOL.u2f: touched, and the seventh signature of this token
        added = b"\x01" + (7).to_bytes(4, "big")
        signed = hashlib.sha256(b"ssh:").digest() + added + hashlib.sha256(signed).digest()
    inner = string(key_type(name)) + string(private(name).sign(signed)) + added
    body = b"SSHSIG" + (1).to_bytes(4, "big") + string(blob(name)) + head + string(inner)
    text = base64.b64encode(body).decode()
    lines = [text[start : start + 70] for start in range(0, len(text), 70)]
    return "\n".join(
        ["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----\n"]
    ).encode()


def put(files: Files, name: str, data: bytes, signer: str, **how: Any) -> str:
    """Add a file and its signature; gives its digest."""
    files[name] = data
    files[f"{name}.sig"] = signature(data, signer, **how)
    return sha256(data)


# --- who takes part: docs/formats/enrolment.md, roster.md, start.md -----------------------------


def enrol(files: Files, name: str, version: int, key: str) -> None:
    """The enrolment that led to a version of the roster, as the coordinator keeps it."""
    content = {
        "format": 1,
        "kind": "enrolment",
        "name": name,
        "role": ROLES[name],
        "key": key_line(key),
        "recipient": RECIPIENTS.get(name),
        "n_patients": DECLARED.get(name),
    }
    path = f"federation/{name}.roster.v{version:04d}.enrolment.json"
    put(files, path, canonical(content), key)


def principal(name: str, key: str, revoked_since: int | None = None) -> dict[str, Any]:
    """An entry of the roster."""
    return {
        "name": name,
        "role": ROLES[name],
        "key": key_line(key),
        "recipient": RECIPIENTS.get(name),
        "status": "active" if revoked_since is None else "revoked",
        "revoked_since": revoked_since,
        "n_patients": DECLARED.get(name),
    }


def roster(version: int, previous: str | None, federation: str | None) -> dict[str, Any]:
    """The roster of a version: 2 has hospital-a's new key, 3 hospital-b's end, 4 a new lead."""
    principals = []
    for name in sorted(ROLES):
        revoked_since = {A: 3, B: 2, LEAD: 3}.get(name)
        if version < {A: 2, B: 3, LEAD: 4}.get(name, 1):
            revoked_since = None
        principals.append(principal(name, name, revoked_since))
        if revoked_since is not None and name in {A, LEAD}:
            principals.append(principal(name, f"{name} again"))
    return {
        "format": 1,
        "kind": "roster",
        "version": version,
        "federation": federation,
        "previous": previous,
        "recovery": key_line("recovery"),
        "principals": principals,
    }


def put_rosters(files: Files) -> tuple[bytes, str]:
    """The enrolments, start.json and four rosters; gives start.json and its digest."""
    for name in ROLES:
        if name != LEAD:
            enrol(files, name, 1, name)
    enrol(files, A, 2, f"{A} again")
    first = roster(1, None, None)
    digest = put(files, "federation/roster.v0001.json", canonical(first), LEAD)
    start = canonical(start_of(first))
    federation = put(files, "federation/start.json", start, LEAD)
    for version, signer in ((2, LEAD), (3, LEAD), (4, "recovery")):
        data = canonical(roster(version, digest, federation))
        digest = put(files, f"federation/roster.v{version:04d}.json", data, signer)
    newest = roster(4, None, None)["principals"]
    lines = [
        f'{p["name"]} namespaces="brainfed{"-release" * (p["role"] == "approver")}" {p["key"]}\n'
        for p in newest
    ]
    files["federation/roster"] = "".join(lines).encode()
    files["federation/revoked"] = "".join(
        f"{p['key']}\n" for p in newest if p["status"] == "revoked"
    ).encode()
    return start, federation


def tables(plan_text: str, *names: str) -> str:
    """The named tables of a plan's text, in its order."""
    parts = plan_text.rstrip("\n").split("\n\n")
    kept = [part for part in parts if part.split("]")[0].lstrip("[").split(".")[0] in names]
    return "\n\n".join(kept) + "\n"


def start_of(first: dict[str, Any]) -> dict[str, Any]:
    """The content of start.json."""
    shapes = [[name, *shape] for name, shape in TENSORS.items()]
    network = {"network": tables(PLAN, "network"), "tensors": shapes}
    return {
        "format": 1,
        "kind": "start",
        "purpose": "drill",
        "nonce": sha256(b"a nonce is random; this one is made from this text")[:32],
        "coordinator": LEAD,
        "plan_text": PLAN,
        "plan": {"version": 1, "digest": sha256(PLAN.encode())},
        "data": sha256(tables(PLAN, "cohort", "scans", "grid", "intensity", "split").encode()),
        "network": sha256(canonical(network)),
        "weights_licence": "not-agreed",
        "agreement": None,
        "minimum_version": "0.1.0",
        "roster": first,
        "day": DAY,
    }


# --- the plan: docs/formats/amendment.md, acceptance.md -----------------------------------------


def plan_of(round_number: int) -> dict[str, Any]:
    """Version and digest of the plan in force."""
    version = 1 if round_number < 2 else 2
    return {"version": version, "digest": sha256((PLAN, PLAN_2)[version - 1].encode())}


def put_plans(files: Files, about: dict[str, Any]) -> None:
    """The amendment from round 2 on, and who accepted which version."""
    amendment = about | {
        "kind": "amendment",
        "sender": LEAD,
        "roster_version": 1,
        "plan_text": PLAN_2,
        "plan": plan_of(2),
        "previous": sha256(PLAN.encode()),
        "from_round": 2,
        "day": DAY,
    }
    put(files, "federation/plan.v0002.amendment.json", canonical(amendment), LEAD)
    files["federation/plan.toml"] = PLAN_2.encode()
    for from_round, licence in ((0, "not-agreed"), (2, "CC-BY-4.0")):
        for name in (A, B, C, EVALUATOR):
            acceptance = about | {
                "kind": "acceptance",
                "sender": name,
                "roster_version": 1,
                "plan": plan_of(from_round),
                "from_round": from_round,
                "weights_licence": licence,
                "agreement": None,
                "day": DAY,
            }
            version = acceptance["plan"]["version"]
            path = f"federation/{name}.plan.v{version:04d}.acceptance.json"
            put(files, path, canonical(acceptance), name)


# --- the rounds: docs/formats/manifest.md, weights.md, averaging.md, record.md ------------------


def weight_file(manifest: dict[str, Any], values: np.ndarray) -> bytes:
    """A weight file from its manifest and all values one after the other."""
    content: dict[str, Any] = {"__metadata__": {"brainfed": canonical(manifest).decode()}}
    offset = 0
    for name, shape in TENSORS.items():
        end = offset + 4 * math.prod(shape)
        content[name] = {"data_offsets": [offset, end], "dtype": "F32", "shape": list(shape)}
        offset = end
    header = canonical(content)
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + values.astype("<f4").tobytes()


def scores(n: int | str) -> list[dict[str, Any]]:
    """Scores before and after, silent where the number of patients is below the floor."""
    is_enough = isinstance(n, int)
    return [
        {
            "weights": which,
            "subset": "validation",
            "measure": "dice",
            "region": "WT",
            "n": n,
            "mean": mean if is_enough else None,
            "sd": sd if is_enough else None,
        }
        for which, mean, sd in (("incoming", 12_500, 4_082), ("result", 713_200, 91_017))
    ]


def mean(updates: dict[str, np.ndarray]) -> np.ndarray:
    """docs/formats/averaging.md."""
    shares = {name: COUNTS[name][0] for name in sorted(updates)}
    total = None
    for name, share in shares.items():
        product = updates[name].astype("f8") * share
        total = product if total is None else total + product
    return (total / np.float64(sum(shares.values()))).astype("<f4")


def put_rounds(files: Files, about: dict[str, Any], prefix: str) -> dict[str, str]:
    """Rounds 0 to 3; gives the digests of the last global weights and its record."""
    unused = dict.fromkeys(("split", "n_patients", "n_cases", "n_slices", "n_validation"))
    digest, values, result = None, np.zeros(N_VALUES, "<f4"), {}
    for number in range(4):
        stem = f"rounds/r{number:04d}/{prefix}.r{number:04d}"
        of_round = about | {"round": number, "edition": 1, "plan": plan_of(number)}
        of_round["parent"] = digest
        roster_version = (1, 1, 3, 4)[number]
        updates: dict[str, np.ndarray] = {}
        digests: dict[str, str] = {}
        for name in {1: (A, B), 2: (A, B, C), 3: (A, C)}.get(number, ()):
            updates[name] = trained(values, name, number)
            knows = {(C, 2): 2}.get((name, number), (1, 1, 1, 4)[number])
            manifest = update_manifest(of_round, name, roster_version=knows)
            data = weight_file(manifest, updates[name])
            path = f"{stem}.{name}.update.safetensors"
            key = f"{A} again" if (name, number) == (A, 3) else name
            # What ssh-keygen writes when it isn't told otherwise.
            algorithm = "sha512" if (name, number) == (B, 1) else "sha256"
            digests[name] = put(files, path, data, key, algorithm=algorithm)
        counted = {name: updates[name] for name in updates if (name, number) != (B, 2)}
        values = mean(counted) if counted else first_values()
        from_lead = {"sender": LEAD, "roster_version": roster_version}
        manifest = of_round | unused | from_lead | {"kind": "global", "scores": []}
        data = weight_file(manifest | {"versions": LIBRARIES}, values)
        key = LEAD if number < 3 else f"{LEAD} again"
        digest = put(files, f"{stem}.{LEAD}.global.safetensors", data, key)
        if number:
            record = of_round | from_lead | record_of(number, digests, counted)
            record["global_digest"] = digest
            path = f"{stem}.{LEAD}.record.json"
            result = {"record": put(files, path, canonical(record), key), **digests}
    return {"global": str(digest), **result}


def first_values() -> np.ndarray:
    """The weights of round 0."""
    return ((np.arange(N_VALUES) % 17 - 8) / 16).astype("<f4")


def trained(values: np.ndarray, name: str, number: int) -> np.ndarray:
    """What a site makes of global weights: no training, but numbers that need rounding."""
    step = np.float32(0.1) * np.float32(number * (1 + sorted(COUNTS).index(name)))
    return values + step


def update_manifest(of_round: dict[str, Any], name: str, *, roster_version: int) -> dict[str, Any]:
    """The manifest of a site's update."""
    patients, cases, slices, held_out = COUNTS[name]
    return of_round | {
        "kind": "update",
        "sender": name,
        "roster_version": roster_version,
        "split": sha256(f"in truth keyed by {name}".encode()),
        "n_patients": patients,
        "n_cases": cases,
        "n_slices": slices,
        "n_validation": held_out,
        "scores": scores(held_out),
        "versions": LIBRARIES | {"torch": "2.13.0"},
    }


def record_of(number: int, digests: dict[str, str], counted: dict[str, Any]) -> dict[str, Any]:
    """What the record of a round says besides what all its files say."""
    inputs = []
    for name in (A, B, C) if number < 3 else (A, C):
        status = "absent" if name not in digests else "excluded"
        inputs.append(
            {
                "sender": name,
                "digest": digests.get(name),
                "weight": COUNTS[name][0] if name in counted else 0,
                "status": "included" if name in counted else status,
                "reason": "revoked" if name in digests and name not in counted else None,
            }
        )
    return {
        "kind": "record",
        "supersedes": None,
        "rule": "fedavg",
        "weights_by": "patients",
        "inputs": inputs,
        "next_site": None,
        "state_digest": None,
        "day": DAY,
    }


# --- after the last round: docs/formats/scores.md, approval.md, final.md ------------------------


def put_last(files: Files, about: dict[str, Any], prefix: str, digests: dict[str, str]) -> None:
    """An approval, two sites' scores, the final, and what a site erased."""
    stem = f"rounds/r0003/{prefix}.r0003"
    of_round = about | {"roster_version": 4, "round": 3, "edition": 1, "day": DAY}
    approval = of_round | {"kind": "approval", "sender": APPROVER, "update": digests[A]}
    approval["page"] = sha256(b"the page that was read")
    path = f"{stem}.{APPROVER}.approval.json"
    put(files, path, canonical(approval), APPROVER, namespace=b"brainfed-release")
    for name, figures, n_cases in (
        (EVALUATOR, [figure("all", "dice", 23), figure("all", "soft-slice-dice", 23)], 25),
        (A, [figure("all", "dice", 6), figure("complete", "dice", "fewer than 5")], 7),
    ):
        content = of_round | {
            "kind": "scores",
            "sender": name,
            "plan": plan_of(3),
            "weights": digests["global"],
            "split": None if name == EVALUATOR else sha256(f"in truth keyed by {name}".encode()),
            "n_cases": n_cases,
            "figures": figures,
        }
        signer = f"{A} again" if name == A else name
        put(files, f"{stem}.{name}.scores.json", canonical(content), signer)
    final = of_round | {
        "kind": "final",
        "sender": LEAD,
        "plan": plan_of(3),
        "weights": digests["global"],
        "record": digests["record"],
        "weights_licence": "CC-BY-4.0",
    }
    put(files, f"{stem}.{LEAD}.final.json", canonical(final), f"{LEAD} again")
    erasure = about | {
        "kind": "erasure",
        "sender": A,
        "roster_version": 4,
        "edition": 1,
        "reason": "ended",
        "n_patients": 12,
        "n_cases": 15,
        "dataset": sha256(b"the cases"),
        "split": sha256(f"in truth keyed by {A}".encode()),
        "erased": ["cases", "identities", "index", "pictures", "split"],
        "kept": ["federation", "keys", "ledger", "signed-weights"],
        "day": DAY,
    }
    put(files, f"federation/{A}.erasure.json", canonical(erasure), f"{A} again")


def figure(group: str, measure: str, n: int | str) -> dict[str, Any]:
    """One figure; six patients are too few for quartiles, fewer than the floor for anything."""
    values: dict[str, int | None] = dict.fromkeys(("mean", "sd", "q1", "median", "q3"))
    if isinstance(n, int):
        values |= {"mean": 731_250, "sd": 88_121}
        values |= {"q1": 690_001, "median": 742_500, "q3": 790_000} if n > 10 else {}
    of = {"subset": "test", "group": group, "measure": measure, "region": "WT", "n": n}
    return of | values


def federation() -> Files:
    """All files by their path in the archive."""
    files: Files = {}
    _, digest = put_rosters(files)
    about = {"format": 1, "purpose": "drill", "federation": digest}
    prefix = f"walk-{digest[:8]}"
    put_plans(files, about)
    digests = put_rounds(files, about, prefix)
    put_last(files, about, prefix, digests)
    return dict(sorted(files.items()))


def main(folder: Path) -> None:
    """Write all files; one that is there is never replaced."""
    for name, data in federation().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as stream:
            stream.write(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
