"""A federation in memory: every kind of signed file, and a party that they are brought to.

It is made once on the disk by the real steps, read, and thrown away. What a party has is a
`MemoryShelf`, so that a million files can be judged without a single one being opened.
"""

import hashlib
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from brainfed import plan as plans
from brainfed.core import sshsig
from brainfed.errors import FileRefusedError, MalformedError
from brainfed.formats import document, federation, signature, weights
from brainfed.formats.federation import Federation
from brainfed.formats.final import Final
from brainfed.formats.record import Record
from brainfed.formats.roster import Role
from brainfed.formats.scores import Scores
from brainfed.formats.shelf import Lying
from brainfed.formats.signature import Signed
from brainfed.formats.workspace import Workspace
from brainfed.steps.admit import admit
from brainfed.steps.amend import amend
from brainfed.steps.finish import finish
from brainfed.steps.judge import WEIGHTS, judge, key_is_known
from brainfed.steps.verdict import Outcome, Party
from tests.builders import a_plan
from tests.federation import (
    TODAY,
    Small,
    a_federation,
    a_key,
    a_workspace,
    carry,
    close_round,
    enrolment_of,
    say_yes,
    sign,
    train,
)
from tests.scored import rows_of, score, with_a_split

SITES = ("hospital-a", "hospital-b")


@dataclass(frozen=True)
class Paper:
    """One genuine signed file."""

    name: str
    kind: str
    data: bytes
    armored: bytes
    signer: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass
class MemoryShelf:
    """What a party has, as `formats.shelf.Shelf` asks for it."""

    entries: list[Lying] = field(default_factory=list)
    acceptances: dict[tuple[str, int], str] = field(default_factory=dict)

    def newest(self) -> int | None:
        return max((e.about.round for e in self.entries if _is_global(e)), default=None)

    def lying(self, round_number: int) -> Sequence[Lying]:
        return [entry for entry in self.entries if entry.about.round == round_number]

    def acceptance(self, name: str, version: int) -> str | None:
        return self.acceptances.get((name, version))

    def roster(self, version: int) -> str | None:
        return None

    def erasure(self, name: str, edition: int) -> str | None:
        return None

    def finals(self) -> Sequence[Lying]:
        return [entry for entry in self.entries if isinstance(entry.about, Final)]


def _is_global(entry: Lying) -> bool:
    return getattr(entry.about, "kind", None) == "global"


@dataclass(frozen=True)
class Scene:
    """Two parties in the middle of round 2, the genuine files, and everybody's keys."""

    parties: dict[str, Party]
    papers: tuple[Paper, ...]
    fresh: frozenset[tuple[str, str]]
    """Party and digest of the genuine files that it doesn't have yet and may accept."""
    keys: dict[str, Ed25519PrivateKey]


def a_scene() -> Scene:
    """Make the federation, read it into memory, and throw it away."""
    with tempfile.TemporaryDirectory(prefix="brainfed-fuzz-") as folder:
        return a_scene_in(Path(folder))[0]


def a_scene_in(root: Path) -> tuple[Scene, Small]:
    """Round 1 closed and named as final, a plan amended, a site admitted late, round 2 open."""
    small = a_federation(root, SITES)
    close_round(small)
    late = a_workspace(root / "late", Role.SITE, "hospital-c")
    before = _read_all(small)
    known_before = federation.load(small.sites["hospital-a"])
    finish(small.coordinator, round_number=1, today=TODAY)
    new = root / "next.toml"
    new.write_text(plans.render(a_plan(training={"rate": 0.5})))
    amend(small.coordinator, new, from_round=3, today=TODAY)
    admit(small.coordinator, [enrolment_of(late)], confirm=say_yes)
    train(small.sites["hospital-a"])
    carry(small.sites["hospital-a"], small.coordinator, small.medium("open"))
    scored = score(with_a_split(small.sites["hospital-b"]), rows_of(range(24)), number=1)
    assert scored is not None
    sign(scored, small.sites["hospital-b"])
    update = train(small.sites["hospital-b"])
    sign(update, small.sites["hospital-b"])
    after = _read_all(small, *small.sites.values())
    lead = {paper.digest for paper in _read_all(small)}
    papers = tuple({paper.digest: paper for paper in (*before, *after)}.values())
    keys = {place.name: place.private_key() for place in (small.coordinator, late)}
    keys |= {name: place.private_key() for name, place in small.sites.items()}
    known = federation.load(small.coordinator)
    parties = {
        "uni-lead": _party(small, "uni-lead", known, after, lead),
        "hospital-a": _party(small, "hospital-a", known_before, before, None),
    }
    fresh = frozenset(_fresh(parties, papers))
    return Scene(parties, papers, fresh, keys | {"stranger": a_key(99)}), small


def _read_all(small: Small, *others: Workspace) -> list[Paper]:
    places = [small.coordinator, *others]
    found = {}
    for place in places:
        for folder in (place.federation_folder, place.rounds):
            for path in sorted(folder.rglob("*.sig")):
                paper = _read(path.with_suffix(""), small)
                found[paper.digest] = paper
    return list(found.values())


def _read(path: Path, small: Small) -> Paper:
    data, armored = path.read_bytes(), signature.signature_path(path).read_bytes()
    kind = WEIGHTS if path.suffix == ".safetensors" else document.kind_of(data)
    key = sshsig.parse_signature(armored).key
    places = [small.coordinator, *small.sites.values()]
    signer = next((p.name for p in places if p.public_key() == key), "hospital-c")
    return Paper(path.name, kind, data, armored, signer)


def _party(
    small: Small, name: str, known: Federation, papers: Sequence[Paper], only: set[str] | None
) -> Party:
    place = small.coordinator if name == "uni-lead" else small.sites[name]
    shelf = MemoryShelf()
    for paper in papers:
        if only is not None and paper.digest not in only:
            continue
        if paper.kind == WEIGHTS:
            header = weights.read_raw_header(io.BytesIO(paper.data), Path(paper.name))
            about = weights.parse_manifest(header, Path(paper.name))
            shelf.entries.append(Lying(Path(paper.name), about, paper.digest))
        elif paper.kind == "record":
            shelf.entries.append(Lying(Path(paper.name), Record.loads(paper.data), paper.digest))
        elif paper.kind in {"scores", "final"}:
            content = (Scores if paper.kind == "scores" else Final).loads(paper.data)
            shelf.entries.append(Lying(Path(paper.name), content, paper.digest))
    return Party(place.role, name, place.public_key(), known, shelf)


def _fresh(parties: dict[str, Party], papers: Sequence[Paper]) -> list[tuple[str, str]]:
    found = []
    for name, party in parties.items():
        for paper in papers:
            try:
                outcome = present(party, paper.data, paper.armored, Path(paper.name))
            except FileRefusedError:
                continue
            if outcome.verdict == "accepted":
                found.append((name, paper.digest))
    return found


def present(party: Party, data: bytes, armored: bytes, path: Path) -> Outcome:
    """Bring a file to a party: what import does with it, in the same order, without a disk.

    Raises:
        FileRefusedError: It is refused.
    """
    found = sshsig.parse_signature(armored)
    sshsig.verify(found, hashlib.new(found.hash_algorithm, data).digest())
    key_is_known(found.key, party)
    kind = WEIGHTS if data[8:10] == b'{"' else document.kind_of(data)
    if kind == "enrolment":
        raise MalformedError("An enrolment is for admit")
    signed = Signed(path, found.key, hashlib.sha256(data).hexdigest())
    return judge(party, signed, kind, io.BytesIO(data), len(data)).outcome
