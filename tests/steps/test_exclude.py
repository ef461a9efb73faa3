import base64
import csv
import json
import os
import shutil
from pathlib import Path

import pytest

from brainfed.core.labels import LabelProtocol
from brainfed.errors import ResourceError, ScanError, UsageError, WrongRoleError
from brainfed.formats import dataset, federation, identities, ledger, rounds, workspace
from brainfed.formats.dataset import ExclusionReason, Subset
from brainfed.formats.workspace import Workspace
from brainfed.steps.case_rows import CaseStatus, RefusedCasesError
from brainfed.steps.check import check
from brainfed.steps.exchange import export
from brainfed.steps.exclude import Excluded, choose, exclude
from brainfed.steps.preprocess import Wish, preprocess, preprocess_folder
from brainfed.steps.split import split_cases
from tests.builders import write_case_folder
from tests.faults import FAILURES, KILLED, OURS, check_whole, disturbed, points, run_apart, thin_out
from tests.federation import (
    Small,
    a_federation,
    a_workspace,
    close_round,
    leftovers,
    snapshot,
    train,
)
from tests.steps.patients import REFUSED, VISITS, a_site_with_patients, picture_of

WITHDRAWN, BAD_SCAN = ExclusionReason.WITHDRAWN, ExclusionReason.BAD_SCAN
QUICK = 8
"""Points a command in `make test`; `make test-slow` takes them all."""
QUIETLY = {0, OURS + ResourceError.exit_code}
"""How a command may end whose disk failed."""
EXTENTS = [pytest.param(QUICK, id="some"), pytest.param(None, id="all", marks=pytest.mark.slow)]


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return a_federation(tmp_path / "federation")


@pytest.fixture
def site(small: Small) -> Workspace:
    return a_site_with_patients(small.sites["hospital-a"])


def take_out(site: Workspace, name: str, reason: ExclusionReason = BAD_SCAN) -> Excluded:
    with workspace.locked(site):
        return exclude(site, choose(site, name, reason))


def files_with(site: Workspace, *words: bytes) -> list[str]:
    """Files of the workspace in which one of these stands, or whose name holds it."""
    return [
        str(path.relative_to(site.root))
        for path in sorted(site.root.rglob("*"))
        if any(word in os.fsencode(path.name) for word in words)
        or (path.is_file() and any(word in path.read_bytes() for word in words))
    ]


def traces(site: Workspace, name: str) -> tuple[bytes, ...]:
    """What of a case can be found: name, picture as it is and as pages hold it, digests."""
    known, index = identities.read(site.data), dataset.read_index(site.data)
    case = known.case_id(name)
    of_case = [entry for entry in index if entry.id == case]
    digests = [d for e in of_case for d in (e.digest, e.source_digest, *e.scan_digests)]
    picture = picture_of(name)
    return (name.encode(), picture, base64.b64encode(picture), *(d.encode() for d in digests))


def test_after_an_exclusion_no_file_holds_name_or_picture_of_the_case(site: Workspace) -> None:
    wanted = traces(site, "anna-2019")
    there = files_with(site, *wanted)
    assert {path.split("/")[-1] for path in there} >= {
        *("identities.json", "cases.csv", "review.csv", "quality.html", "check.html"),
        *("cases.json", "bug-anna-2019.txt"),
    }
    take_out(site, "anna-2019")
    assert files_with(site, *wanted) == []
    others = files_with(site, b"anna-2021", base64.b64encode(picture_of("anna-2021")))
    assert {"data/identities.json", "data/quality.html", "data/review.csv", "data/cases.csv"} <= {
        *others
    }


def test_the_id_stands_in_the_index_and_the_ledger_alone(site: Workspace) -> None:
    case = identities.read(site.data).case_id("anna-2019")
    take_out(site, "anna-2019")
    assert files_with(site, case.encode()) == ["data/cases.json", "ledger.jsonl"]
    line = ledger.read(site.ledger_path)[-1]
    assert (line["event"], line["case"], line["reason"]) == ("excluded", case, "bad-scan")


