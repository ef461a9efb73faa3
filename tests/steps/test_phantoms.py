from pathlib import Path

from brainfed.core.labels import LabelProtocol
from brainfed.core.phantom import Scanner
from brainfed.formats import dataset
from brainfed.steps.case_rows import CaseStatus
from brainfed.steps.phantoms import CONSORTIUM, PhantomSite, write_cohort, write_consortium
from brainfed.steps.preprocess import Wish, preprocess_folder
from brainfed.steps.split import split_cases
from tests.builders import a_plan

TWO_SITES = (PhantomSite("a", 2, Scanner()), PhantomSite("b", 1, Scanner(gain=100, gamma=0.7)))


def content(folder: Path) -> dict[Path, bytes]:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folders = write_consortium(tmp_path / name, sites=TWO_SITES, seed=5)
        assert folders == {site: tmp_path / name / site for site in ("a", "b")}
    assert content(tmp_path / "one") == content(tmp_path / "two")
    write_consortium(tmp_path / "three", sites=TWO_SITES, seed=6)
    assert content(tmp_path / "one") != content(tmp_path / "three")


def test_what_is_missing_after_an_interruption_is_made_again(tmp_path: Path) -> None:
    write_consortium(tmp_path, sites=TWO_SITES)
    before = content(tmp_path)
    case = next(path for path in before if path.name.endswith("_seg.nii.gz"))
    (tmp_path / case).unlink()
    write_consortium(tmp_path, sites=TWO_SITES)
    assert content(tmp_path) == before


def test_a_cohort_of_phantoms_can_be_preprocessed_and_split(tmp_path: Path) -> None:
    folders = write_cohort(tmp_path / "scans", 3, Scanner(), seed=1)
    assert [folder.name for folder in folders] == ["phantom-001", "phantom-002", "phantom-003"]
    plan = a_plan(
        scans={"required": ("flair", "t1", "t1ce", "t2"), "regions": ("WT", "TC", "ET")},
        grid={"size": (64, 64)},
    )
    wish = Wish(protocol=LabelProtocol.BRATS2017)
    result = preprocess_folder(tmp_path / "data", tmp_path / "scans", plan, wish)
    assert result.count(CaseStatus.MADE) == 3
    for entry in dataset.read_index(tmp_path / "data"):
        assert entry.present == (True,) * 4
        assert entry.n_slices == 12
        assert entry.tumour_lost_fraction == 0
        mask = dataset.read_case(dataset.case_path(tmp_path / "data", entry.id)).brain_mask
        assert 0.15 < mask.mean() < 0.7
    assert not split_cases(tmp_path / "data", plan).only_evaluates


def test_the_shipped_consortium_has_four_sites_that_differ_in_every_way() -> None:
    assert len({site.name for site in CONSORTIUM}) == 4
    assert len({site.n_patients for site in CONSORTIUM}) >= 3
    for part in ("gain", "gamma", "noise", "blur_mm", "fluid_suppression"):
        assert len({getattr(site.scanner, part) for site in CONSORTIUM}) >= 3, part
