import json
from dataclasses import replace
from pathlib import Path

import pytest

from brainfed.core.cohort import Subset
from brainfed.errors import NotReadyError, ScanError
from brainfed.formats import dataset, identities, review
from brainfed.formats.dataset import CaseEntry, Index, LeftOut
from brainfed.formats.review import Decision, ReviewRow, Verdict
from brainfed.plan import SplitRule, data_digest
from brainfed.steps.split import split_cases
from tests.builders import a_case, a_plan


def an_entry(number: int, *, visit: int = 1, key: str = "") -> CaseEntry:
    """A case of a patient whose tumour grows with the number."""
    case = a_case(name=f"{key}{number}/{visit}", tumour_radius_mm=4)
    patient = a_case(name=f"{key}{number}", tumour_radius_mm=4).patient
    entry = dataset.entry_of(replace(case, patient=patient), "0" * 64)
    return replace(entry, n_tumour_voxels=100 + number, source_digest=f"{number:064x}")


def an_index(folder: Path, entries: list[CaseEntry], **plan: object) -> None:
    folder.mkdir(exist_ok=True)
    identities.write(folder, identities.Identities(key=bytes(32)))
    digest = data_digest(a_plan(**plan))
    dataset.write_index(folder, Index(data_digest=digest, cases=tuple(entries)))


def assignments(folder: Path) -> dict[str, Subset]:
    return dataset.read_split(folder).assignments


def test_the_split_is_written_and_counted(tmp_path: Path) -> None:
    an_index(tmp_path, [an_entry(n) for n in range(10)])
    result = split_cases(tmp_path, a_plan())
    assert {s: c.n_patients for s, c in result.counts.items()} == {
        Subset.TRAIN: 6,
        Subset.VALIDATION: 2,
        Subset.TEST: 2,
    }
    assert sum(c.n_slices for c in result.counts.values()) == 60
    assert (result.n_joined, result.n_stayed, result.only_evaluates) == (10, 0, False)
    assert result.split_digest == dataset.split_digest(tmp_path)
    assert sum(len(dataset.cases_of(tmp_path, subset)) for subset in Subset) == 10


def test_visits_of_one_patient_stay_together(tmp_path: Path) -> None:
    entries = [an_entry(n, visit=visit) for n in range(8) for visit in (1, 2)]
    an_index(tmp_path, entries)
    result = split_cases(tmp_path, a_plan())
    assert all(counts.n_cases == 2 * counts.n_patients for counts in result.counts.values())
    assert sum(counts.n_patients for counts in result.counts.values()) == 8


def test_new_patients_join_and_old_ones_stay(tmp_path: Path) -> None:
    an_index(tmp_path, [an_entry(n) for n in range(8)])
    split_cases(tmp_path, a_plan())
    before = assignments(tmp_path)
    an_index(tmp_path, [an_entry(n) for n in range(20)])
    result = split_cases(tmp_path, a_plan())
    assert (result.n_joined, result.n_stayed) == (12, 8)
    assert before.items() <= assignments(tmp_path).items()
    assert {s: c.n_patients for s, c in result.counts.items()} == {
        Subset.TRAIN: 12,
        Subset.VALIDATION: 4,
        Subset.TEST: 4,
    }


def test_a_second_command_changes_nothing(tmp_path: Path) -> None:
    an_index(tmp_path, [an_entry(n) for n in range(5)])
    first = split_cases(tmp_path, a_plan())
    written = dataset.split_path(tmp_path).stat().st_mtime_ns
    second = split_cases(tmp_path, a_plan())
    assert (second.n_joined, second.n_stayed) == (0, 5)
    assert second.split_digest == first.split_digest
    assert dataset.split_path(tmp_path).stat().st_mtime_ns == written