def test_other_cases_stay_byte_for_byte_and_can_be_used_at_once(site: Workspace) -> None:
    known, before = identities.read(site.data), snapshot(site)
    take_out(site, "bert-2020")
    after = snapshot(site)
    bert = known.case_id("bert-2020")
    for path in before:
        if path.startswith(("data/cases/", "data/cache/", "data/quality/")) and bert not in path:
            assert after[path] == before[path]
    left = dataset.cases_of(site.data, Subset.TRAIN)
    assert {entry.id for entry in left} == {
        known.case_id(name) for name in ("anna-2019", "anna-2021", "carl-2020")
    }
    assert dataset.cases_of(site.data, Subset.VALIDATION) == ()


def test_a_patient_with_a_case_left_keeps_the_line_of_the_split(site: Workspace) -> None:
    known, digest = identities.read(site.data), dataset.split_digest(site.data)
    anna = known.patient_id("Anna Schmidt")
    done = take_out(site, "anna-2019")
    assert dataset.read_split(site.data).assignments[anna] is Subset.TRAIN
    assert done.split_digest == digest
    assert identities.read(site.data).patients[anna] == "Anna Schmidt"


def test_a_patient_without_a_case_leaves_the_split_and_others_are_not_moved(
    site: Workspace,
) -> None:
    known, before = identities.read(site.data), dataset.read_split(site.data).assignments
    digest = dataset.split_digest(site.data)
    done = take_out(site, "carl-2020")
    carl = known.patient_id("Carl Haas")
    after = dataset.read_split(site.data).assignments
    assert after == {patient: subset for patient, subset in before.items() if patient != carl}
    assert done.split_digest not in {None, digest}
    assert files_with(site, b"Carl Haas") == []
    again = split_cases(site.data, federation.load(site).first_plan)
    assert again.n_joined == 0
    assert dataset.read_split(site.data).assignments == after


def test_who_withdraws_goes_with_all_cases_refused_ones_too(site: Workspace) -> None:
    wanted = [word for name in ("anna-2019", "anna-2021", REFUSED) for word in traces(site, name)]
    done = take_out(site, "anna-2021", WITHDRAWN)
    assert len(done.chosen.cases) == 3
    assert done.n_cases == 3
    assert files_with(site, b"Anna Schmidt", b"anna-", *wanted) == []
    assert dataset.read_whole_index(site.data).skipped == ()
    known = identities.read(site.data)
    assert (
        known.visits.keys() == known.cases.keys() == {e.id for e in dataset.read_index(site.data)}
    )


@pytest.mark.parametrize("named", ["Anna Schmidt", "anna-2019", REFUSED])
def test_a_patient_can_be_named_or_found_by_any_case_or_id(site: Workspace, named: str) -> None:
    known = identities.read(site.data)
    ids = {known.case_id(name) for name in ("anna-2019", "anna-2021", REFUSED)}
    for name in (named, known.case_id("anna-2019"), known.patient_id("Anna Schmidt")):
        chosen = choose(site, name, WITHDRAWN)
        assert {entry.id for entry in chosen.cases} == ids
        assert chosen.patient == known.patient_id("Anna Schmidt")


def test_of_who_withdrew_no_later_visit_is_made_and_of_a_bad_scan_it_is(site: Workspace) -> None:
    known = identities.read(site.data)
    anna, bert = known.patient_id("Anna Schmidt"), known.patient_id("Bert Weber")
    take_out(site, "anna-2019", WITHDRAWN)
    take_out(site, "bert-2020")
    index = dataset.read_whole_index(site.data)
    assert index.why_excluded(known.case_id("anna-2030"), anna) is WITHDRAWN
    assert index.why_excluded(known.case_id("bert-2030"), bert) is None
    assert index.why_excluded(known.case_id("bert-2020"), bert) is BAD_SCAN


def exclusions(site: Workspace) -> list[tuple[str, str]]:
    lines = ledger.read(site.ledger_path)
    return [(line["case"], line["reason"]) for line in lines if line["event"] == "excluded"]


def test_choosing_changes_nothing(site: Workspace) -> None:
    before = snapshot(site)
    choose(site, "Anna Schmidt", WITHDRAWN)
    assert snapshot(site) == before


