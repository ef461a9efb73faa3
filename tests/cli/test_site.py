"""A site's own commands, from scans to an update: `cli.data` and `cli.training`."""

from pathlib import Path

import pytest

from brainfed.formats import dataset, rounds
from brainfed.formats.workspace import Workspace
from tests.builders import write_case_folder
from tests.cli.typed import Typed, too_wide
from tests.federation import a_federation
from tests.steps.joined import a_joined_site, a_quick_plan


@pytest.fixture
def site(tmp_path: Path) -> Workspace:
    return a_federation(tmp_path / "federation").sites["hospital-a"]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for number in range(4):
        name = f"Brats18_TCIA0{number}_606_1"
        radius_mm = 10 + number  # two equal outlines would be one case under two names
        write_case_folder(tmp_path / "scans", name, seed=number, tumour_radius_mm=radius_mm)
    return tmp_path / "scans"


def preprocess_words(site: Workspace, scans: Path, *more: str) -> list[object]:
    return ["preprocess", scans, "--labels", "brats2017", "--workspace", site.root, *more]


def test_preprocess_prints_a_line_for_each_case_and_keeps_what_is_made(
    typed: Typed, site: Workspace, scans: Path
) -> None:
    answer = typed(*preprocess_words(site, scans))
    assert answer.code == 0
    assert answer.out.count("made") == 4
    assert too_wide(answer.out) == []
    again = typed(*preprocess_words(site, scans, "--json"))
    assert [row["status"] for row in again.json["rows"]] == ["kept"] * 4


def test_a_refused_case_is_in_the_table_and_the_command_ends_with_5(
    typed: Typed, site: Workspace, scans: Path
) -> None:
    next(scans.glob("*03*/*_flair*")).unlink()
    answer = typed(*preprocess_words(site, scans))
    assert answer.code == 5
    assert answer.out.count("made") == 3
    assert "Missing: flair" in " ".join(answer.out.split())
    assert "--skip-incomplete" in answer.err
    as_json = typed(*preprocess_words(site, scans, "--json"))
    assert as_json.code == 5
    assert as_json.json["error"]["kind"] == "RefusedCasesError"
    assert len(as_json.json["rows"]) == 4
    assert typed(*preprocess_words(site, scans, "--skip-incomplete")).code == 0


def test_an_empty_folder_of_scans_ends_with_5(
    typed: Typed, site: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    answer = typed(*preprocess_words(site, tmp_path / "empty"))
    assert answer.code == 5


def test_split_prints_the_parts(typed: Typed, site: Workspace, scans: Path) -> None:
    typed(*preprocess_words(site, scans))
    answer = typed("split", "--workspace", site.root)
    assert answer.code == 0
    assert {"train", "validation", "test"} <= set(answer.out.split())
    again = typed("split", "--workspace", site.root, "--json")
    assert again.json["n_joined"] == 0
    assert again.json["split_digest"] == dataset.split_digest(site.data)


def test_split_before_preprocess_says_what_to_do(typed: Typed, site: Workspace) -> None:
    answer = typed("split", "--workspace", site.root)
    assert answer.code == 3
    assert "brainfed preprocess" in answer.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return a_joined_site(tmp_path_factory.mktemp("trained"), a_quick_plan())


def test_train_round_prints_dice_before_and_after_and_trains_once(
    typed: Typed, trained: Workspace
) -> None:
    words = ("train-round", "--workspace", trained.root, "--device", "cpu", "--threads", "1")
    answer = typed(*words)
    assert answer.code == 0
    assert "Round 1: 3 steps" in answer.out
    assert "weights that came" in answer.out
    assert too_wide(answer.out) == []
    again = typed(*words, "--json")
    assert again.json["already"] is True
    assert again.json["update"]["manifest"]["sender"] == "hospital-a"
    assert rounds.numbers(trained) == [0, 1]


def test_train_round_on_a_device_that_is_not_there_ends_with_8(
    typed: Typed, trained: Workspace
) -> None:
    answer = typed("train-round", "--workspace", trained.root, "--device", "abacus")
    assert answer.code == 8
    assert "cpu" in answer.err