def test_a_workspace_made_anew_gets_the_same_split_although_its_ids_differ(tmp_path: Path) -> None:
    subsets = []
    for key in ("one", "other"):
        folder = tmp_path / key
        # Two tumours of one size: the scans decide, not the ids.
        entries = [replace(an_entry(n, key=key), n_tumour_voxels=n // 2) for n in range(12)]
        an_index(folder, entries)
        split_cases(folder, a_plan())
        subsets.append([assignments(folder)[entry.patient] for entry in entries])
    assert subsets[0] == subsets[1]


def test_a_site_of_two_patients_only_evaluates(tmp_path: Path) -> None:
    an_index(tmp_path, [an_entry(n) for n in range(2)])
    result = split_cases(tmp_path, a_plan())
    assert result.only_evaluates
    assert result.counts[Subset.VALIDATION].n_patients == 2


def test_the_papers_rule_is_used_where_the_plan_says_so(tmp_path: Path) -> None:
    paper = {"split": {"rule": SplitRule.CEIL, "validation": 0.2, "test": 0.0}}
    an_index(tmp_path, [an_entry(n) for n in range(6)], **paper)
    counts = split_cases(tmp_path, a_plan(**paper)).counts
    assert [counts[subset].n_patients for subset in Subset] == [4, 2, 0]


def test_without_cases_there_is_no_split(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError) as caught:
        split_cases(tmp_path, a_plan())
    assert "brainfed preprocess" in (caught.value.hint or "")


def test_cases_of_another_plan_are_not_split(tmp_path: Path) -> None:
    an_index(tmp_path, [an_entry(n) for n in range(4)])
    with pytest.raises(ScanError, match="another plan"):
        split_cases(tmp_path, a_plan(grid={"size": (16, 16)}))
    assert not dataset.split_path(tmp_path).exists()


def test_a_damaged_split_is_not_replaced(tmp_path: Path) -> None:
    an_index(tmp_path, [an_entry(n) for n in range(4)])
    dataset.split_path(tmp_path).write_text("{}")
    with pytest.raises(ScanError, match="damaged"):
        split_cases(tmp_path, a_plan())
    assert dataset.split_path(tmp_path).read_text() == "{}"


# --- the review ---------------------------------------------------------------------------------


def held(entry: CaseEntry) -> CaseEntry:
    return replace(entry, verdict=Verdict.HELD)


def an_index_with_review(folder: Path, entries: list[CaseEntry]) -> None:
    an_index(folder, entries)
    review.merge(
        folder,
        [
            ReviewRow(case=e.id, name=f"case {e.id}", verdict=e.verdict, digest=e.digest[:16])
            for e in entries
        ],
    )


def used(folder: Path) -> set[str]:
    return {entry.id for subset in Subset for entry in dataset.cases_of(folder, subset)}


def test_a_held_case_that_nobody_accepted_is_in_no_subset(tmp_path: Path) -> None:
    entries = [an_entry(n) for n in range(6)]
    an_index(tmp_path, [held(entries[0]), *entries[1:]])
    result = split_cases(tmp_path, a_plan())
    assert (result.n_held, result.n_rejected, result.n_joined) == (1, 0, 5)
    assert sum(counts.n_cases for counts in result.counts.values()) == 5
    assert used(tmp_path) == {entry.id for entry in entries[1:]}
    assert dataset.read_split(tmp_path).left_out == {entries[0].id: LeftOut.HELD}
    assert entries[0].patient not in assignments(tmp_path)


def test_an_accepted_case_is_used_and_a_rejected_one_is_not(tmp_path: Path) -> None:
    entries = [held(an_entry(n)) for n in range(2)] + [an_entry(n) for n in range(2, 6)]
    an_index_with_review(tmp_path, entries)
    review.decide(tmp_path, entries[0].id, Decision.ACCEPT)
    review.decide(tmp_path, entries[5].id, Decision.REJECT)
    result = split_cases(tmp_path, a_plan())
    assert (result.n_held, result.n_rejected) == (1, 1)
    assert used(tmp_path) == {entries[n].id for n in (0, 2, 3, 4)}


def test_a_held_case_that_was_rejected_counts_as_rejected(tmp_path: Path) -> None:
    entries = [held(an_entry(0)), *(an_entry(n) for n in range(1, 5))]
    an_index_with_review(tmp_path, entries)
    review.decide(tmp_path, entries[0].id, Decision.REJECT)
    result = split_cases(tmp_path, a_plan())
    assert (result.n_held, result.n_rejected) == (0, 1)


def test_an_acceptance_of_another_file_counts_for_nothing(tmp_path: Path) -> None:
    entries = [held(an_entry(0)), *(an_entry(n) for n in range(1, 5))]
    an_index_with_review(tmp_path, entries)
    review.decide(tmp_path, entries[0].id, Decision.ACCEPT)
    # As after a kill between the index and the review.
    an_index(tmp_path, [replace(entries[0], digest="1" * 64), *entries[1:]])
    assert split_cases(tmp_path, a_plan()).n_held == 1


def test_a_patient_whose_other_visit_is_good_is_assigned_by_it(tmp_path: Path) -> None:
    entries = [an_entry(n, visit=visit) for n in range(5) for visit in (1, 2)]
    entries[0] = held(entries[0])
    an_index(tmp_path, entries)
    result = split_cases(tmp_path, a_plan())
    assert (result.n_held, result.n_joined) == (1, 5)
    assert used(tmp_path) == {entry.id for entry in entries[1:]}


@pytest.mark.parametrize("decision", [Decision.REJECT, Decision.NONE])
def test_a_decision_after_the_split_is_noticed_and_changes_nothing_by_itself(
    tmp_path: Path, decision: Decision
) -> None:
    entries = [held(an_entry(0)), *(an_entry(n) for n in range(1, 6))]
    an_index_with_review(tmp_path, entries)
    review.decide(tmp_path, entries[0].id, Decision.ACCEPT)
    split_cases(tmp_path, a_plan())
    before = dataset.split_path(tmp_path).read_bytes()
    review.decide(tmp_path, entries[0].id, decision)
    for subset in Subset:
        with pytest.raises(NotReadyError) as caught:
            dataset.cases_of(tmp_path, subset)
        assert "brainfed split" in (caught.value.hint or "")
    assert dataset.split_path(tmp_path).read_bytes() == before
    subset_before = assignments(tmp_path)[entries[0].patient]
    result = split_cases(tmp_path, a_plan())
    assert (result.n_joined, result.is_new) == (0, True)
    assert used(tmp_path) == {entry.id for entry in entries[1:]}
    # Once assigned, always assigned: taken in again, the patient is where it was.
    review.decide(tmp_path, entries[0].id, Decision.ACCEPT)
    assert split_cases(tmp_path, a_plan()).is_new
    assert assignments(tmp_path)[entries[0].patient] is subset_before
    assert entries[0] in dataset.cases_of(tmp_path, subset_before)


def test_an_acceptance_after_the_split_lets_the_patient_join(tmp_path: Path) -> None:
    entries = [held(an_entry(0)), *(an_entry(n) for n in range(1, 6))]
    an_index_with_review(tmp_path, entries)
    split_cases(tmp_path, a_plan())
    before = assignments(tmp_path)
    review.decide(tmp_path, entries[0].id, Decision.ACCEPT)
    with pytest.raises(NotReadyError, match="held, rejected or accepted"):
        dataset.cases_of(tmp_path, Subset.TRAIN)
    assert split_cases(tmp_path, a_plan()).n_joined == 1
    assert before.items() < assignments(tmp_path).items()
    assert used(tmp_path) == {entry.id for entry in entries}


def test_a_case_made_anew_and_held_now_is_noticed(tmp_path: Path) -> None:
    entries = [an_entry(n) for n in range(5)]
    an_index(tmp_path, entries)
    split_cases(tmp_path, a_plan())
    an_index(tmp_path, [held(replace(entries[0], digest="1" * 64)), *entries[1:]])
    with pytest.raises(NotReadyError, match="held, rejected or accepted"):
        dataset.cases_of(tmp_path, Subset.VALIDATION)


def test_a_damaged_review_stops_the_split_and_its_readers(tmp_path: Path) -> None:
    an_index(tmp_path, [an_entry(n) for n in range(4)])
    split_cases(tmp_path, a_plan())
    review.path_of(tmp_path).write_text("case,what I think\n1,fine\n")
    with pytest.raises(ScanError, match="can't be understood"):
        split_cases(tmp_path, a_plan())
    with pytest.raises(ScanError, match="can't be understood"):
        dataset.cases_of(tmp_path, Subset.TRAIN)


def test_a_remark_alone_asks_for_no_new_split(tmp_path: Path) -> None:
    entries = [an_entry(n) for n in range(4)]
    an_index_with_review(tmp_path, entries)
    split_cases(tmp_path, a_plan())
    review.decide(tmp_path, entries[0].id, Decision.NONE, remark="pretty")
    review.decide(tmp_path, entries[1].id, Decision.ACCEPT)
    assert used(tmp_path) == {entry.id for entry in entries}
    assert not split_cases(tmp_path, a_plan()).is_new


def test_a_site_with_all_cases_held_has_nobody_yet(tmp_path: Path) -> None:
    an_index(tmp_path, [held(an_entry(n)) for n in range(4)])
    result = split_cases(tmp_path, a_plan())
    assert (result.n_held, result.n_joined, result.only_evaluates) == (4, 0, True)
    assert assignments(tmp_path) == {}
    assert used(tmp_path) == set()


def test_the_digest_covers_what_is_left_out_and_why_not(tmp_path: Path) -> None:
    entries = [an_entry(n) for n in range(5)]
    an_index_with_review(tmp_path, entries)
    first = split_cases(tmp_path, a_plan()).split_digest
    review.decide(tmp_path, entries[0].id, Decision.REJECT)
    second = split_cases(tmp_path, a_plan()).split_digest
    assert second != first
    split = dataset.read_split(tmp_path)
    dataset.write_split(tmp_path, replace(split, left_out={entries[0].id: LeftOut.HELD}))
    assert dataset.split_digest(tmp_path) == second
    review.decide(tmp_path, entries[0].id, Decision.NONE)
    assert split_cases(tmp_path, a_plan()).split_digest == first


def test_a_split_of_version_0_is_read_keeps_its_digest_and_is_not_rewritten(tmp_path: Path) -> None:
    an_index(tmp_path, [an_entry(n) for n in range(5)])
    digest = split_cases(tmp_path, a_plan()).split_digest
    content = json.loads(dataset.split_path(tmp_path).read_bytes())
    assert content.pop("format") == "brainfed-split-1"
    assert content.pop("left_out") == {}
    old = json.dumps({"format": "brainfed-split-0", **content})
    dataset.split_path(tmp_path).write_text(old)
    assert dataset.split_digest(tmp_path) == digest
    result = split_cases(tmp_path, a_plan())
    assert (result.split_digest, result.is_new) == (digest, False)
    assert dataset.split_path(tmp_path).read_text() == old
    an_index(tmp_path, [an_entry(n) for n in range(6)])
    split_cases(tmp_path, a_plan())
    assert dataset.read_split(tmp_path).format == "brainfed-split-1"


@pytest.mark.parametrize(
    "change",
    [
        {"left_out": {"a" * 16: "ugly"}},
        {"left_out": {"me": "held"}},
        {"format": "brainfed-split-2"},
    ],
)
def test_a_split_that_leaves_out_for_another_reason_is_damaged(
    tmp_path: Path, change: dict[str, object]
) -> None:
    an_index(tmp_path, [an_entry(n) for n in range(4)])
    split_cases(tmp_path, a_plan())
    path = dataset.split_path(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    with pytest.raises(ScanError, match="damaged"):
        dataset.read_split(tmp_path)
