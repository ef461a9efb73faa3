"""What a report says, and what it leaves out, for each of its readers."""

import hashlib
import re
from pathlib import Path

import pytest

from brainfed.core.checklists import checklists
from brainfed.errors import UsageError, WrongRoleError
from brainfed.formats import federation, rounds
from brainfed.formats.dataset import Subset
from brainfed.formats.final import Final
from brainfed.formats.report_page import FIRST_LINE, PATIENT_FIGURES, PATIENT_IMAGES
from brainfed.formats.roster import Role
from brainfed.formats.workspace import Workspace
from brainfed.steps.model_card import EMPTY, card_weights, plan_of_card
from brainfed.steps.report import Written, report
from brainfed.steps.report_facts import Reader, gather
from brainfed.steps.statements import statements
from tests.federation import TODAY, Small, a_federation, a_workspace, copy_of, sign
from tests.formats.test_report_page import Read
from tests.reported import TEST, VALIDATION, a_reported_federation, case_id, evaluated, patient_ids

N_ROUNDS = 3
NAMES = (*VALIDATION, "uni-lead")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    made = a_reported_federation(tmp_path_factory.mktemp("reported"), N_ROUNDS)
    evaluated(made.sites["hospital-a"], N_ROUNDS, Subset.VALIDATION, pictures=True)
    return made


def written(place: Workspace, reader: Reader | None = None, **options: object) -> Written:
    return report(place, reader, today=TODAY, **options)


def page_of(done: Written) -> Read:
    return Read(done.path.read_bytes())


def text_of(done: Written) -> str:
    return "\n".join(page_of(done).lines)


def ids() -> list[str]:
    """Every id of a patient and of a case."""
    patients = [
        p
        for site in VALIDATION
        for s in (Subset.VALIDATION, Subset.TEST)
        for p in patient_ids(site, s)
    ]
    return [*patients, *map(case_id, patients)]


def test_the_coordinator_sees_every_site_by_round_and_the_worst_marked(small: Small) -> None:
    done = written(small.coordinator)
    assert done.report.reader is Reader.COORDINATOR
    assert done.path == small.coordinator.reports / "report.coordinator.html"
    page = page_of(done)
    assert page.lines[0] == FIRST_LINE
    assert page.lines.count("worst") > N_ROUNDS
    text = "\n".join(page.lines)
    for words in (
        "Dice by round",
        "On the test patients",
        "Who took part",
        "absent",
        "Hand-overs and megabytes",
        "fewer than 5",
        "patients of 2 of 3 sites; worst site hospital-b",
        "re-derived",
        "this machine made of its own folder",
        "What this page can't show",
        "own word",
        small.known.digest,
        small.known.plans[0].version.digest,
    ):
        assert words in text, words
    for told in done.report.weights:
        assert told.digest in text


@pytest.mark.parametrize(
    ("reader", "card"),
    [(Reader.COORDINATOR, False), (Reader.PUBLIC, False), (None, True)],
)
def test_no_patient_no_case_and_no_path_leaves(
    small: Small, reader: Reader | None, card: bool
) -> None:
    done = written(small.coordinator, reader, card=card)
    data = done.path.read_text("utf-8")
    assert [name for name in ids() if name in data] == []
    assert str(small.root) not in data
    assert re.findall(r"(?<![\w/<])/(?:[\w.-]+/)+[\w.-]+", data) == []
    assert "data:image" not in data
    assert ".safetensors" not in data


def test_the_public_sees_numbers_in_place_of_names(small: Small) -> None:
    for done in (written(small.coordinator, Reader.PUBLIC), written(small.coordinator, card=True)):
        data = done.path.read_text("utf-8")
        assert [name for name in NAMES if name in data] == []
        assert "site 3" in data
        assert "weight 67" not in data
        assert done.path.stat().st_mode & 0o777 == 0o644