def test_a_second_time_nothing_changes_and_no_line_is_written(site: Workspace) -> None:
    take_out(site, "anna-2019", WITHDRAWN)
    before, n_lines = snapshot(site), len(ledger.read(site.ledger_path))
    done = take_out(site, "anna-2019", WITHDRAWN)
    assert done.chosen.already
    assert snapshot(site) == before
    assert len(ledger.read(site.ledger_path)) == n_lines


def test_who_withdraws_after_a_bad_scan_is_excluded_as_a_patient(site: Workspace) -> None:
    take_out(site, "anna-2019")
    take_out(site, "Anna Schmidt", WITHDRAWN)
    take_out(site, "anna-2019")  # says less, and changes nothing
    index = dataset.read_whole_index(site.data)
    assert [entry.reason for entry in index.excluded] == [WITHDRAWN] * 3
    assert [reason for _, reason in exclusions(site)] == ["bad-scan", *["withdrawn"] * 3]


def test_a_name_that_is_not_there_is_refused_and_stands_only_in_where(site: Workspace) -> None:
    with pytest.raises(UsageError) as caught:
        choose(site, "emil-2020", BAD_SCAN)
    assert caught.value.where == "emil-2020"
    assert "emil" not in f"{caught.value.message} {caught.value.expected} {caught.value.hint}"


def test_a_patient_is_not_a_bad_scan(site: Workspace) -> None:
    known = identities.read(site.data)
    with pytest.raises(UsageError, match="bad-scan is said of a case") as caught:
        choose(site, "Bert Weber", BAD_SCAN)
    assert caught.value.expected == known.case_id("bert-2020")


