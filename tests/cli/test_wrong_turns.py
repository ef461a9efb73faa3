"""Wrong turns in the tutorial's story: each ends in our words, and the hint alone leads back.

Every turn is typed where the story stands. It must end with the error and the exit code of its
kind. Then the first command that the hint names is typed as it stands there, its placeholders
filled with what the story has, and must work; where that would train or read scans, it must be
understood.
"""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import typer

from brainfed import plan as plans
from brainfed.cli.app import app
from brainfed.formats.roster import Role
from brainfed.steps.aggregate import aggregate
from brainfed.steps.exchange import export
from tests.builders import a_plan, write_dataset
from tests.cli.typed import Answer, Typed
from tests.federation import (
    TODAY,
    a_federation,
    a_waiting_federation,
    a_workspace,
    an_unstarted_federation,
    close_round,
    enrolment_of,
    train,
)

A, LEAD = "hospital-a", "uni-lead"
PLAN_TEXT = plans.render(a_plan())


@dataclass(frozen=True)
class Story:
    """Where the story stands: its folders, and what fills the placeholders of hints."""

    root: Path
    fill: Mapping[str, object] = field(default_factory=dict)


def in_an_empty_folder(root: Path) -> Story:
    folder = root / "empty"
    folder.mkdir()
    (root / "plan.toml").write_text(PLAN_TEXT)
    lead = a_workspace(root / LEAD, Role.COORDINATOR, LEAD)
    return Story(root, {"NAME": A, "PLAN": root / "plan.toml", "FOLDER": lead.root})


def before_the_start(root: Path) -> Story:
    small = an_unstarted_federation(root)
    asks = enrolment_of(small.sites[A])
    (root / "plan.toml").write_text(PLAN_TEXT)
    (root / "misspelt.toml").write_text(PLAN_TEXT.replace("rounds = 2", "round = 2"))
    return Story(root, {"SITE.enrolment.json": asks, "PLAN": root / "plan.toml"})


def with_a_stick_for_the_sites(root: Path) -> Story:
    small = a_federation(root, joined=False)
    export(small.coordinator, small.medium())
    return Story(root, {"FOLDER": small.medium()})


def joined(root: Path) -> Story:
    small = a_federation(root)
    (root / "scans").mkdir()
    write_dataset(small.sites["hospital-b"].data)
    (small.sites["hospital-b"].data / "split.json").unlink()
    return Story(root, {"SCANS": root / "scans", "PROTOCOL": "brats2017"})


def with_updates_on_a_stick(root: Path) -> Story:
    small = a_federation(root)
    for site in small.sites.values():
        train(site)
        export(site, small.medium())
    return Story(root, {"FOLDER": small.medium()})


def with_an_update_to_approve(root: Path) -> Story:
    small = a_federation(root, plan=a_plan(exchange={"approval": True}))
    train(small.sites[A])
    return Story(root)


