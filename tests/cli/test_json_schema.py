"""What `--json` prints fits the published schema of each command; `typed` checks every answer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from jsonschema import ValidationError
from safetensors.numpy import save_file

from brainfed import plan as plans
from brainfed.cli.app import app
from brainfed.formats import review
from brainfed.formats.review import ReviewRow, Verdict
from tests.approving import an_approving_federation, approver
from tests.builders import a_geometry, a_plan, write_case_folder
from tests.cli.json_answers import FOLDER, check_answer, command_of, validator
from tests.cli.typed import Answer, Typed
from tests.federation import (
    Small,
    a_federation,
    a_waiting_federation,
    initial_weights,
    train,
)
from tests.predicting import an_outsider, write_scans
from tests.small_simulation import a_simulated_plan
from tests.small_simulation import write_scans as write_simulated_scans
from tests.steps.joined import a_joined_site, a_quick_plan
from tests.steps.patients import a_site_with_patients
from tests.steps.test_score_maps import a_map, put

SLOW = {"train-round", "doctor", "drill", "demo", "predict", "simulate run", "simulate partition"}
"""Commands whose sample takes seconds; other tests type the last three with --json."""


def commands() -> set[str]:
    """Every command that does something, by its whole name."""
    group: Any = typer.main.get_command(app)
    inner = {name: getattr(c, "commands", None) or [""] for name, c in group.commands.items()}
    return {f"{name} {sub}".strip() for name, subs in inner.items() for sub in subs}


def test_every_command_has_a_schema_and_every_schema_a_command() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {
        name.replace(" ", "-") for name in commands()
    }


@pytest.mark.parametrize("command", sorted(commands()))
def test_a_schema_is_sound_and_knows_results_and_refusals(command: str) -> None:
    schema = validator(command)  # checked against its draft on the way
    refusal = {"error": {"kind": "PlanError", "exit_code": 4, "message": "No"}}
    assert schema.is_valid(refusal)
    assert not schema.is_valid({})
    assert not schema.is_valid({"error": {"kind": "PlanError", "message": "No"}})
    assert not schema.is_valid(refusal | {"and": 1})


@pytest.mark.parametrize(
    "wrong",
    [
        {"digest": "x"},
        {"n_parameters": "7"},
        {"n_parameters": None},
        {"unknown": 1},
    ],
)
def test_an_answer_that_does_not_fit_is_noticed(wrong: dict[str, Any]) -> None:
    right = {"name": "a", "digest": "b", "data_digest": "c", "network_digest": "d"}
    right |= {"n_parameters": 7, "n_local": 0}
    check_answer(["plan", "check", "--json"], json.dumps(right))
    content = {"digest": "x"} if wrong == {"digest": "x"} else right | wrong
    with pytest.raises(ValidationError):
        check_answer(["plan", "check", "--json"], json.dumps(content))


def test_an_answer_that_is_no_json_is_noticed() -> None:
    with pytest.raises(ValueError, match="NaN is not JSON"):
        check_answer(["plan", "cost"], '{"days": NaN}')


class Story:
    """Types commands with --json, each of which must give a result; keeps which they were."""

    def __init__(self, typed: Typed) -> None:
        self._typed = typed
        self.told: set[str] = set()

    def __call__(self, *words: object, answers: str | None = None) -> Answer:
        answer = self._typed(*words, "--json", answers=answers)
        assert answer.code == 0, answer
        assert "error" not in answer.json
        name = command_of([str(word) for word in words])
        assert name is not None
        self.told.add(name)
        return answer


@pytest.fixture
def tell(typed: Typed) -> Iterator[Story]:
    return Story(typed)


def before_the_start(tell: Story, root: Path) -> None:
    """A coordinator and a site, from nothing to the first global weights."""
    lead, site = ("--workspace", root / "uni-lead"), ("--workspace", root / "hospital-a")
    tell("init", "coordinator", "--name", "uni-lead", *lead)
    tell("init", "site", "--name", "hospital-a", *site)
    print_ = tell("key", "rotate", *site).json["fingerprint"]
    assert tell("key", "show", *site).json["fingerprint"] == print_
    enrolment = root / "hospital-a" / "outbox" / "hospital-a.enrolment.json"
    tell("admit", enrolment, "--fingerprint", print_, *lead)
    plan = a_plan(participation={"quorum_sites": 1})
    (root / "plan.toml").write_text(plans.render(plan))
    save_file(initial_weights(plan), root / "weights.safetensors")
    tell("plan", "show", root / "plan.toml")
    tell("plan", "check", root / "plan.toml")
    tell("plan", "cost", root / "plan.toml")
    tell("plan", "from-weights", root / "weights.safetensors")
    tell("start", root / "plan.toml", "--weights", root / "weights.safetensors", *lead)
    tell("status", *site)


def rounds_at_the_coordinator(tell: Story, small: Small) -> None:
    """From updates that have come to the end."""
    lead, site = ("--workspace", small.coordinator.root), small.sites["hospital-a"]
    stick = small.medium("stick")
    tell("status", *lead)
    tell("aggregate", "--dry-run", *lead)
    closed = tell("aggregate", *lead).json["path"]
    tell("status", "--rounds", *lead)
    tell("inspect", closed, *lead)
    (small.root / "new.toml").write_text(plans.render(a_plan(rounds=9)))
    tell("amend", small.root / "new.toml", "--from-round", 2, *lead)
    tell("withdraw", "hospital-b", "--from-round", 1, *lead)
    tell("export", "--to", stick, *lead)
    tell("import", stick, "--yes", "--workspace", site.root)
    tell("finish", "--round", 1, *lead)
    tell("revoke", "hospital-b", "--yes", *lead)
    tell("archive", small.root / "archive", *lead)
    tell("audit", small.root / "archive")
    tell("report", *lead)


def cases_of_a_site(tell: Story, small: Small, root: Path) -> None:
    """From scans to a purge."""
    site = small.sites["hospital-b"]
    at = ("--workspace", site.root)
    for number in range(2):
        name = f"Brats18_TCIA0{number}_606_1"
        write_case_folder(root / "scans", name, seed=number, tumour_radius_mm=10 + number)
    tell("check", root / "scans", "--labels", "brats2017", "--out", root / "checked")
    tell("preprocess", root / "scans", "--labels", "brats2017", "--dry-run", *at)
    tell("preprocess", root / "scans", "--labels", "brats2017", *at)
    tell("split", *at)
    held = ReviewRow(case="0" * 16, name="odd", verdict=Verdict.HELD)
    review.merge(site.data, [held])
    tell("review", *at)
    tell("review", "odd", "--accept", *at)
    maps = ("--predictions", root / "found", "--truth", root / "truth")
    put(root / "truth", "one", a_map(12))
    put(root / "found", "one", a_map(11))
    tell("evaluate", *maps, "--labels", "brats2017", "--out", root / "scores.csv")
    patients = a_site_with_patients(small.sites["hospital-a"])
    at = ("--workspace", patients.root)
    tell("exclude", "anna-2019", "--reason", "withdrawn", "--yes", *at)
    tell("purge", "--reason", "ended", "--yes", *at)


def a_release(tell: Story, small: Small) -> None:
    """The page, and the approval."""
    site = small.sites["hospital-a"]
    at = ("--workspace", site.root)
    train(site)
    tell("release", *at)
    key = approver(small).key_path
    tell("release", "--approve", "--key", key, "--who", "Dr. Who", "--yes", *at)


def test_the_result_of_every_quick_command_fits_its_schema(tell: Story, tmp_path: Path) -> None:
    before_the_start(tell, tmp_path)
    rounds_at_the_coordinator(tell, a_waiting_federation(tmp_path / "closing"))
    cases_of_a_site(tell, a_federation(tmp_path / "cases"), tmp_path)
    a_release(tell, an_approving_federation(tmp_path / "approving"))
    assert tell.told == commands() - SLOW


@pytest.mark.slow
def test_the_result_of_every_slow_command_fits_its_schema(tell: Story, tmp_path: Path) -> None:
    site = a_joined_site(tmp_path / "site", a_quick_plan())
    at = ("--workspace", site.root)
    assert tell("train-round", "--device", "cpu", "--threads", 1, *at).json["n_steps"] == 3
    tell("evaluate", "--threads", 1, *at)
    tell("doctor", *at)
    tell("drill", *at)
    tell("drill", "--clear", *at)
    plan = tmp_path / "plan.toml"
    plan.write_text(plans.render(a_simulated_plan(rounds=1)))
    scans = write_simulated_scans(tmp_path / "scans")
    words = (plan, "--data", scans, "--labels", "brats2017", "--out", tmp_path / "compared")
    tell("simulate", "partition", *words)
    methods = ("--methods", "fl", "--seeds", 1, "--jobs", 1, "--device", "cpu")
    tell("simulate", *words, *methods, "--dry-run")
    tell("simulate", *words, *methods)
    write_scans(tmp_path / "new", "p1", a_geometry())
    weights = an_outsider(tmp_path).weights
    out = tmp_path / "out"
    tell("predict", weights, tmp_path / "new", out, "--labels", "whole-tumour", "--device", "cpu")
    tell("demo", "--scans-only", "--out", tmp_path / "demo")
    tell("demo", "--out", tmp_path / "whole-demo")
    assert tell.told == SLOW | {"evaluate"}
