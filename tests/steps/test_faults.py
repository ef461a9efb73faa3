"""Each command on a disk that fails, or killed, at each call that changes something; then again.

Whatever happens: old state or new and no half file, the ledger verifies, the workspace can be
looked at, no temporary file survives the next command, and running the command again ends as an
undisturbed one does.
"""

import ast
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest

import brainfed
from brainfed import plan as plans
from brainfed.core.labels import LabelProtocol
from brainfed.core.sshsig import public_key
from brainfed.errors import ResourceError
from brainfed.formats import courier, enrolment, federation, identities, ledger, workspace
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.steps import start as start_step
from brainfed.steps import train as train_step
from brainfed.steps.admit import admit, revoke
from brainfed.steps.aggregate import aggregate
from brainfed.steps.amend import amend
from brainfed.steps.exchange import export
from brainfed.steps.initialise import initialise
from brainfed.steps.preprocess import Wish, preprocess
from brainfed.steps.rotate import rotate
from brainfed.steps.split import split
from brainfed.steps.start import start_federation
from brainfed.steps.status import status
from tests.builders import a_plan, write_case_folder
from tests.faults import (
    FAILURES,
    KILLED,
    OURS,
    Fault,
    Point,
    check_whole,
    disturbed,
    points,
    run_apart,
    thin_out,
)
from tests.federation import (
    TODAY,
    a_federation,
    a_waiting_federation,
    a_workspace,
    an_unstarted_federation,
    enrolment_of,
    initial_weights,
    leftovers,
    say_yes,
    snapshot,
    take,
    train,
)
from tests.steps.joined import a_joined_site