def with_a_damaged_update(root: Path) -> Story:
    small = a_federation(root)
    train(small.sites[A])
    export(small.sites[A], small.medium())
    (path,) = small.medium().glob("*.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    return Story(root, {"FOLDER": small.medium()})


def with_files_of_others(root: Path) -> Story:
    small = a_federation(root)
    other = a_federation(root / "other", sites=(A, "hospital-c"))
    train(other.sites[A])
    export(other.sites[A], other.medium())
    (path,) = other.medium().glob("*.safetensors")
    return Story(root, {"FILE": path, "FOLDER": small.medium()})


def with_all_updates(root: Path) -> Story:
    a_waiting_federation(root)
    return Story(root)


def with_a_closed_round(root: Path) -> Story:
    small = a_waiting_federation(root)
    aggregate(small.coordinator, today=TODAY)
    changed = a_plan(training={"epochs_per_round": 7})
    (root / "plan.toml").write_text(plans.render(changed))
    return Story(root, {"R": 1, "FOLDER": small.medium(f"from-{A}")})


def after_the_final(root: Path) -> Story:
    small = a_federation(root)
    close_round(small)
    return Story(root, {"FOLDER": small.medium("last")})


@dataclass(frozen=True)
class Turn:
    """A wrong turn, and how it must end."""

    stage: Callable[[Path], Story]
    at: str
    """The folder where it is typed."""
    words: str
    """What is typed; {root} is the folder of the story."""
    code: int
    kind: str
    leads_to: str
    """How the command begins that the hint names."""
    first: tuple[str, ...] = ()
    """What is typed rightly before."""
    is_typed: bool = True
    """Whether that command is carried out; else it must be understood."""

    @property
    def id(self) -> str:
        return f"{self.stage.__name__}, {self.at}: {self.words}"


NOWHERE = "{root}/not-mounted"
TURNS = (
    # The wrong folder, misspelt words.
    Turn(in_an_empty_folder, "empty", "status", 3, "NoWorkspaceError", "init site"),
    Turn(in_an_empty_folder, "empty", "import {root}", 3, "NoWorkspaceError", "init site"),
    Turn(in_an_empty_folder, LEAD, "statsu", 2, "UsageError", "status"),
    Turn(in_an_empty_folder, LEAD, "plan chek x", 2, "UsageError", "plan check", is_typed=False),
    Turn(
        in_an_empty_folder, LEAD, "export --too x", 2, "UsageError", "export --to", is_typed=False
    ),
    Turn(in_an_empty_folder, "empty", "init sit --name a", 2, "UsageError", "init site --name a"),
    Turn(
        in_an_empty_folder,
        "empty",
        "init approver --name hospital-a",
        2,
        "UsageError",
        "init approver",
    ),
    Turn(in_an_empty_folder, LEAD, "init site --name hospital-a", 3, "WorkspaceError", "status"),
    Turn(in_an_empty_folder, LEAD, "plan check no-plan.toml", 4, "PlanError", "plan check"),
    # The coordinator's first steps.
    Turn(before_the_start, LEAD, "start {root}/plan.toml", 3, "NotReadyError", "admit"),
    Turn(before_the_start, LEAD, "start {root}/misspelt.toml", 4, "PlanError", "plan check"),
    Turn(before_the_start, LEAD, "admit nobody.enrolment.json", 2, "UsageError", "admit"),
    Turn(before_the_start, LEAD, "export --to {root}", 3, "NotReadyError", "status"),
    Turn(before_the_start, LEAD, "split", 3, "WrongRoleError", "status"),
    Turn(before_the_start, A, "admit nobody.enrolment.json", 3, "WrongRoleError", "status"),
    Turn(before_the_start, A, "aggregate", 3, "WrongRoleError", "status"),
    # A site joins.
    Turn(with_a_stick_for_the_sites, A, "split", 3, "NotReadyError", "import"),
    Turn(with_a_stick_for_the_sites, A, "train-round", 3, "NotReadyError", "import"),
    Turn(with_a_stick_for_the_sites, A, f"import {NOWHERE}", 2, "UsageError", "import"),
    Turn(with_a_stick_for_the_sites, A, f"export --to {NOWHERE}", 8, "ResourceError", "export"),
    # A site prepares and trains.
    Turn(joined, A, "split", 3, "NotReadyError", "preprocess", is_typed=False),
    Turn(joined, A, "train-round", 3, "NotReadyError", "preprocess", is_typed=False),
    Turn(joined, "hospital-b", "train-round", 3, "NotReadyError", "split"),
    Turn(joined, "hospital-b", "evaluate", 3, "NotReadyError", "split"),
    Turn(
        joined,
        "hospital-b",
        "evaluate --subset test",
        3,
        "NotReadyError",
        "evaluate",
        first=("split",),
        is_typed=False,
    ),
    Turn(joined, A, f"check {NOWHERE}", 5, "ScanError", "check", is_typed=False),
    Turn(joined, A, "inspect no-file.safetensors", 2, "UsageError", "inspect", is_typed=False),
    Turn(with_an_update_to_approve, A, "export --to {root}", 3, "NotReadyError", "release"),
    # The coordinator closes a round.
    Turn(with_updates_on_a_stick, LEAD, "aggregate", 7, "QuorumError", "import"),
    Turn(
        with_updates_on_a_stick,
        LEAD,
        "aggregate --again",
        7,
        "QuorumError",
        "aggregate",
        first=("import {root}/media/stick",),
    ),
    Turn(
        with_all_updates,
        LEAD,
        f"aggregate --without {A}",
        2,
        "UsageError",
        "aggregate --without",
        is_typed=False,
    ),
    Turn(
        with_all_updates,
        LEAD,
        "aggregate --without hospital-z --reason late",
        2,
        "UsageError",
        "status",
    ),
    Turn(with_a_closed_round, LEAD, "aggregate", 7, "QuorumError", "import"),
    Turn(
        with_a_closed_round, LEAD, "withdraw hospital-z --from-round 1", 2, "UsageError", "status"
    ),
    Turn(with_a_closed_round, LEAD, "finish", 2, "UsageError", "evaluate", is_typed=False),
    Turn(
        with_a_closed_round,
        LEAD,
        "amend {root}/plan.toml --from-round 1",
        2,
        "UsageError",
        "amend",
        is_typed=False,
    ),
    Turn(
        after_the_final, LEAD, "aggregate", 7, "QuorumError", "export", first=("finish --round 1",)
    ),
    # Files that don't belong.
    Turn(
        with_a_damaged_update,
        LEAD,
        "import {root}/media/stick",
        6,
        "SignatureError",
        "export",
        is_typed=False,
    ),
    Turn(
        with_files_of_others,
        LEAD,
        "import {root}/other/media/stick",
        6,
        "StrangerError",
        "admit",
        is_typed=False,
    ),
    Turn(with_files_of_others, LEAD, f"audit {NOWHERE}", 2, "UsageError", "audit", is_typed=False),
)


def error_of(answer: Answer) -> dict[str, str]:
    """The error; of an import that refused a file, that of the first one."""
    told = answer.json
    if "files" in told:
        return next(file["error"] for file in told["files"] if file["error"])
    return told["error"]


def first_command(hint: str, fill: Mapping[str, object]) -> list[str]:
    """The first command that a hint names, its placeholders filled."""
    (line, *_) = re.findall(r"brainfed ([a-z-][^`,;()]*)", hint)
    line = line.removesuffix(" ...")
    words = shlex.split(re.split(r"[.:](?: |$)|--help", line)[0])
    words += ["--help"] if "--help" in line else []
    return [str(fill.get(word, word)) for word in words]


def understood(words: list[str]) -> None:
    """A command line is parsed to its end, and not carried out."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    with command.make_context(str(command.name), words):
        pass


@pytest.mark.parametrize("turn", TURNS, ids=lambda turn: turn.id)
def test_a_wrong_turn_is_led_back_by_its_hint_alone(
    turn: Turn, typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = turn.stage(tmp_path)
    monkeypatch.chdir(tmp_path / turn.at)
    for words in turn.first:
        assert typed(*words.format(root=tmp_path).split()).code == 0

    answer = typed(*turn.words.format(root=tmp_path).split(), "--json")

    assert answer.code == turn.code, answer
    error = error_of(answer)
    assert (error["kind"], error["exit_code"]) == (turn.kind, turn.code)
    command = first_command(error["next"], story.fill)
    assert " ".join(command).startswith(turn.leads_to), error["next"]
    if turn.is_typed:
        back = typed(*command, answers="y\ny\ny\n")
        assert back.code == 0, back
    else:
        understood(command)


def test_the_story_has_at_least_25_wrong_turns() -> None:
    assert len({turn.id for turn in TURNS}) == len(TURNS) >= 25
