"""`brainfed simulate` as people type it: what it refuses, before anything is trained or written."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from brainfed import plan as plans
from brainfed.core.contenders import Contender
from brainfed.formats import simulation
from brainfed.plan import Plan
from brainfed.steps.simulation_setting import set_up
from tests.cli.typed import Answer, Typed, too_wide
from tests.small_simulation import SITES, a_request, a_simulated_plan, write_scans

LABELS = ("--labels", "brats2017", "--device", "cpu", "--jobs", "1")


class Place:
    """Scans, a plan, and a results folder whose cases are prepared already."""

    def __init__(self, root: Path) -> None:
        self.root, self.out = root, root / "out"
        self.scans = write_scans(root / "scans")
        self.plan = self.write_plan("plan.toml", a_simulated_plan())
        set_up(self.out, a_request(self.scans))
        self.patients = sorted(path.name for path in self.scans.glob("*/*"))

    def write_plan(self, name: str, plan: Plan) -> Path:
        path = self.root / name
        path.write_text(plans.render(plan))
        return path

    def table(self, name: str, *lines: str, header: str = "Partition_ID,Subject_ID") -> Path:
        """A CSV of these lines besides the sites of the folders."""
        path = self.root / name
        rows = [f"{patient.parent.name},{patient.name}" for patient in self.scans.glob("*/*")]
        path.write_text("\n".join([header, *sorted(rows), *lines]) + "\n")
        return path

    def seen(self) -> list[Path]:
        return sorted(self.out.rglob("*"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("simulate"))


def refused(typed: Typed, place: Place, *words: object, scans: Path | None = None) -> Answer:
    """What a simulation says that leaves nothing behind."""
    before = place.seen()
    plan = place.plan
    if words and isinstance(words[0], Path):
        plan, words = words[0], words[1:]
    answer = typed(
        "simulate", plan, "--data", scans or place.scans, *LABELS, "--out", place.out, *words
    )
    assert answer.code != 0
    assert "Traceback" not in answer.err
    assert place.seen() == before
    assert too_wide(answer.err) == []
    return answer


def said(answer: Answer) -> str:
    return " ".join(answer.err.split())


@pytest.mark.parametrize(
    ("words", "code", "found"),
    [
        (["--seeds", 2, "--folds", 2], 2, "Either seeds or folds"),
        (["--epochs", "1,two"], 2, "--epochs"),
        (["--epochs", "0"], 2, "--epochs"),
        (["--rates", "0.1,,0.2"], 2, "--rates"),
        (["--rates", "-1"], 2, "--rates"),
        (["--rates", "nan"], 2, "--rates"),
        (["--rates", "0.01,inf"], 4, "training.rate"),
        (["--rates", "11"], 4, "training.rate"),
        (["--methods", "fl,federated"], 2, "--methods"),
        (["--methods", ""], 2, "--methods"),
        (["--epochs", "3"], 4, "3 epochs a round"),
        (["--partition", "thirds"], 2, "kind of partition"),
        (["--partition", "equal"], 2, "kind of partition"),
        (["--partition", "equal:1"], 2, "kind of partition"),
        (["--partition", "equal:20"], 2, "at most 7 with these patients"),
        (["--partition", "size-skew:9"], 2, "so many sites"),
        (["--partition", "label-skew:19"], 2, "so many sites"),
        (["--partition", "brats2018"], 5, "phantom-a01"),
        (["--partition", "absent.csv"], 5, "can't be read"),
        (["--folds", 6], 2, "hospital-b: 5"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(
    typed: Typed, place: Place, words: Sequence[object], code: int, found: str
) -> None:
    answer = refused(typed, place, *words)
    assert answer.code == code
    assert found in said(answer)


@pytest.mark.parametrize(
    ("header", "lines", "found"),
    [
        ("Partition_ID,Subject_ID", ["hospital-a,phantom-z99"], "phantom-z99 (line 21)"),
        ("Partition_ID,Subject_ID", ["hospital-a,phantom-a01"], "twice"),
        ("Partition_ID,Subject_ID", ["hospital-b,phantom-a01"], "at two sites"),
        ("Site,Patient", [], "header"),
        ("\ufeffPartition_ID,Subject_ID", [], "byte-order mark"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    typed: Typed, place: Place, header: str, lines: Sequence[str], found: str
) -> None:
    table = place.table("bad.csv", *lines, header=header)
    answer = refused(typed, place, "--partition", table)
    assert answer.code == 5
    assert found in said(answer)
    assert "bad.csv" in answer.err


def test_a_table_that_lacks_a_patient_is_refused(typed: Typed, place: Place) -> None:
    table = place.table("short.csv")
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    answer = refused(typed, place, "--partition", table)
    assert answer.code == 5
    assert place.patients[-1] in said(answer)


def with_subsets(place: Place, **words: str) -> Path:
    """A table in which the patients of a site are in one subset, else the first to validate."""
    lines, path = ["Partition_ID,Subject_ID,TrainOrVal"], place.root / "subsets.csv"
    for site in SITES:
        for number, patient in enumerate(sorted((place.scans / site).iterdir())):
            word = words.get(site.replace("-", "_"), "train" if number else "val")
            lines.append(f"{site},{patient.name},{word}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_site_without_anybody_to_train_on_is_refused(typed: Typed, place: Place) -> None:
    answer = refused(typed, place, "--partition", with_subsets(place, hospital_b="val"))
    assert answer.code == 5
    assert "hospital-b (5)" in said(answer)


def test_nobody_to_validate_on_is_refused_and_in_iil_at_a_single_site_too(
    typed: Typed, place: Place
) -> None:
    nobody = dict.fromkeys(("hospital_a", "hospital_b", "hospital_c"), "train")
    answer = refused(typed, place, "--partition", with_subsets(place, **nobody))
    assert answer.code == 5
    assert "Nobody is left for validation" in said(answer)
    answer = refused(typed, place, "--partition", with_subsets(place, hospital_b="train"))
    assert answer.code == 5
    assert "iil" in said(answer)
    assert "none at hospital-b" in said(answer)


@pytest.mark.parametrize("partition", ["circle:4", "there-is-no.csv"])
def test_a_partition_that_can_never_be_is_refused_before_any_scan_is_read(
    typed: Typed, place: Place, tmp_path: Path, partition: str
) -> None:
    words = ("--data", place.scans, "--labels", "brats2017", "--out", tmp_path / "out")
    for command in (("simulate",), ("simulate", "partition")):
        answer = typed(*command, place.plan, *words, "--partition", partition)
        assert answer.code in {2, 5}
        assert partition in said(answer)
        assert not (tmp_path / "out").exists()


def test_a_patient_in_the_folders_of_two_sites_is_refused(
    typed: Typed, place: Place, tmp_path: Path
) -> None:
    scans = tmp_path / "scans"
    shutil.copytree(place.scans, scans)
    shutil.copytree(scans / "hospital-a/phantom-a01", scans / "hospital-c/phantom-a01")
    answer = typed(
        "simulate", place.plan, "--data", scans, *LABELS, "--out", tmp_path / "out", "--dry-run"
    )
    assert answer.code == 5
    assert "phantom-a01 in hospital-a and in hospital-c" in said(answer)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cases"]


def test_a_site_with_the_name_of_the_coordinator_is_refused(
    typed: Typed, place: Place, tmp_path: Path
) -> None:
    scans = tmp_path / "scans"
    shutil.copytree(place.scans, scans)
    (scans / "hospital-a").rename(scans / "lead")
    answer = typed("simulate", place.plan, "--data", scans, *LABELS, "--out", tmp_path / "out")
    assert answer.code == 5
    assert "which is its coordinator's" in said(answer)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cases"]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"training": {"epochs_per_round": 0, "steps_per_round": 5}}, "steps_per_round = 5"),
        (
            {"network": {"architecture": "external", "tensors": ("w F32 2",), "channels": (4, 8)}},
            "external",
        ),
        ({"rounds": 4000}, "rounds"),
    ],
    ids=["counts steps", "network of the sites' own", "cycles without end"],
)
def test_a_plan_that_cannot_be_simulated_is_refused(
    typed: Typed, place: Place, changes: dict[str, Any], found: str
) -> None:
    plan = place.write_plan("other.toml", a_simulated_plan(**changes))
    answer = refused(typed, place, plan)
    assert answer.code == 4
    assert found in said(answer)


def test_a_results_folder_of_another_simulation_is_refused(
    typed: Typed, place: Place, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(place.out, out)
    request = a_request(place.scans, contenders=(Contender.FL,))
    simulation.write_settings(out, set_up(out, request).settings)
    before = sorted(out.rglob("*"))
    other = place.write_plan("another.toml", a_simulated_plan(seed=9))
    one = ("--methods", "fl", "--seeds", 1, "--precision", "float32")
    for plan, words, found in [
        (other, one, "another plan"),
        (place.plan, (*one[:-3], 2, *one[-2:]), "--seeds or --folds"),
        (place.plan, (*one, "--rates", "0.02"), "--rates"),
        (place.plan, ("--methods", "fl,ciil", *one[2:]), "--methods"),
    ]:
        answer = typed("simulate", plan, "--data", place.scans, *LABELS, "--out", out, *words)
        assert answer.code == 6
        assert found in said(answer).partition("found: ")[2]
        assert "--out" in answer.err
        assert sorted(out.rglob("*")) == before


def test_a_partition_is_written_read_back_and_never_over_a_file(
    typed: Typed, place: Place, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(place.out, out)
    words = ("--data", place.scans, "--labels", "brats2017", "--out", out)
    told = typed("simulate", "partition", place.plan, *words, "--partition", "equal:3", "--json")
    assert told.code == 0
    assert {sum(counts.values()) for counts in told.json["sites"].values()} == {6, 7}
    table = out / "partition.csv"
    before = table.read_bytes()
    again = typed("simulate", "partition", place.plan, *words, "--partition", "equal:2")
    assert again.code == 6
    assert table.read_bytes() == before
    setting = set_up(out, a_request(place.scans, partition=str(table)))
    assert [s.n_train + s.n_validation + s.n_test for s in setting.settings.sites[0]] == [
        sum(counts.values()) for _, counts in sorted(told.json["sites"].items())
    ]


def test_a_simulation_ends_with_a_page_and_a_table_of_every_method(
    typed: Typed, place: Place, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(place.out, out)
    words = ("--data", place.scans, *LABELS, "--out", out, "--methods", "fl,average-once")
    plan = place.write_plan("short.toml", a_simulated_plan(rounds=1))
    told = typed("simulate", plan, *words, "--seeds", 1, "--json")
    assert told.code == 0, told.err
    assert told.json["n_runs"] == 2
    assert [row["method"] for row in told.json["methods"]] == [
        "fl, 1 epoch a round",
        "average-once",
    ]
    assert (out / "report.html").stat().st_size > 10_000
    assert "100 %: " in told.err
    shown = typed("simulate", plan, *words, "--seeds", 1)
    assert shown.code == 0
    assert "2 runs, each audited" in shown.out
    # The path of this test is too long for a line, and a command isn't broken.
    assert all("brainfed audit" in line for line in too_wide(shown.out))
    audited = typed("audit", out / "runs" / "once-rate-0.03-repeat-1" / "lead")
    assert audited.code == 0
