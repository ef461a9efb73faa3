"""`brainfed drill` and `brainfed doctor` as typed."""

from pathlib import Path

from brainfed import plan as plans
from brainfed.formats import dataset
from brainfed.formats.roster import Role
from tests.cli.typed import Typed, too_wide
from tests.federation import a_workspace
from tests.steps.test_drill import SITE, a_site, a_small_plan, an_external_plan


def test_a_drill_tells_at_each_end_to_whom_the_medium_goes(typed: Typed, tmp_path: Path) -> None:
    coordinator, site = a_site(tmp_path, an_external_plan(tmp_path / "own"))
    medium = tmp_path / "stick"
    medium.mkdir()
    answers = [
        typed("drill", medium, "--workspace", place.root)
        for place in (site, coordinator, site, coordinator, site)
    ]
    assert [answer.code for answer in answers] == [0] * 5
    to = [" ".join(answer.out.split()).partition(f"{medium} to ")[2] for answer in answers[:4]]
    assert [words.split(",")[0] for words in to] == ["the coordinator", SITE] * 2
    assert "Then bring it back" not in answers[3].out
    assert "checks worked" in answers[4].out and "doesn't show" in answers[4].out
    assert all(too_wide(answer.out) == [] for answer in answers)
    told = typed("drill", "--workspace", site.root, "--json").json
    assert told["rehearsals"][0]["is_finished"]
    gone = typed("drill", "--clear", "--workspace", site.root, "--json")
    assert gone.json["was_there"] and not site.drill.exists()
    assert "no drill here" in typed("drill", "--clear", "--workspace", site.root).out


def test_a_drill_that_fails_ends_with_the_code_of_what_failed(typed: Typed, tmp_path: Path) -> None:
    _, site = a_site(tmp_path)
    dataset.split_path(site.data).unlink()
    answer = typed("drill", "--workspace", site.root)
    assert answer.code == 3
    assert "Failed: site: find cases and split" in answer.out and "brainfed split" in answer.out
    told = typed("drill", "--workspace", site.root, "--json")
    assert told.code == 3
    assert told.json["rehearsals"][0]["failed"]["error"]["kind"] == "NotReadyError"
    with_plan = typed("drill", "--clear", "--plan", "plan.toml", "--workspace", site.root)
    assert with_plan.code == 2


def test_the_doctor_answers_in_words_and_json(typed: Typed, tmp_path: Path) -> None:
    place = a_workspace(tmp_path / "hospital-a", Role.SITE, "hospital-a")
    before = sorted(place.root.rglob("*"))
    answer = typed("doctor", "--workspace", place.root, "--device", "cpu")
    assert answer.code == 0 and "Nothing is bad." in answer.out
    assert too_wide(answer.out) == []
    bad = tmp_path / "plan.toml"
    bad.write_text(plans.render(a_small_plan(terms={"minimum_version": "99.0.0"})))
    options = ("--plan", bad, "--workspace", place.root, "--device", "cpu", "--json")
    answer = typed("doctor", *options)
    assert answer.code == 8 and answer.json["folder"] == str(place.root)
    assert [c["what"] for c in answer.json["checks"] if c["health"] == "bad"] == ["brainfed"]
    assert sorted(place.root.rglob("*")) == before
