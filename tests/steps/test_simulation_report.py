"""The page of a simulation, its table of scores and its claims."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest

from brainfed import plan as plans
from brainfed.core.contenders import Contender
from brainfed.errors import ConflictError, NotReadyError
from brainfed.formats import simulation
from brainfed.formats.report_page import FIRST_LINE, PATIENT_FIGURES, Cell, Table
from brainfed.formats.simulation_findings import COLUMNS, read_claims
from brainfed.steps import simulation_tables
from brainfed.steps.simulation_arms import Protocol
from brainfed.steps.simulation_costs import costs
from brainfed.steps.simulation_report import Written, what_it_is_not, write_report
from brainfed.steps.simulation_results import Simulation, read
from tests.formats.test_report_page import Read
from tests.simulated import SITES, Asked, a_simulation, simulated_plan

N_PATIENTS = sum(SITES.values())
PLANS = Path(__file__).resolve().parents[2] / "plans"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("simulated")
    a_simulation(made, epochs=(1, 2), rates=(0.001, 0.003))
    return made


@pytest.fixture(scope="module")
def done(folder: Path) -> Written:
    return write_report(folder)


@pytest.fixture(scope="module")
def page(done: Written) -> Read:
    return Read(done.page.read_bytes())


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def cells_of(table: Table) -> dict[str, list[str]]:
    """The texts of each row by its header, in small print too."""
    rows = [[cell if isinstance(cell, str) else _text(cell) for cell in row] for row in table.rows]
    return {row[0]: row[1:] for row in rows}


def _text(cell: Cell) -> str:
    return f"{cell.text} ({cell.small})" if cell.small else cell.text


# --- the table of scores ------------------------------------------------------------------------


def test_every_score_of_every_run_is_a_row(done: Written, folder: Path) -> None:
    rows = lines_of(done.csv)
    assert tuple(rows[0]) == COLUMNS
    n_scores = sum(
        sum(len(point.validation) for point in outcome.points) + len(outcome.test)
        for result in simulation.read_results(folder)
        for outcome in result.outcomes
    )
    assert len(rows) == n_scores


def test_a_row_says_what_was_scored_with_which_weights(done: Written, folder: Path) -> None:
    result = simulation.read_result(folder, "fl-2-epochs-rate-0.001-repeat-2")
    assert result is not None
    score = result.outcomes[0].points[2].validation[0]
    wanted = {
        "run": "fl-2-epochs-rate-0.001-repeat-2",
        "contender": "fl",
        "epochs": "2",
        "repeat": "2",
        "rate": "0.001",
        "weights_of": "",
        "round": "2",
        "passes": "4",
        "hand_overs": "12",
        "chosen": "yes",
        "subset": "validation",
        "site": score.site,
        "patient": score.patient,
        "region": "WT",
        "dice": f"{score.dice:.6f}",
        "soft_slice_dice": f"{score.soft_slice_dice:.6f}",
    }
    rows = lines_of(done.csv)
    assert rows.count(wanted) == 1
    mine = [row for row in rows if row["run"] == wanted["run"] and row["subset"] == "validation"]
    assert {(row["round"], row["chosen"]) for row in mine} == {
        ("0", "no"),
        ("1", "no"),
        ("2", "yes"),
    }


def test_test_patients_have_rows_for_the_chosen_weights_alone(done: Written) -> None:
    rows = [row for row in lines_of(done.csv) if row["run"].endswith("rate-0.001-repeat-1")]
    for contender in Contender:
        mine = [row for row in rows if row["contender"] == contender]
        tested = [row for row in mine if row["subset"] == "test"]
        n_weights = len(SITES) if contender is Contender.LOCAL else 1
        n_epochs = 2 if contender is Contender.FL else 1
        assert len(tested) == N_PATIENTS * n_weights * n_epochs
        assert {row["chosen"] for row in tested} == {"yes"}
    assert {row["weights_of"] for row in rows if row["contender"] == "local"} == set(SITES)


def test_claims_are_read_back_as_they_were_judged(done: Written, folder: Path) -> None:
    assert read_claims(folder) == done.findings
    assert [len(judged.claims) for judged in done.findings.judged] == [11, 11]


# --- the page -----------------------------------------------------------------------------------


def test_the_page_first_says_what_it_is_not(page: Read) -> None:
    assert page.lines[:2] == [FIRST_LINE, PATIENT_FIGURES]
    titles = [line for line in page.lines if line.startswith(("What this is not", "In short"))]
    assert titles[:2] == ["What this is not", "In short"]
    text = "\n".join(page.lines)
    for words in (
        "Not the paper's data: 52 patients here",
        "A smaller network: 1,657 parameters, where the paper's has 7,846,081.",
        "Not the paper's measure",
        "Not a federation of hospitals",
    ):
        assert words in text


def test_protocols_have_tables_of_their_own(page: Read) -> None:
    captions = [
        attributes["aria-label"] or ""
        for attributes in page.all("div")[:]
        if attributes.get("aria-label")
    ]
    clean = [caption for caption in captions if "protocol clean" in caption]
    paper = [caption for caption in captions if "protocol paper" in caption]
    assert len(clean) == len(paper) == 2
    assert not set(clean) & set(paper)
    assert all("test patients" in caption for caption in clean)
    assert all("validation patients" in caption for caption in paper)


def test_without_test_patients_there_is_one_protocol_and_the_page_says_so(tmp_path: Path) -> None:
    a_simulation(tmp_path, has_test=False)
    text = "\n".join(Read(write_report(tmp_path).page.read_bytes()).lines)
    assert "Not a test. The plan holds out no test patients" in text
    assert "protocol clean" not in text
    assert "Claims, on validation patients" in text


def test_every_drawing_is_there_and_no_id_twice(page: Read, done: Written) -> None:
    drawn = page.all("svg")
    assert len(drawn) == 5
    assert all(attributes["aria-label"] for attributes in drawn)
    ids = [str(attributes["id"]) for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    text = done.page.read_text()
    assert not re.findall(r"(?:https?:)?//[a-z]", text)
    assert set(re.findall(r'(?:src|href)="(.)', text)) == {"#"}


def test_no_page_claims_what_cannot_be_claimed(page: Read) -> None:
    text = "\n".join(page.lines).lower()
    for word in ("anonym", "compliant", "cannot be reconstructed", "poisoning-proof", "safe"):
        assert word not in text


def test_the_same_results_give_the_same_files(folder: Path, done: Written) -> None:
    before = [path.read_bytes() for path in (done.page, done.csv, done.claims)]
    again = write_report(folder)
    assert [path.read_bytes() for path in (again.page, again.csv, again.claims)] == before


def test_what_is_written_is_for_its_owner_alone_and_nothing_else_is_left(
    folder: Path, done: Written
) -> None:
    for path in (done.page, done.csv, done.claims):
        assert path.stat().st_mode & 0o777 == 0o600
    names = {path.name for path in folder.iterdir()}
    assert names == {"simulation.json", "results", "scores.csv", "claims.json", "report.html"}


def test_runs_that_have_not_ended_are_named(tmp_path: Path) -> None:
    missing = [f"iil-rate-0.001-repeat-{n}" for n in (1, 2)]
    a_simulation(tmp_path, leave_out=missing)
    done = write_report(tmp_path)
    assert done.missing == tuple(missing)
    assert f"not in these figures: {', '.join(missing)}." in "\n".join(
        Read(done.page.read_bytes()).lines
    )


def test_one_run_alone_makes_a_page(tmp_path: Path) -> None:
    names = [f"fl-1-epochs-rate-0.001-repeat-{n}" for n in (2, 3)]
    a_simulation(tmp_path, contenders=(Contender.FL,), epochs=(1,), leave_out=names)
    done = write_report(tmp_path)
    assert len(done.missing) == 2
    assert all(claim.estimate is None for claim in done.findings.judged[0].claims)


# --- the tables ---------------------------------------------------------------------------------


def rising(asked: Asked) -> float:
    """By hand: fl 0.5, 0.6, 0.7, 0.8 over its passes, with 0.01 more in each repeat."""
    end = {Contender.POOLED: 0.9, Contender.FL: 0.8}.get(asked.contender, 0.6)
    return end - 0.1 * (4 - asked.passes) + 0.01 * asked.repeat - (0.2 if asked.is_test else 0)


def by_hand(folder: Path, **options: object) -> Simulation:
    a_simulation(folder, **{"score": rising, "epochs": (1,)} | options)  # type: ignore[arg-type]
    return read(folder)


def test_the_clean_table_has_mean_spread_highest_and_share_of_pooled(tmp_path: Path) -> None:
    told = by_hand(tmp_path)
    rows = cells_of(simulation_tables.clean(told, told.shared))
    assert rows["pooled"] == ["0.710", "0.010", "0.720", "3", "100.0\u00a0%"]
    assert rows["fl, 1 epoch"] == ["0.610", "0.010", "0.620", "3", "85.9\u00a0%"]


def test_the_papers_table_adds_all_points_and_the_papers_measure(tmp_path: Path) -> None:
    told = by_hand(tmp_path)
    rows = cells_of(simulation_tables.paper(told, told.shared))
    # sd of 0.5, 0.6, 0.7, 0.8 is 0.129; soft slice Dice is (1 + Dice) / 2.
    assert rows["fl, 1 epoch"] == [
        *("0.810", "0.010", "0.820", "3", "89.0\u00a0%"),
        *("0.660", "0.129", "0.905 (94.8\u00a0%)"),
    ]
    assert rows["local"][5:7] == ["–", "–"]


def test_beside_the_paper_figures_are_taken_as_it_takes_them(tmp_path: Path) -> None:
    told = by_hand(tmp_path, partition_name="equal:3")
    rows = cells_of(simulation_tables.beside_the_paper(told))
    assert rows["paper, table 2: 10 real sites"] == [
        *("0.862", "0.852 (± 0.002, 98.7 %)", "0.820 (± 0.040, 95.0 %)"),
        "0.803 (± 0.042, 93.0 %)",
    ]
    ours = rows["this simulation: 3 sites, equal:3 (Dice)"]
    # pooled: the best run, 0.92; fl: 0.81 over runs; ciil: over its four cycles in three runs.
    assert ours[0] == "0.920 (100.0\u00a0%)"
    assert ours[1] == "0.810 (± 0.010, 88.0\u00a0%)"
    assert ours[2].startswith("0.460 (± 0.117, 50.0")
    soft = rows["this simulation: 3 sites, equal:3 (soft slice Dice)"]
    assert soft[1] == "0.905 (± 0.005, 94.3\u00a0%)"


def test_each_sites_weights_are_set_against_each_sites_patients(tmp_path: Path) -> None:
    def home(asked: Asked) -> float:
        return 0.9 if asked.weights_of == asked.site else 0.4 + 0.1 * len(asked.weights_of or "")

    told = by_hand(tmp_path, score=lambda asked: home(asked) / 2)
    table = simulation_tables.site_by_site(told, told.shared)
    assert table is not None
    assert table.columns == ("weights of", *SITES)
    assert cells_of(table)["site-b"] == ["0.500", "0.450", "0.500"]


def test_costs_are_counted_by_hand(tmp_path: Path) -> None:
    told = by_hand(tmp_path, epochs=(1, 2))
    (table,) = costs(told).blocks
    assert isinstance(table, Table)
    rows = cells_of(table)
    # passes, steps, rounds, hand-overs, carried, to the chosen weights, to 98 % of pooled
    assert rows["fl, 2 epochs"] == ["4", "100", "2", "12", "12.0\u00a0MB", "12", "never"]
    assert rows["ciil"][2:5] == ["12", "24 (and 12 to score each cycle)", "24.0\u00a0MB"]
    assert rows["iil"][2:5] == ["3", "9", "9.0\u00a0MB"]
    # Each of three sites sends a file and is given three.
    assert rows["ensemble"][3:5] == ["6", "12.0\u00a0MB"]
    assert rows["local"][3:5] == ["0", "0.0\u00a0MB"]
    assert rows["pooled"][3:7] == ["3", "the\u00a0scans", "3", "3"]


def test_hand_overs_to_98_per_cent_are_those_of_the_first_point_that_is_there(
    tmp_path: Path,
) -> None:
    def saturates(asked: Asked) -> float:
        return min(asked.passes, 2) * 0.4

    (table,) = costs(by_hand(tmp_path, score=saturates)).blocks
    assert isinstance(table, Table)
    # After two rounds of three sites, down and up.
    assert cells_of(table)["fl, 1 epoch"][-1] == "12"


# --- what it is not -----------------------------------------------------------------------------


def words_of(told: Simulation) -> str:
    (items,) = what_it_is_not(told).blocks
    return "\n".join(getattr(items, "items", ()))


def test_the_papers_own_plan_and_patients_are_not_called_others(tmp_path: Path) -> None:
    told = by_hand(tmp_path, plan=plans.load(PLANS / "sheller2018.toml"), rates=(0.0005,))
    counts = replace(told.settings.sites[0][0], n_train=165, n_validation=45, n_test=0)
    settings = replace(told.settings, sites=((counts,),), partition_name="brats2018")
    same = words_of(replace(told, settings=settings))
    assert "As far as names and number tell, the paper's data" in same
    for word in ("network", "grid", "training:", "Not the paper's data"):
        assert word not in same
    by_chance = words_of(replace(told, settings=replace(settings, partition_name="equal:8")))
    assert "whether they are the same isn't known here" in by_chance
    assert "Not the paper's data" in words_of(told)


def test_another_task_and_augmentation_are_named(tmp_path: Path) -> None:
    plan = simulated_plan(
        scans={"required": ("t1ce", "flair"), "regions": ("WT", "TC")},
        training={"augmentation": {"flip": 0.5}},
    )
    text = words_of(by_hand(tmp_path, plan=plan))
    assert "Another task: WT, TC from t1ce, flair" in text
    assert "with augmentation" in text


# --- bad input ----------------------------------------------------------------------------------


def test_a_folder_without_a_simulation_or_without_a_result_is_not_ready(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="no simulation here"):
        write_report(tmp_path)
    a_simulation(tmp_path, contenders=())
    with pytest.raises(NotReadyError, match="No run of this simulation has ended"):
        write_report(tmp_path)


def test_a_result_of_another_simulation_is_refused_by_name(tmp_path: Path) -> None:
    a_simulation(tmp_path / "one", contenders=(Contender.POOLED,))
    a_simulation(tmp_path / "other", contenders=(Contender.POOLED, Contender.IIL))
    stray = simulation.result_path(tmp_path / "one", "iil-rate-0.001-repeat-1")
    stray.write_bytes(simulation.result_path(tmp_path / "other", stray.stem).read_bytes())
    with pytest.raises(ConflictError, match="of another simulation") as caught:
        write_report(tmp_path / "one")
    assert caught.value.where == str(stray)


def test_a_damaged_result_is_refused_by_name(tmp_path: Path) -> None:
    a_simulation(tmp_path, contenders=(Contender.POOLED,))
    path = simulation.result_path(tmp_path, "pooled-rate-0.001-repeat-1")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ConflictError, match="damaged") as caught:
        write_report(tmp_path)
    assert caught.value.where == str(path)


def test_claims_that_are_missing_or_damaged_are_refused(tmp_path: Path) -> None:
    for text in (None, "{", '{"format": "brainfed-claims-2"}'):
        if text is not None:
            (tmp_path / "claims.json").write_text(text)
        with pytest.raises(ConflictError, match="missing or damaged"):
            read_claims(tmp_path)


def test_a_page_that_is_not_ours_is_never_replaced(tmp_path: Path) -> None:
    a_simulation(tmp_path, contenders=(Contender.POOLED,))
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(ConflictError):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text() == "mine"


def test_protocols_are_those_of_the_settings(folder: Path) -> None:
    assert read(folder).protocols == (Protocol.CLEAN, Protocol.PAPER)


def test_runs_whose_audits_differ_are_counted_apart(tmp_path: Path) -> None:
    a_simulation(tmp_path, contenders=(Contender.POOLED,))
    path = simulation.result_path(tmp_path, "pooled-rate-0.001-repeat-3")
    path.write_text(path.read_text().replace("re-derived: every", "incomplete: not every"))
    told = "\n".join(Read(write_report(tmp_path).page.read_bytes()).lines)
    assert "2 runs re-derived, for example" in told
    assert "1 run incomplete, for example" in told
    assert "incomplete: not every signature fits" in told