def test_a_name_of_a_case_and_of_another_patient_is_asked_for_by_id(site: Workspace) -> None:
    known = identities.read(site.data)
    known.cases[known.case_id("Bert Weber")] = "Bert Weber"  # refused, and a patient of its own
    identities.write(site.data, known)
    entry = site.data / "quality" / f"{known.case_id('carl-2020')}.json"
    content = json.loads(entry.read_bytes())
    content |= {"case_id": known.case_id("Bert Weber"), "name": "Bert Weber", "verdict": "refused"}
    (entry.parent / f"{known.case_id('Bert Weber')}.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="another patient") as caught:
        choose(site, "Bert Weber", WITHDRAWN)
    for case_id in (known.case_id("Bert Weber"), known.patient_id("Bert Weber")):
        assert case_id in str(caught.value.expected)
        assert choose(site, case_id, WITHDRAWN).cases


def test_the_coordinator_has_no_patients(small: Small) -> None:
    with pytest.raises(WrongRoleError):
        choose(small.coordinator, "anna-2019", WITHDRAWN)


def test_rows_of_scores_go_and_those_of_others_stay(site: Workspace) -> None:
    (path,) = site.reports.glob("evaluate.0*.csv")
    before = list(csv.reader(path.read_text().splitlines()))
    take_out(site, "bert-2020")
    after = list(csv.reader(path.read_text().splitlines()))
    bert = identities.read(site.data).case_id("bert-2020")
    assert after == [row for row in before if bert not in row]
    assert len(after) == len(before) - 1
    reports = {p.name for p in site.reports.glob("bug-*")}
    assert reports == {f"bug-{name}.txt" for name in [*VISITS, REFUSED] if name != "bert-2020"}


def test_interrupted_evaluations_and_ready_label_maps_lose_the_case_too(site: Workspace) -> None:
    known = identities.read(site.data)
    bert, carl = (known.case_id(name) for name in ("bert-2020", "carl-2020"))
    take_out(site, "bert-2020")
    maps, *journals = (
        (site.reports / name).read_text()
        for name in (
            "evaluate.maps.89abcdef.csv",
            "evaluate.0123abcd.validation.csv.part",
            "evaluate.maps.89abcdef.csv.part",
        )
    )
    assert "bert-2020" not in maps + journals[1]
    assert bert not in journals[0]
    assert "carl-2020" in maps
    assert "carl-2020" in journals[1]
    assert carl in journals[0]
    pictures = {path.name.split(".")[-2] for path in site.reports.glob("*.png")}
    assert bert not in pictures
    assert carl in pictures


def test_a_bad_scan_leaves_the_patient_s_other_visits_among_ready_label_maps(
    site: Workspace,
) -> None:
    take_out(site, "anna-2019")
    table = (site.reports / "evaluate.maps.89abcdef.csv").read_text()
    assert "anna-2019" not in table
    assert "anna-2021" in table
    take_out(site, "anna-2021", WITHDRAWN)
    assert "Anna" not in (site.reports / "evaluate.maps.89abcdef.csv").read_text()


def test_a_table_that_a_person_corrected_loses_its_rows_and_no_other_cell(
    site: Workspace,
) -> None:
    kept = ["Carl Haas;carl-2020;/scans/c.nii;quite old;soon", "Bert Weber;;/scans/b.nii;;"]
    gone = ["Anna Schmidt;anna-2019;/scans/a.nii;;", "Anna Schmidt;;never made.nii;;"]
    head = "PatientID;Case;FLAIR;AgeYears;Treatment"
    path = site.data / "cases.csv"
    path.write_text("\n".join([head, gone[0], kept[0], "", gone[1], kept[1], ""]))
    take_out(site, "anna-2021", WITHDRAWN)
    lines = [line.replace(",", ";") for line in path.read_text("utf-8-sig").splitlines()]
    assert [line for line in lines if line.strip(";")] == [head, *kept]


def test_a_damaged_review_stops_it_before_anything_is_changed(site: Workspace) -> None:
    (site.data / "review.csv").write_text("no such columns\n")
    before = snapshot(site)
    with pytest.raises(ScanError):
        take_out(site, "carl-2020")
    assert snapshot(site) == before


def test_preprocess_never_makes_it_again_and_says_so(small: Small, tmp_path: Path) -> None:
    site, scans = small.sites["hospital-a"], tmp_path / "scans"
    names = [f"Brats18_TCIA01_606_{visit}" for visit in (1, 2)] + ["Brats18_TCIA02_607_1"]
    for number, name in enumerate(names):
        write_case_folder(scans, name, seed=number, tumour_radius_mm=10 + number)
    wish = Wish(protocol=LabelProtocol.BRATS2017)
    preprocess(site, scans, wish)
    take_out(site, names[0], WITHDRAWN)
    write_case_folder(scans, "Brats18_TCIA01_606_3", seed=3, tumour_radius_mm=14)
    rows = {row.name: row for row in preprocess(site, scans, wish).rows}
    assert rows.pop(names[2]).status is CaseStatus.KEPT
    assert {row.status for row in rows.values()} == {CaseStatus.SKIPPED}
    assert {row.reason for row in rows.values()} == {"excluded: withdrawn"}
    assert files_with(site, b"TCIA01_606") == []


def test_who_withdraws_between_check_and_preprocess_leaves_no_picture_and_no_case(
    small: Small, tmp_path: Path
) -> None:
    site, scans = small.sites["hospital-a"], tmp_path / "scans"
    names = ["Brats18_TCIA01_606_1", "Brats18_TCIA02_607_1"]
    for number, name in enumerate(names):
        write_case_folder(scans, name, seed=number, tumour_radius_mm=10 + number)
    wish = Wish(protocol=LabelProtocol.BRATS2017)
    check(site.data, scans, None, wish)
    assert files_with(site, b"TCIA01_606") == ["data/cases.csv", "data/check.html"]
    done = take_out(site, "Brats18_TCIA01_606", WITHDRAWN)
    assert (len(done.chosen.cases), done.n_cases) == (1, 0)
    assert files_with(site, b"TCIA01_606") == []
    assert [reason for _, reason in exclusions(site)] == ["withdrawn"]
    rows = {row.name: row.status for row in preprocess(site, scans, wish).rows}
    assert rows == {names[0]: CaseStatus.SKIPPED, names[1]: CaseStatus.MADE}
    assert files_with(site, b"TCIA01_606") == []


def test_who_withdraws_after_check_and_before_the_federation_stays_out_of_it(
    small: Small, tmp_path: Path
) -> None:
    site = a_workspace(tmp_path / "early", workspace.Role.SITE, "hospital-c")
    scans, wish = tmp_path / "scans", Wish(protocol=LabelProtocol.BRATS2017)
    for number, name in enumerate(("anna", "bert")):
        write_case_folder(scans, name, seed=number, tumour_radius_mm=10 + number)
    check(site.data, scans, None, wish)
    take_out(site, "anna", WITHDRAWN)
    plan = federation.load(small.coordinator).first_plan
    rows = {row.name: row for row in preprocess_folder(site.data, scans, plan, wish).rows}
    assert rows["anna"].reason == "excluded: withdrawn"
    assert rows["bert"].status is CaseStatus.MADE


def test_a_case_is_excluded_though_all_of_them_were_refused(small: Small, tmp_path: Path) -> None:
    site, scans = small.sites["hospital-a"], tmp_path / "scans"
    write_case_folder(scans, "anna", seed=1)
    with pytest.raises(RefusedCasesError):
        preprocess(site, scans, Wish())  # nobody said what the labels mean
    assert files_with(site, b"anna") != []
    take_out(site, "anna", WITHDRAWN)
    assert files_with(site, b"anna") == []


# --- updates -------------------------------------------------------------------------------------


def test_an_update_that_was_never_signed_goes_where_it_may_have_learned_from_the_case(
    site: Workspace,
) -> None:
    update = train(site)
    log = update.with_name("training.jsonl")
    log.write_text("{}\n")
    export(site, None, unsigned=True)
    assert (site.outbox / update.name).exists()
    done = take_out(site, "carl-2020")
    assert done.chosen.updates == (update,)
    assert done.chosen.signed_update is None
    for path in (update, log, site.outbox / update.name):
        assert not path.exists()


def test_an_update_stays_where_the_patient_is_of_the_test(site: Workspace) -> None:
    update = train(site)
    done = take_out(site, "dora-2020")
    assert done.chosen.updates == ()
    assert update.exists()


def test_a_new_update_is_not_erased_by_running_it_again(site: Workspace) -> None:
    take_out(site, "carl-2020")
    update = train(site)
    assert take_out(site, "carl-2020").chosen.already
    assert update.exists()


def test_a_signed_update_stays_and_is_told(small: Small, site: Workspace) -> None:
    update = train(site)
    export(site, None)
    done = take_out(site, "carl-2020")
    assert done.chosen.signed_update == update
    assert done.chosen.updates == ()
    assert update.exists()


def test_updates_of_closed_rounds_stay_and_are_not_told(small: Small, site: Workspace) -> None:
    close_round(small)
    known = federation.load(site)
    done = take_out(site, "carl-2020")
    assert rounds.update_path(site, known, 1, site.name) is not None
    assert done.chosen.signed_update is None


# --- a disk that fails, a process that is killed -------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("at_most", EXTENTS)
@pytest.mark.parametrize(("name", "reason"), [("carl-2020", BAD_SCAN), ("anna-2019", WITHDRAWN)])
def test_a_disturbed_exclusion_is_run_again_and_ends_as_an_undisturbed_one(
    site: Workspace, tmp_path: Path, name: str, reason: ExclusionReason, at_most: int | None
) -> None:
    train(site)
    case = identities.read(site.data).case_id(name)

    def run(root: Path) -> None:
        take_out(workspace.find(root), name, reason)

    whole = tmp_path / "whole"
    shutil.copytree(site.root, whole)
    ended = run_apart(lambda: run(whole))
    assert ended.code == 0
    old, new = snapshot(site), snapshot(workspace.find(whole))
    told = exclusions(workspace.find(whole))
    for point, code, root in disturbed(
        site.root, tmp_path, run, thin_out(points(ended.calls), at_most)
    ):
        place = workspace.find(root)
        assert code in QUIETLY if point.fault in FAILURES else code == KILLED, point
        check_whole(point, snapshot(place), old, new)
        is_listed = any(entry.id == case for entry in dataset.read_index(place.data))
        if is_listed:  # nothing of a case that still counts is gone
            assert dataset.read_case(dataset.case_path(place.data, case))
        run(root)
        assert snapshot(place) == new, point
        assert exclusions(place) == told, point
        assert leftovers(root) == [], point
