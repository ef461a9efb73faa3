from dataclasses import replace
from pathlib import Path

import pytest

from brainfed.core.cohort import Subset
from brainfed.errors import NotReadyError, ScanError
from brainfed.formats import dataset, identities
from brainfed.formats.dataset import CaseEntry, Index
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