def test_figures_of_few_patients_are_cut_again_where_the_plan_is_stricter_than_a_file(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = federation.load(small.coordinator)
    plan = loaded.first_plan
    stricter = plan.model_copy(
        update={"participation": plan.participation.model_copy(update={"floor": 13})}
    )
    entry = loaded.plans[0].__class__(loaded.plans[0].version, 0, stricter)
    changed = loaded.__class__(loaded.digest, loaded.start, loaded.roster, (entry,))
    monkeypatch.setattr(federation, "load", lambda place: changed)
    told = gather(small.coordinator, Reader.COORDINATOR, today=TODAY)
    assert {row.n for row in told.standings if row.site == "hospital-b"} == {"fewer than 13"}
    assert all(row.mean is None for row in told.standings if row.site == "hospital-b")


def test_a_site_sees_its_patients_and_is_told_to_keep_them(small: Small) -> None:
    done = written(small.sites["hospital-a"])
    page = page_of(done)
    assert page.lines[:2] == [FIRST_LINE, PATIENT_IMAGES]
    assert done.path.stat().st_mode & 0o777 == 0o600
    pictures = page.all("img")
    assert [str(p["alt"]).split(" ")[0] for p in pictures] == ["Best", "Median", "Worst"]
    assert all(str(p["src"]).startswith("data:image/png;base64,iVBOR") for p in pictures)
    assert len([name for name in ids() if name in page.lines]) >= 5
    assert {row.source for row in done.report.standings if row.round == N_ROUNDS} == {"table"}
    assert "hospital-b" not in {row.site for row in done.report.standings}


def test_a_site_below_the_floor_sees_its_own_figures_all_the_same(small: Small) -> None:
    done = written(small.sites["hospital-c"])
    assert page_of(done).lines[1] == PATIENT_FIGURES
    newest = [row for row in done.report.standings if row.round == N_ROUNDS]
    assert newest
    assert {row.n for row in newest} >= {VALIDATION["hospital-c"], TEST["hospital-c"]}
    assert all(row.mean is not None for row in newest)


def test_a_damaged_table_is_counted_and_the_others_are_read(small: Small, tmp_path: Path) -> None:
    mine = copy_of(small, tmp_path)
    site = mine.sites["hospital-a"]
    table = next(site.reports.glob("evaluate.*.validation.csv"))
    table.write_text("patient,case\n")
    done = written(site)
    assert done.report.n_left_out == 1
    assert [result.subset for result in done.report.own] == [Subset.TEST]
    assert "1 file with figures could not be used" in text_of(done)


def test_the_ledger_says_how_often_the_test_patients_were_opened(
    small: Small, tmp_path: Path
) -> None:
    site = copy_of(small, tmp_path).sites["hospital-a"]
    (opened,) = written(site).report.opened
    assert (opened.n_times, opened.n_weights) == (1, 1)
    evaluated(site, N_ROUNDS, Subset.TEST)
    evaluated(site, 1, Subset.TEST)
    done = written(site)
    (opened,) = done.report.opened
    assert (opened.n_times, opened.n_weights) == (3, 2)
    assert "more than one weight file" in text_of(done)


def test_hand_overs_are_the_signed_files_that_lie_here(small: Small) -> None:
    place = small.coordinator
    told = written(place).report
    for entry in told.hand_overs[1:]:
        folder = place.round_folder(entry.round or 0)
        files = [path for path in folder.iterdir() if path.suffix != ".sig"]
        assert entry.n_received + entry.n_sent == len(files)
        in_all = sum(path.stat().st_size for path in folder.iterdir())
        assert entry.received_bytes + entry.sent_bytes == in_all
    of_round = {entry.round: entry for entry in told.hand_overs}
    assert (of_round[1].n_received, of_round[2].n_received) == (3, 2)
    assert (of_round[0].n_sent, of_round[1].n_sent) == (1, 2)
    assert told.n_readers == 3
    at_site = written(small.sites["hospital-a"]).report
    assert {entry.round: entry.n_sent for entry in at_site.hand_overs}[1] == 1


def test_who_took_part_is_what_the_records_say(small: Small) -> None:
    told = written(small.coordinator).report
    by_round = {c.round: {p.site: p for p in c.parts} for c in told.closings}
    assert str(by_round[2]["hospital-c"].status) == "absent"
    # In round 2 nobody below the floor took part.
    shares = {site: part.share for site, part in by_round[2].items()}
    assert shares == {"hospital-a": 2 / 3, "hospital-b": 1 / 3, "hospital-c": 0}
    assert "weight 67 %, n 72" in text_of(written(small.coordinator))


def test_a_broken_chain_shows_without_a_file_name(small: Small, tmp_path: Path) -> None:
    mine = copy_of(small, tmp_path)
    for path in rounds.update_paths(mine.coordinator, 1):
        path.unlink()
    done = written(mine.coordinator)
    assert done.report.audit.n_missing > 0
    text = text_of(done)
    assert "Verdict: incomplete" in text
    assert "missing" in text
    assert ".safetensors" not in text


def test_a_report_can_be_made_before_anything_has_happened(tmp_path: Path) -> None:
    small = a_federation(tmp_path, joined=False)
    done = written(small.coordinator)
    text = text_of(done)
    assert "No site has stated a figure of any round yet." in text
    assert "No round has been closed yet." in text
    assert "No site has trained these weights yet." in text_of(
        written(small.coordinator, card=True)
    )


def test_the_same_files_and_day_give_the_same_page(small: Small) -> None:
    first = written(small.coordinator).path.read_bytes()
    assert written(small.coordinator).path.read_bytes() == first


def test_nothing_else_is_written(small: Small, tmp_path: Path) -> None:
    mine = copy_of(small, tmp_path)
    before = {path for path in mine.root.rglob("*") if path.is_file()}
    out = tmp_path / "page.html"
    written(mine.coordinator, out=out)
    assert {path for path in mine.root.rglob("*") if path.is_file()} - before == {out}


@pytest.mark.parametrize("reader", [Reader.COORDINATOR, Reader.PUBLIC])
def test_a_site_cannot_report_for_all(small: Small, reader: Reader) -> None:
    with pytest.raises(WrongRoleError):
        written(small.sites["hospital-a"], reader)


def test_the_coordinator_has_no_patients_to_report_on(small: Small) -> None:
    with pytest.raises(WrongRoleError):
        written(small.coordinator, Reader.SITE)


def test_an_auditor_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(WrongRoleError):
        written(a_workspace(tmp_path, Role.AUDITOR, "board"))


def test_a_card_is_for_the_public(small: Small) -> None:
    with pytest.raises(UsageError):
        written(small.coordinator, Reader.COORDINATOR, card=True)


def test_a_card_says_that_no_final_is_signed_and_names_the_newest_weights(small: Small) -> None:
    done = written(small.coordinator, card=True)
    text = text_of(done)
    assert "The coordinator has signed no final." in text
    assert done.report.weights[-1].digest in text
    assert "CC-BY-4.0" in text
    assert "diagnosis, treatment, or any decision about a patient" in text


def test_a_signed_final_is_what_the_card_is_about(small: Small, tmp_path: Path) -> None:
    mine = copy_of(small, tmp_path)
    place, known = mine.coordinator, mine.known
    weights = rounds.global_path(place, 2)
    record = rounds.records(place, 2)[-1]
    assert weights is not None
    final = Final(
        purpose=known.start.purpose,
        federation=known.digest,
        sender=place.name,
        roster_version=known.roster.version,
        plan=known.in_force(2).version,
        round=2,
        edition=1,
        weights=hashlib.sha256(weights.read_bytes()).hexdigest(),
        record=hashlib.sha256(record.read_bytes()).hexdigest(),
        weights_licence="CC0-1.0",
        day=TODAY.isoformat(),
    )
    path = place.round_folder(2) / f"{known.file_stem(final)}.final.json"
    path.write_bytes(final.dumps())
    sign(path, place)
    done = written(place, card=True)
    text = text_of(done)
    assert "signed no final" not in text
    assert final.weights in text
    assert "CC0-1.0" in text
    # The figures are of round 3, and the card says so.
    assert "with these weights" in text


def test_a_card_says_of_every_item_what_the_files_say_or_leaves_it_to_the_authors(
    small: Small,
) -> None:
    told = gather(small.coordinator, Reader.PUBLIC, today=TODAY)
    said = statements(told, plan_of_card(told), card_weights(told))
    asked = {item.fill for checklist in checklists() for item in checklist.items} - {""}
    assert asked == set(said)
    page = page_of(written(small.coordinator, card=True))
    n_empty = sum(not said.get(i.fill) for c in checklists() for i in c.items)
    assert page.lines.count(EMPTY) == n_empty > 20
    for checklist in checklists():
        assert any(checklist.source in line for line in page.lines)
        assert all(item.text in page.lines for item in checklist.items)


def test_a_small_sites_patients_are_not_counted(small: Small) -> None:
    for done in (written(small.coordinator), written(small.coordinator, card=True)):
        first = done.report.closings[0]
        assert [part.n_patients for part in first.parts] == [72, 36, "fewer than 5"]
        # A share of a known total would give the number away, and so would the others' shares.
        assert {part.share for part in first.parts} == {None}
        assert "fewer than 5" in text_of(done)


def test_no_page_claims_what_cannot_be_claimed(small: Small) -> None:
    pages = [
        written(small.coordinator),
        written(small.coordinator, Reader.PUBLIC),
        written(small.coordinator, card=True),
        written(small.sites["hospital-a"]),
    ]
    for done in pages:
        text = text_of(done).lower()
        for word in ("anonym", "compliant", "cannot be reconstructed", "poisoning-proof", "safe"):
            assert word not in text, word
