"""A whole small federation in temporary folders, walked through the real steps, without torch."""

import atexit
import functools
import hashlib
import shutil
import stat
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from brainfed import plan as plans
from brainfed.core.architecture import tensor_table
from brainfed.core.sshsig import public_key
from brainfed.formats import federation, rounds, signature, weights, workspace
from brainfed.formats.manifest import Kind, Manifest
from brainfed.formats.roster import Principal, Role, Roster
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan
from brainfed.steps.admit import admit
from brainfed.steps.aggregate import Aggregated, aggregate
from brainfed.steps.exchange import export
from brainfed.steps.initialise import initialise
from brainfed.steps.receive import Import, receive
from brainfed.steps.start import start_federation
from tests.builders import a_plan

TODAY = date(2026, 3, 1)
DIGESTS = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("one", "two", "three")}


@dataclass(frozen=True)
class Small:
    """A coordinator, its sites by name, and a folder for media."""

    root: Path
    coordinator: Workspace
    sites: dict[str, Workspace]

    def medium(self, name: str = "stick") -> Path:
        """A folder that stands for a stick."""
        folder = self.root / "media" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def known(self) -> federation.Federation:
        return federation.load(self.coordinator)


def a_workspace(root: Path, role: Role, name: str) -> Workspace:
    initialise(root, role, name)
    return workspace.find(root)


def an_unstarted_federation(
    root: Path, sites: tuple[str, ...] = ("hospital-a", "hospital-b")
) -> Small:
    """Workspaces alone: nobody admitted."""
    coordinator = a_workspace(root / "uni-lead", Role.COORDINATOR, "uni-lead")
    return Small(
        root, coordinator, {name: a_workspace(root / name, Role.SITE, name) for name in sites}
    )


def a_federation(
    root: Path,
    sites: tuple[str, ...] = ("hospital-a", "hospital-b"),
    *,
    plan: Plan | None = None,
    joined: bool = True,
) -> Small:
    """A federation that has started; its sites have imported the start and round 0.

    It is made once a process and copied for each test.
    """
    return copy_of(_a_federation(sites, plans.render(plan or a_plan()), joined), root)


@functools.cache
def _a_federation(sites: tuple[str, ...], plan_text: str, joined: bool) -> Small:
    root = Path(tempfile.mkdtemp(prefix="brainfed-test-"))
    atexit.register(shutil.rmtree, root)
    small = an_unstarted_federation(root, sites)
    admit(small.coordinator, [enrolment_of(site) for site in small.sites.values()], confirm=say_yes)
    start(small, plans.parse(plan_text.encode()))
    if joined:
        for site in small.sites.values():
            carry(small.coordinator, site, small.medium("start"))
    return small


def a_waiting_federation(root: Path, **options: Any) -> Small:
    """A federation whose updates of round 1 lie at the coordinator, ready to be averaged."""
    small = a_federation(root, **options)
    for site in small.sites.values():
        train(site)
        carry(site, small.coordinator, small.medium(f"from-{site.name}"))
    return small


def enrolment_of(site: Workspace) -> Path:
    return site.outbox / f"{site.name}.enrolment.json"


def start(small: Small, plan: Plan) -> None:
    path = small.root / "plan.toml"
    path.write_text(plans.render(plan))
    start_federation(
        small.coordinator,
        path,
        initial_weights=initial_weights,
        today=TODAY,
        are_given=plan.network.n_dimensions == 0,
    )


def say_yes(_: object) -> bool:
    return True


def initial_weights(plan: Plan) -> dict[str, npt.NDArray[np.float32]]:
    """Small random weights, the same for the same seed."""
    return random_weights(plan, plan.seed)


def random_weights(plan: Plan, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return {
        name: random.normal(0, 0.1, shape).astype(np.float32)
        for name, shape in tensor_table(plan).items()
    }


def train(site: Workspace, **changes: Any) -> Path:
    """An update of the open round, unsigned, as `train-round` leaves it; gives its path."""
    known = federation.load(site)
    newest = rounds.newest_global(site, known)
    tensors = weights.read_tensors(newest.path, known.table)
    steps = random_weights(known.first_plan, int.from_bytes(site.name.encode()) % 2**32)
    manifest = an_update_manifest(site, **changes)
    path = site.round_folder(manifest.round) / known.weights_name(manifest)
    path.parent.mkdir(exist_ok=True)
    weights.write(path, manifest, {name: tensors[name] + steps[name] for name in tensors})
    return path


def an_update_manifest(site: Workspace, **changes: Any) -> Manifest:
    """What an honest update of the open round carries, with changes."""
    known = federation.load(site)
    newest = rounds.newest_global(site, known)
    fields: dict[str, Any] = {
        "kind": Kind.UPDATE,
        "sender": site.name,
        "parent": newest.digest,
        "split": DIGESTS["one"],
        "n_patients": 10 + sum(site.name.encode()) % 7,
        "n_cases": 20,
        "n_slices": 300,
        "n_validation": 5,
        "versions": {"brainfed": "0.1.0"},
    }
    honest = rounds.new_manifest(known, newest.manifest.round + 1, **fields)
    return Manifest.model_validate(honest.model_dump() | changes)


def carry(from_: Workspace, to: Workspace, medium: Path) -> Import:
    """Export to a medium and import from it."""
    export(from_, medium)
    return take(to, medium)


def take(place: Workspace, *sources: Path) -> Import:
    return receive(place, sources, confirm=say_yes)


def close_round(small: Small) -> Aggregated:
    """Everybody trains, carries, the coordinator averages and brings the result to all."""
    number = (rounds.newest_round(small.coordinator) or 0) + 1
    for site in small.sites.values():
        train(site)
        carry(site, small.coordinator, small.medium(f"r{number}-{site.name}"))
    done = aggregate(small.coordinator, today=TODAY)
    for site in small.sites.values():
        carry(small.coordinator, site, small.medium(f"r{number}-back"))
    return done


def sign(path: Path, signer: Workspace | Ed25519PrivateKey) -> Path:
    """Sign a file anew, whatever it has become."""
    key = signer.private_key() if isinstance(signer, Workspace) else signer
    signature.sign_file(path, key)
    return path


def a_principal(
    name: str, key: Ed25519PrivateKey, role: Role = Role.SITE, **changes: Any
) -> Principal:
    return Principal(name=name, role=role, key=public_key(key).line, **changes)


def a_roster(**keys: Ed25519PrivateKey) -> Roster:
    """`uni_lead` is the coordinator, everybody else a site; underscores become hyphens."""
    roles = {True: Role.COORDINATOR, False: Role.SITE}
    principals = [
        a_principal(name.replace("_", "-"), key, roles[name == "uni_lead"])
        for name, key in keys.items()
    ]
    return Roster(version=1, principals=tuple(sorted(principals, key=lambda p: p.name)))


def a_key(seed: int = 1) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


def snapshot(place: Workspace, *, leave_out: tuple[str, ...] = ()) -> dict[str, str]:
    """Digest of every file, by path; without the ledger (it tells of refusals) and the lock."""
    left_out = {"ledger.jsonl", ".lock", *leave_out}
    return {
        str(path.relative_to(place.root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(place.root.rglob("*"))
        if path.is_file() and path.name not in left_out
    }


def leftovers(root: Path) -> list[Path]:
    return list(root.rglob(".tmp-*"))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def copy_of(small: Small, root: Path) -> Small:
    """The same federation in another folder, to be changed there."""
    shutil.copytree(small.root, root, dirs_exist_ok=True)
    return Small(
        root,
        workspace.find(root / small.coordinator.name),
        {name: workspace.find(root / name) for name in small.sites},
    )
