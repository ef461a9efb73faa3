"""`brainfed evaluate` as it is typed: weights, ready label maps, words, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from brainfed.formats import dataset, ledger, rounds
from brainfed.formats.workspace import Workspace
from brainfed.steps.train import train_round
from tests.cli.typed import Answer, Typed, too_wide
from tests.steps.joined import a_joined_site, finished
from tests.steps.test_score_maps import a_map, put


@pytest.fixture
def site(tmp_path: Path) -> Workspace:
    return a_joined_site(tmp_path, n_validation=6)


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    folder = tmp_path / "maps"
    folder.mkdir()
    for n in range(5):
        put(folder / "truth", f"Patient-0000{n}-000_seg", a_map(12 + n))
        put(folder / "found", f"Patient-0000{n}-000", a_map(11 + n, shift_mm=n))
    return folder


def evaluate(typed: Typed, site: Workspace, *words: object, answers: str | None = None) -> Answer:
    return typed("evaluate", *words, "--workspace", site.root, "--threads", "1", answers=answers)


def of_maps(folder: Path, *more: object) -> list[object]:
    words = ["evaluate", "--predictions", folder / "found", "--truth", folder / "truth"]
    return [*words, "--labels", "brats2017", *more]


def flat(text: str) -> str:
    return " ".join(text.split())


def test_evaluate_prints_the_telling_measures_and_what_stays_and_what_leaves(
    typed: Typed, site: Workspace
) -> None:
    answer = evaluate(typed, site)
    assert answer.code == 0
    assert too_wide(answer.out) == []
    for measure in ("Dice", "HD95 surface, mm", "NSD within 1 mm", "lesion-wise Dice"):
        assert measure in answer.out
    assert " to " in answer.out  # an interval
    assert "374 mm" in answer.out
    assert "Lowest Dice of patients, WT" in answer.out
    assert "For this site alone" in answer.out
    assert "brainfed export" in answer.out
    as_json = evaluate(typed, site, "--json").json
    assert Path(as_json["report_path"]).is_file()
    assert Path(as_json["score_path"]).is_file()
    assert len(as_json["rows"]) == as_json["n_cases"] == 6
    assert len(as_json["pictures"]) == 3
    assert as_json["intervals"][0].keys() >= {"low", "high"}


def opened(place: Workspace) -> int:
    lines = ledger.read(place.ledger_path)
    return sum(line["event"] == ledger.Event.OPENED_TEST for line in lines)


def test_the_test_patients_are_opened_only_after_a_yes(typed: Typed, site: Workspace) -> None:
    words = ("--subset", "test")
    too_early = evaluate(typed, site, *words)
    assert too_early.code == 3
    assert "brainfed finish" in flat(too_early.err)
    assert "only once" not in too_early.err  # nobody was asked
    finished(site)
    unasked = evaluate(typed, site, *words)
    assert unasked.code == 2
    assert "--yes" in unasked.err
    declined = evaluate(typed, site, *words, answers="n\n")
    assert declined.code == 2
    assert opened(site) == 0
    confirmed = evaluate(typed, site, *words, answers="y\n")
    assert confirmed.code == 0
    assert "ledger" in confirmed.err
    by_script = evaluate(typed, site, *words, "--yes", "--json")
    assert by_script.json["subset"] == "test"
    assert opened(site) == 2


def test_two_weight_files_are_compared_in_a_table(typed: Typed, site: Workspace) -> None:
    update = train_round(site, threads=1).update.path
    answer = evaluate(typed, site, "--against", update)
    assert answer.code == 0
    assert too_wide(answer.out) == []
    assert "Less the scores of: Round 1, update weights of hospital-a" in answer.out
    assert "Wilcoxon" in answer.out
    assert "effect" in answer.out


def test_weights_that_are_not_global_leave_nothing_to_send(typed: Typed, site: Workspace) -> None:
    update = train_round(site, threads=1).update.path
    answer = evaluate(typed, site, "--weights", update)
    assert "Nothing of this leaves the site" in flat(answer.out)
    assert not list(site.rounds.glob("*/*.scores.json"))


def test_a_round_is_named_by_its_number(typed: Typed, site: Workspace) -> None:
    assert evaluate(typed, site, "--round", "0").code == 0
    there_is_none = evaluate(typed, site, "--round", "3")
    assert there_is_none.code == 3
    assert "round 3" in there_is_none.err


def test_nominal_spacing_is_said_in_clear_words(typed: Typed, site: Workspace) -> None:
    index = dataset.read_whole_index(site.data)
    entries = []
    for entry in index.cases:
        path = dataset.case_path(site.data, entry.id)
        case = replace(dataset.read_case(path), spacing_nominal=True)
        digest = dataset.write_case(path, case)
        entries.append(replace(entry, digest=digest, spacing_nominal=True))
    dataset.write_index(site.data, replace(index, cases=tuple(entries)))
    answer = evaluate(typed, site)
    assert "a convention, not a measurement: no mm, no ml" in flat(answer.out)
    assert "HD95" not in answer.out
    assert "374" not in answer.out


def test_native_space_needs_the_table_of_scans(typed: Typed, site: Workspace) -> None:
    answer = evaluate(typed, site, "--space", "native")
    assert answer.code == 3
    assert "brainfed check" in answer.err


def test_ready_label_maps_need_no_workspace(typed: Typed, maps: Path) -> None:
    (maps / "found" / "Patient-00003-000.nii.gz").unlink()
    put(maps / "found", "stranger", a_map())
    answer = typed(*of_maps(maps))
    assert answer.code == 0
    assert too_wide(answer.out) == []
    assert "1 case without a prediction" in flat(answer.out)
    assert "Patient-00003-000" in answer.out
    assert "1 prediction without a truth, not scored: stranger" in flat(answer.out)
    assert "makes no score file of ready label maps" in flat(answer.out)
    assert Path("scores.csv").stat().st_mode & 0o777 == 0o600
    as_json = typed(*of_maps(maps, "--out", maps / "mine.csv", "--jobs", "2", "--json"))
    assert as_json.json["missing"] == ["Patient-00003-000"]
    assert Path(as_json.json["report_path"]) == maps / "mine.csv"


def test_in_a_site_s_workspace_they_are_scored_by_its_plan_and_lie_in_its_reports(
    typed: Typed, site: Workspace, maps: Path
) -> None:
    answer = typed(*of_maps(maps, "--workspace", site.root, "--json"))
    assert answer.json["has_plan"] is True
    assert answer.json["regions"] == ["WT"]
    assert Path(answer.json["report_path"]).parent == site.reports
    again = typed(*of_maps(maps, "--workspace", site.root))
    assert "by the plan's rules" in flat(again.out)
    assert len(list(site.reports.glob("*.csv"))) == 1


def test_label_maps_on_another_grid_end_with_5_and_both_grids(typed: Typed, maps: Path) -> None:
    put(maps / "found", "Patient-00001-000", a_map()[:, 2:])
    answer = typed(*of_maps(maps))
    assert answer.code == 5
    assert "size 30, 30, 12" in flat(answer.err)
    assert "size 30, 28, 12" in flat(answer.err)
    assert "--resample" in answer.err
    assert typed(*of_maps(maps, "--resample")).code == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--weights", "w", "--round", "1"), "named twice"),
        (("--predictions", "p"), "--truth FOLDER"),
        (("--truth", "t", "--labels", "msd"), "--predictions FOLDER"),
        (("--predictions", "p", "--truth", "t"), "--labels PROTOCOL"),
        (("--predictions", "p", "--truth", "t", "--labels", "msd", "--round", "0"), "--round is"),
        (("--predictions", "p", "--truth", "t", "--subset", "test"), "--subset is for weights"),
        (("--out", "a.csv", "--resample"), "--out and --resample are for ready label maps"),
        (("--spacing-nominal",), "--spacing-nominal is for ready label maps"),
    ],
)
def test_options_that_don_t_go_together_end_with_2(
    typed: Typed, words: tuple[str, ...], named: str
) -> None:
    answer = typed("evaluate", *words)
    assert answer.code == 2
    assert named in flat(answer.err)


def test_the_newest_global_weights_are_taken_where_none_are_named(
    typed: Typed, site: Workspace
) -> None:
    answer = evaluate(typed, site, "--json")
    path = rounds.global_path(site, 0)
    assert answer.json["weights"]["path"] == str(path)
