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
