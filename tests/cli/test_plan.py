"""`plan show`, `plan check`, and the plan in words."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed import plan as plans
from brainfed.cli.plan_words import plan_in_words
from brainfed.plan import Cohort, Modality, Region, Treatment
from tests.builders import a_plan
from tests.cli.typed import Typed, too_wide


def words_of(plan: plans.Plan) -> str:
    return " ".join(str(part) for part in plan_in_words(plan))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text('name = "mine"\n[scans]\nrequired = ["flair", "t1"]\n')
    return path


def test_show_prints_a_plan_that_is_complete_and_reads_as_itself(typed: Typed, path: Path) -> None:
    shown = typed("plan", "show", path).out
    assert plans.parse(shown.encode()) == plans.load(path)
    assert all(f"{key.split('.')[-1]} = " in shown for key in plans.known_keys())


def test_show_prints_json(typed: Typed, path: Path) -> None:
    content = typed("plan", "show", path, "--json").json
    assert content["plan"]["scans"]["required"] == ["flair", "t1"]
    assert content["digest"] == plans.plan_digest(plans.load(path))


def test_check_says_what_a_site_is_asked_to_agree_to(typed: Typed, path: Path) -> None:
    answer = typed("plan", "check", path)
    assert answer.code == 0
    assert "a sound plan" in " ".join(answer.out.split())
    assert plans.plan_digest(plans.load(path)) in answer.out
    assert too_wide(answer.out) == []
    assert typed("plan", "check", path, "--json").json["n_parameters"] > 1_000_000


@pytest.mark.parametrize("command", ["show", "check"])
def test_a_misspelt_key_is_named_with_the_nearest_right_one(
    typed: Typed, path: Path, command: str
) -> None:
    path.write_text('name = "mine"\nround = 3\n')
    answer = typed("plan", command, path)
    assert answer.code == 4
    assert answer.out == ""
    assert "`round`" in answer.err
    assert "`rounds`?" in answer.err


def test_a_plan_that_is_not_there_is_an_error_of_the_plan(typed: Typed, path: Path) -> None:
    assert typed("plan", "check", path.with_name("nowhere.toml")).code == 4


def test_words_name_regions_images_and_the_smallest_group() -> None:
    plan = a_plan(
        scans={"required": ("flair",), "optional": ("t2",), "regions": ("WT", "ET")},
        participation={"floor": 5},
        terms={"weights_licence": "CC-BY-4.0"},
    )
    words = words_of(plan)
    for told in ("the whole tumour (WT)", "the enhancing tumour (ET)", "may be missing: t2"):
        assert told in words
    assert "at least 5 patients" in words
    assert "CC-BY-4.0" in words


def test_words_say_what_stays_local_and_what_it_costs(typed: Typed, path: Path) -> None:
    words = words_of(a_plan(network={"local": ("head.bias", "head.weight")}))
    assert "1,657 weights, 6.6 kB a file" in words
    assert "2 tensors of it (5 weights) never leave a site" in words
    assert "head.bias, head.weight." in words
    assert "can't be run without them" in words
    assert "never leave a site" not in words_of(a_plan())
    with path.open("a") as plan:
        plan.write('[network]\nlocal = ["head.bias", "head.weight"]\n')
    told = typed("plan", "check", path, "--json").json
    assert told["n_local"] == 33


def test_words_warn_of_a_floor_of_one() -> None:
    assert "even where they stand for two patients" in words_of(a_plan(participation={"floor": 1}))


@given(
    treatment=st.sampled_from(Treatment),
    regions=st.lists(st.sampled_from(Region), min_size=1, unique=True),
    modalities=st.lists(st.sampled_from(Modality), min_size=1, unique=True),
    steps=st.sampled_from([0, 7]),
)
def test_every_plan_has_words_that_claim_no_anonymity(
    treatment: Treatment, regions: list[Region], modalities: list[Modality], steps: int
) -> None:
    plan = a_plan(
        cohort=Cohort(treatment=treatment).model_dump(),
        scans={"required": (), "optional": tuple(modalities), "regions": tuple(regions)},
        training={"steps_per_round": steps, "epochs_per_round": 0 if steps else 2},
    )
    words = words_of(plan)
    assert all(region in words for region in regions)
    assert "anonym" not in words
    assert "No check of numbers proves" in words


def test_the_cost_of_a_federation_is_trips_days_and_megabytes(typed: Typed, path: Path) -> None:
    path.write_text('name = "mine"\nrounds = 20\n[scans]\nrequired = ["flair"]\n')
    asked = ("plan", "cost", path, "--sites", "10", "--courier-days", "1.5")
    found = typed(*asked, "--json").json
    assert (found["method"], found["rounds"], found["passes"]) == ("fl", 20, 20)
    assert (found["hand_overs"], found["scoring_hand_overs"]) == (400, 0)
    assert found["weight_bytes"] == 4 * 7_846_081
    assert found["bytes_carried"] == 400 * found["weight_bytes"]
    assert found["days"] == 1.5 * 41
    words = typed(*asked)
    assert words.code == 0
    assert "400, of 31.4 MB each" in words.out
    assert "61.5 days" in words.out
    assert too_wide(words.out) == []


def test_in_a_relay_every_turn_is_a_round_and_couriers_go_one_after_the_other(
    typed: Typed, path: Path
) -> None:
    path.write_text('name = "mine"\nmethod = "ciil"\nrounds = 80\n')
    found = typed("plan", "cost", path, "--sites", "4", "--courier-days", "1", "--json").json
    assert (found["hand_overs"], found["scoring_hand_overs"], found["passes"]) == (160, 80, 20)
    assert found["days"] == 161
    assert "turns" in typed("plan", "cost", path, "--sites", "4").out


def test_without_a_number_of_sites_the_plans_quorum_counts(typed: Typed, path: Path) -> None:
    path.write_text('name = "mine"\nrounds = 5\n[participation]\nquorum_sites = 3\n')
    assert typed("plan", "cost", path, "--json").json["hand_overs"] == 2 * 3 * 5


@pytest.mark.parametrize(
    "wrong", [("--sites", "0"), ("--courier-days", "-1"), ("--courier-days", "nan")]
)
def test_no_sites_and_days_that_are_no_number_are_refused(
    typed: Typed, path: Path, wrong: tuple[str, str]
) -> None:
    assert typed("plan", "cost", path, *wrong).code == 2