QUICK = 6
"""Points a command in `make test`; `make test-slow` takes them all."""
QUIETLY = {0, OURS + ResourceError.exit_code}
"""How a command may end whose disk failed: it can do without that call, or it says so."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")


@dataclass(frozen=True)
class Scene:
    """A command, and the folder that it works in."""

    before: Path
    """Copied for each point."""
    command: Callable[[Workspace], object]
    name: str = "."
    """The workspace in that folder."""
    varies: tuple[str, ...] = ()
    """Files whose bytes are others each time, by pattern: only that they are there is compared."""
    reads: Callable[[Workspace], object] = field(default=lambda place: None)
    """Gives what else must be as after an undisturbed command."""

    def place(self, root: Path) -> Workspace:
        return workspace.find(root / self.name)

    def run(self, root: Path) -> None:
        place = self.place(root)
        with workspace.locked(place):
            self.command(place)

    def files(self, root: Path) -> dict[str, str]:
        """Digests by path, of temporary files too."""
        found = snapshot(self.place(root))
        return {p: "" if any(fnmatch(p, v) for v in self.varies) else d for p, d in found.items()}


def import_of_an_update(folder: Path) -> Scene:
    small = a_federation(folder / "small")
    train(small.sites["hospital-a"])
    export(small.sites["hospital-a"], small.medium())
    return Scene(small.coordinator.root, lambda place: take(place, small.medium()))


def first_import_at_a_site(folder: Path) -> Scene:
    small = a_federation(folder / "small", joined=False)
    export(small.coordinator, small.medium())
    return Scene(small.sites["hospital-a"].root, lambda place: take(place, small.medium()))


def import_of_roster_and_amendment(folder: Path) -> Scene:
    small = a_federation(folder / "small")
    late = a_workspace(folder / "late", Role.SITE, "hospital-c")
    admit(small.coordinator, [enrolment_of(late)], confirm=say_yes)
    amend(small.coordinator, a_new_plan(folder), from_round=1, today=TODAY)
    export(small.coordinator, small.medium())
    return Scene(small.sites["hospital-a"].root, lambda place: take(place, small.medium()))


def import_of_encrypted_weights(folder: Path) -> Scene:
    pytest.importorskip("pyrage")
    small = a_federation(folder / "small", plan=an_encrypting_plan())
    train(small.sites["hospital-a"])
    export(small.sites["hospital-a"], small.medium())
    assert list(small.medium().glob("*.age"))
    return Scene(small.coordinator.root, lambda place: take(place, small.medium()))


def export_of_an_update(folder: Path) -> Scene:
    small = a_federation(folder / "small")
    train(small.sites["hospital-a"])
    return Scene(with_a_medium(small.sites["hospital-a"]), send)


def export_at_the_coordinator(folder: Path) -> Scene:
    return Scene(with_a_medium(a_federation(folder / "small").coordinator), send)


def export_of_encrypted_weights(folder: Path) -> Scene:
    pytest.importorskip("pyrage")
    small = a_federation(folder / "small", plan=an_encrypting_plan())
    train(small.sites["hospital-a"])

    def opened(place: Workspace) -> list[str]:
        files = [*place.outbox.glob("*.age"), *(place.root / "medium").glob("*.age")]
        digests = []
        for number, file in enumerate(sorted(files)):
            plain = folder / f".tmp-{number}"
            with file.open("rb") as stream:
                identity = small.coordinator.identity_path
                courier.decrypt(stream, plain, identity, cap_bytes=10**8, where=file)
            digests.append(hashlib.sha256(plain.read_bytes()).hexdigest())
            plain.unlink()
        return digests

    site = with_a_medium(small.sites["hospital-a"])
    return Scene(site, send, varies=("*.age", "medium/*.txt"), reads=opened)


def aggregation(folder: Path) -> Scene:
    small = a_waiting_federation(folder / "small")

    def close(place: Workspace) -> None:
        if status(place).closed_round == 0:  # disturbed after the last signature it is closed
            aggregate(place, today=TODAY)
        else:
            export(place, None)

    return Scene(small.coordinator.root, close)


def training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """The training itself is done once, beforehand: torch's threads don't outlive a fork."""
    place = a_joined_site(folder / "small")
    known: list[train_step.Trained] = []
    original = train_step.train_from

    def remember(*arguments: object, **options: object) -> train_step.Trained:
        if not known:
            known.append(original(*arguments, **options))  # type: ignore[arg-type]
        return known[0]

    monkeypatch.setattr(train_step, "train_from", remember)
    scene = Scene(place.root, lambda place: train_step.train_round(place, threads=1))
    shutil.copytree(place.root, folder / "spare")
    scene.run(folder / "spare")
    return scene


def preprocessing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    small = a_federation(folder / "small")
    # The key of the ids is held still, to compare the files.
    monkeypatch.setattr(identities, "secrets", SimpleNamespace(token_bytes=bytes))
    for number in range(2):
        write_case_folder(folder / "scans", f"case{number}", seed=number)

    def make(place: Workspace) -> None:
        preprocess(place, folder / "scans", Wish(protocol=LabelProtocol.BRATS2017))

    return Scene(small.sites["hospital-a"].root, make)


def splitting(folder: Path) -> Scene:
    place = a_joined_site(folder / "small")
    (place.data / "split.json").unlink()
    return Scene(place.root, split)


def admission(folder: Path) -> Scene:
    small = an_unstarted_federation(folder / "small")
    paths = [enrolment_of(site) for site in small.sites.values()]
    return Scene(small.coordinator.root, lambda place: admit(place, paths, confirm=say_yes))


def admission_after_the_start(folder: Path) -> Scene:
    small = a_federation(folder / "small")
    late = a_workspace(folder / "late", Role.SITE, "hospital-c")
    paths = [enrolment_of(late)]
    return Scene(small.coordinator.root, lambda place: admit(place, paths, confirm=say_yes))


def revocation(folder: Path) -> Scene:
    small = a_federation(folder / "small")
    return Scene(small.coordinator.root, lambda place: revoke(place, "hospital-b"))


def amendment(folder: Path) -> Scene:
    small, path = a_federation(folder / "small"), a_new_plan(folder)
    return Scene(
        small.coordinator.root, lambda place: amend(place, path, from_round=1, today=TODAY)
    )


def starting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    small = an_unstarted_federation(folder / "small")
    admit(small.coordinator, [enrolment_of(s) for s in small.sites.values()], confirm=say_yes)
    plan = folder / "plan.toml"
    plan.write_text(plans.render(a_plan()))
    # The federation's random identity is held still, to compare the files.
    monkeypatch.setattr(start_step, "secrets", SimpleNamespace(token_hex=lambda n: "ab" * n))

    def begin(place: Workspace) -> None:
        start_federation(place, plan, initial_weights=initial_weights, today=TODAY)

    return Scene(small.coordinator.root, begin)


def with_a_medium(place: Workspace) -> Path:
    """Give a workspace a medium inside of it, to compare what lies there as well."""
    (place.root / "medium").mkdir()
    return place.root


def send(place: Workspace) -> None:
    export(place, place.root / "medium")


def a_new_plan(folder: Path) -> Path:
    path = folder / "next.toml"
    path.write_text(plans.render(a_plan(training={"rate": 0.5})))
    return path


def an_encrypting_plan() -> plans.Plan:
    return a_plan(exchange={"encryption": "required"})


SCENES = (
    import_of_an_update,
    first_import_at_a_site,
    import_of_roster_and_amendment,
    import_of_encrypted_weights,
    export_of_an_update,
    export_at_the_coordinator,
    export_of_encrypted_weights,
    aggregation,
    training,
    preprocessing,
    splitting,
    admission,
    admission_after_the_start,
    revocation,
    amendment,
    starting,
)
EXTENTS = [pytest.param(QUICK, id="some"), pytest.param(None, id="all", marks=pytest.mark.slow)]


@pytest.mark.parametrize("at_most", EXTENTS)
@pytest.mark.parametrize("scene", SCENES)
def test_a_disturbed_command_is_run_again_and_ends_as_an_undisturbed_one(
    scene: Callable[..., Scene],
    at_most: int | None,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    wanted = scene.__code__.co_varnames[1 : scene.__code__.co_argcount]
    check(scene(tmp_path, *map(request.getfixturevalue, wanted)), tmp_path, at_most)


def check(scene: Scene, work: Path, at_most: int | None) -> None:
    undisturbed = work / "undisturbed"
    shutil.copytree(scene.before, undisturbed)
    ended = run_apart(lambda: scene.run(undisturbed))
    assert ended.code == 0
    old, new = scene.files(scene.before), scene.files(undisturbed)
    expected = scene.reads(scene.place(undisturbed))
    everywhere = points(ended.calls)
    chosen = thin_out(everywhere, at_most)
    print(f"\n{len(ended.calls)} calls, {len(everywhere)} points, {len(chosen)} tried")
    for point, code, root in disturbed(scene.before, work, scene.run, chosen):
        place = scene.place(root)
        check_ending(point, code, leftovers(root))
        check_whole(point, scene.files(root), old, new)
        ledger.read(place.ledger_path)
        status(place)  # whatever lies there, it can be looked at
        scene.run(root)
        assert scene.files(root) == new, point
        assert scene.reads(place) == expected, point
        assert leftovers(root) == [], point
        ledger.read(place.ledger_path)


def check_ending(point: Point, code: int, left: list[Path]) -> None:
    if point.fault in FAILURES:
        assert code in QUIETLY, point
        # What can't even be taken away stays for the next command to take away.
        assert not left or point.call in ("unlink", "rmdir"), point
    else:
        assert code == KILLED, point


# --- keys: other bytes each time -----------------------------------------------------------------


@pytest.mark.parametrize("at_most", EXTENTS)
@pytest.mark.parametrize("role", Role)
def test_a_disturbed_init_is_run_again_and_makes_a_workspace(
    tmp_path: Path, role: Role, at_most: int | None
) -> None:
    name = "somebody.release" if role is Role.APPROVER else "somebody"
    (tmp_path / "empty").mkdir()

    def begin(root: Path) -> None:
        if not (root / workspace.MARKER).exists():  # with it the workspace is made
            initialise(root, role, name)

    chosen = thin_out(points(run_apart(lambda: begin(tmp_path / "whole")).calls), at_most)
    print(f"\n{len(chosen)} points tried")
    for point, code, root in disturbed(tmp_path / "empty", tmp_path, begin, chosen):
        check_ending(point, code, leftovers(root))
        begin(root)
        place = workspace.find(root)
        with workspace.locked(place):
            key = public_key(place.private_key())
        assert place.key_path.with_suffix(".pub").read_text() == f"{key.line}\n", point
        if role is not Role.COORDINATOR:
            assert enrolment.read_verified(enrolment_of(place)).key == key.line, point
        assert leftovers(root) == [], point
        ledger.read(place.ledger_path)


@pytest.mark.parametrize("at_most", EXTENTS)
@pytest.mark.parametrize("name", ["uni-lead", "hospital-a"])
def test_a_disturbed_rotation_is_run_again_and_its_key_is_the_one_that_counts(
    tmp_path: Path, name: str, at_most: int | None
) -> None:
    small = a_federation(tmp_path / "small")
    old = next(p for p in [small.coordinator, *small.sites.values()] if p.name == name)
    version = small.known.roster.version
    export(old, small.medium())  # after which a site's first enrolment is gone

    def turn(root: Path) -> None:
        place = workspace.find(root)
        with workspace.locked(place):
            rotate(place)

    shutil.copytree(old.root, tmp_path / "whole")
    chosen = thin_out(points(run_apart(lambda: turn(tmp_path / "whole")).calls), at_most)
    print(f"\n{len(chosen)} points tried")
    for point, code, root in disturbed(old.root, tmp_path, turn, chosen):
        check_ending(point, code, leftovers(root))
        status(workspace.find(root))
        ledger.read(old.ledger_path)
        turn(root)
        place = workspace.find(root)
        key = public_key(place.private_key())
        assert key != old.public_key(), point
        assert (root / old.key).read_bytes() == old.key_path.read_bytes(), point
        if name == "uni-lead":
            # Disturbed after the marker, the first rotation was complete and this is a second.
            newest = federation.load(place).roster
            assert newest.version in {version + 1, version + 2}, point
            assert newest.coordinator.public_key == key, point
        else:
            assert enrolment.read_verified(enrolment_of(place)).key == key.line, point
        assert leftovers(root) == [], point
        ledger.read(place.ledger_path)
        status(place)


# --- all writing goes through formats/atomic -----------------------------------------------------

ELSEWHERE = {
    ("formats/case_file.py", "File"): "HDF5, into memory",
    ("formats/scan.py", "WriteImage"): "SimpleITK opens files itself, under a name of atomic's",
    ("formats/workspace.py", "chmod"): "closes a folder that was there before",
    ("steps/doctor.py", "tempfile.TemporaryDirectory"): "where its own folder can't be written",
    ("cli/app.py", "open"): "standard output to nowhere, when its reader has gone",
}
CHANGES = {
    *("write_text", "write_bytes", "touch", "rename", "renames", "unlink", "rmdir", "removedirs"),
    *("mkdir", "makedirs", "symlink_to", "hardlink_to", "symlink", "link", "chmod", "truncate"),
    *("mkfifo", "mknod", "utime", "WriteImage", "WriteTransform", "savez", "save_file"),
    *("savetxt", "memmap", "to_csv"),
}


def changes_of_the_disk(text: str) -> list[tuple[str, int]]:
    """Calls in Python source that write, by name, and their lines."""
    return [
        (name, node.lineno)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and (name := _change(node)) is not None
    ]


def _change(call: ast.Call) -> str | None:
    function = call.func
    if isinstance(function, ast.Name):
        name, owner = function.id, ""
    elif isinstance(function, ast.Attribute):
        name, owner = function.attr, ast.unparse(function.value)
    else:
        return None
    if owner == "atomic":
        return None
    reading = {"disk_usage", "get_terminal_size", "gettempdir", "which"}
    if owner in {"shutil", "tempfile"} and name not in reading:
        return f"{owner}.{name}"
    if name in CHANGES or (owner, name) in {("os", "remove"), ("torch", "save"), ("np", "save")}:
        return name
    # `str.replace` has two arguments, `dataclasses.replace` keywords.
    if (
        name == "replace"
        and (owner == "os" or (owner and len(call.args) == 1))
        and not call.keywords
    ):
        return name
    if name in {"open", "fdopen", "File", "ZipFile", "TarFile"}:
        words = " ".join(ast.unparse(a) for a in [*call.args, *(k.value for k in call.keywords)])
        modes = {"'w'", "'a'", "'x'", "'wb'", "'ab'", "'xb'", "'r+'", "'rb+'", "'r+b'", "'w+b'"}
        if (
            modes & set(words.replace(",", " ").split())
            or "O_CREAT" in words
            or "O_WRONLY" in words
        ):
            return name
    return None


def test_all_writing_goes_through_atomic() -> None:
    root = Path(brainfed.__file__).parent
    found = {
        (path.relative_to(root).as_posix(), name)
        for path in root.rglob("*.py")
        for name, _ in changes_of_the_disk(path.read_text())
        if path.relative_to(root).as_posix() != "formats/atomic.py"
    }
    assert found == ELSEWHERE.keys()


@pytest.mark.parametrize(
    "line",
    [
        "path.write_text('a')",
        "path.open('wb')",
        "open(path, mode='a')",
        "os.replace(a, b)",
        "path.replace(target)",
        "os.open(path, os.O_CREAT | os.O_RDWR)",
        "shutil.move(a, b)",
        "h5py.File(path, 'w')",
        "os.remove(path)",
    ],
)
def test_that_test_would_find_a_writer(line: str) -> None:
    assert changes_of_the_disk(line)


@pytest.mark.parametrize(
    "line",
    ["path.open('rb')", "text.replace('a', 'b')", "replace(plan, seed=1)", "entries.remove(one)"],
)
def test_that_test_lets_readers_be(line: str) -> None:
    assert not changes_of_the_disk(line)


def test_the_native_writer_gets_its_name_from_atomic() -> None:
    tree = ast.parse((Path(brainfed.__file__).parent / "formats/scan.py").read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    (writer,) = [f for f in functions if changes_of_the_disk(ast.unparse(f))]
    assert "with atomic.new_path(" in ast.unparse(writer)


def test_no_room_lasts_and_a_broken_call_does_not(tmp_path: Path) -> None:
    def write_twice() -> None:
        for name in "ab":
            try:
                (tmp_path / name).write_bytes(b"1234")
            except OSError:
                continue

    calls = run_apart(write_twice).calls
    assert calls == ("create", "write") * 2
    for fault, left in ((Fault.FULL, {"a": b"12"}), (Fault.BROKEN, {"a": b"", "b": b"1234"})):
        for name in "ab":
            (tmp_path / name).unlink(missing_ok=True)
        run_apart(write_twice, Point(1, "write", fault))
        found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert found == left
