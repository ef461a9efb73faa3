import gzip
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainfed.core.labels import LabelProtocol
from brainfed.core.progress import Progress, silent
from brainfed.errors import NotReadyError, ScanError
from brainfed.formats import dataset, identities
from brainfed.plan import Plan
from brainfed.steps.case_rows import CaseRow, CaseStatus, PreprocessResult, RefusedCasesError
from brainfed.steps.preprocess import Wish, preprocess_folder
from tests.builders import (
    SHARED_DATA,
    a_geometry,
    a_head,
    a_label,
    a_plan,
    write_case_folder,
    write_nifti,
)

PLAN = a_plan(scans={"required": ("flair",), "optional": ("t1ce",)})


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three cases, each with FLAIR and T1ce."""
    for number in range(3):
        a_folder(tmp_path, f"case{number}", number)
    return tmp_path / "scans"


def a_folder(tmp_path: Path, name: str, seed: int, **how: Any) -> Path:
    modalities = how.pop("modalities", ("flair", "t1ce"))
    return write_case_folder(tmp_path / "scans", name, seed=seed, modalities=modalities, **how)


def run(
    scans: Path, plan: Plan = PLAN, progress: Progress = silent, **how: Any
) -> PreprocessResult:
    wish = Wish(**{"protocol": LabelProtocol.BRATS2017, **how})
    return preprocess_folder(scans.parent / "data", scans, plan, wish, progress=progress)


def refused(scans: Path, **how: Any) -> dict[str, CaseRow]:
    with pytest.raises(RefusedCasesError) as caught:
        run(scans, **how)
    return {row.name: row for row in caught.value.result.rows}


def statuses(result: PreprocessResult) -> dict[str, str]:
    return {row.name: str(row.status) for row in result.rows}


def files_of(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_each_folder_becomes_a_case(scans: Path) -> None:
    result = run(scans)
    assert statuses(result) == dict.fromkeys(("case0", "case1", "case2"), "made")
    entries = dataset.read_index(scans.parent / "data")
    assert [entry.id for entry in entries] == sorted(row.case_id for row in result.rows)
    assert result.dataset_digest == dataset.dataset_digest(entries)
    for entry in entries:
        case = dataset.read_case(dataset.case_path(scans.parent / "data", entry.id), entry.digest)
        assert case.image.shape == (2, 6, 32, 32)
        assert (case.id, case.patient, case.present) == (entry.id, entry.patient, (True, True))
        assert case.spacing_mm == pytest.approx((3, 2, 2))
    row = result.rows[0]
    assert row.entry is not None
    assert row.tumour_ml == pytest.approx(row.entry.n_tumour_voxels * 12 / 1000)


def test_no_name_is_in_the_index_or_in_a_case(scans: Path) -> None:
    run(scans)
    for path, (content, _) in files_of(scans.parent / "data").items():
        is_for_people = path.name in {"identities.json", "review.csv", "quality.html"}
        assert (b"case0" in content) <= (is_for_people or path.parent.name == "quality")
        assert "case0" not in str(path.name)


def test_a_second_command_keeps_what_is_finished(scans: Path, tmp_path: Path) -> None:
    run(scans)
    before = files_of(tmp_path / "data" / "cases")
    assert set(statuses(run(scans)).values()) == {"kept"}
    assert files_of(tmp_path / "data" / "cases") == before


def test_only_what_changed_is_made_again(scans: Path, tmp_path: Path) -> None:
    run(scans)
    write_nifti(scans / "case1" / "case1_seg.nii.gz", a_label(tumour_radius_mm=8))
    a_folder(tmp_path, "case3", 3)
    assert statuses(run(scans)) == {
        "case0": "kept",
        "case1": "made",
        "case2": "kept",
        "case3": "made",
    }


def test_a_damaged_or_lost_case_is_made_again(scans: Path, tmp_path: Path) -> None:
    first = run(scans)
    paths = [dataset.case_path(tmp_path / "data", row.case_id) for row in first.rows]
    content = paths[0].read_bytes()
    paths[0].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    paths[1].unlink()
    second = run(scans)
    assert statuses(second) == {"case0": "made", "case1": "made", "case2": "kept"}
    assert second.dataset_digest == first.dataset_digest


def test_another_protocol_makes_the_cases_again(scans: Path) -> None:
    plan = a_plan(scans={"required": ("flair",), "optional": ("t1ce",), "regions": ("TC",)})
    run(scans, plan)
    assert set(statuses(run(scans, plan, protocol=LabelProtocol.BRATS2012)).values()) == {"made"}


def test_other_scans_join_and_earlier_cases_stay(scans: Path, tmp_path: Path) -> None:
    run(scans)
    write_case_folder(tmp_path / "more", "late", seed=9, modalities=("flair",))
    assert run(tmp_path / "more").n_cases == 4


def test_a_missing_optional_modality_is_a_zero_channel_and_noted(tmp_path: Path) -> None:
    a_folder(tmp_path, "x", 1, modalities=("flair",))
    (row,) = run(tmp_path / "scans").rows
    assert row.entry is not None
    assert row.entry.present == (True, False)
    case = dataset.read_case(dataset.case_path(tmp_path / "data", row.case_id))
    assert not case.image[1].any()


def test_a_case_without_tumour_is_made_with_a_warning(tmp_path: Path) -> None:
    a_folder(tmp_path, "x", 1, tumour_radius_mm=0)
    a_folder(tmp_path, "y", 2, tumour_radius_mm=0)  # the same label: no duplicate
    rows = run(tmp_path / "scans").rows
    assert [row.status for row in rows] == [CaseStatus.MADE] * 2
    assert "no tumour" in " ".join(rows[0].findings)


def truncate(folder: Path) -> None:
    path = folder / f"{folder.name}_flair.nii.gz"
    path.write_bytes(path.read_bytes()[:-3000])


def truncate_unpacked(folder: Path) -> None:
    path = folder / f"{folder.name}_flair.nii.gz"
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes())[:-1])
    path.unlink()


def remove_flair(folder: Path) -> None:
    (folder / f"{folder.name}_flair.nii.gz").unlink()


def remove_label(folder: Path) -> None:
    (folder / f"{folder.name}_seg.nii.gz").unlink()


def put_image(folder: Path, kind: str, array: np.ndarray, **geometry: Any) -> None:
    base = replace(a_geometry(array.shape), **geometry)
    write_nifti(folder / f"{folder.name}_{kind}.nii.gz", array, base)


def shift_origin(folder: Path) -> None:
    put_image(folder, "t1ce", a_head(seed=5)[0]["flair"], origin_mm=(0.0, 5.0, 2.0))


def change_spacing(folder: Path) -> None:
    put_image(folder, "t1ce", a_head(seed=5)[0]["flair"], spacing_mm=(2.0, 2.0, 3.5))


def flip_direction(folder: Path) -> None:
    flipped = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
    put_image(folder, "t1ce", a_head(seed=5)[0]["flair"], direction=flipped)


def change_size(folder: Path) -> None:
    put_image(folder, "t1ce", a_head((7, 40, 40))[0]["flair"])


def make_blank(folder: Path) -> None:
    put_image(folder, "t1ce", np.zeros((6, 40, 40), np.int16))


def make_constant(folder: Path) -> None:
    put_image(folder, "t1ce", np.full((6, 40, 40), 7, np.int16))


def put_nan(folder: Path) -> None:
    image = a_head(seed=5)[0]["flair"]
    image[2, 2, 2] = np.nan
    put_image(folder, "t1ce", image)


def put_strange_label(folder: Path) -> None:
    put_image(folder, "seg", np.where(a_label() == 4, 3, a_label()).astype(np.uint8))


def put_fourth_dimension(folder: Path) -> None:
    path = folder / f"{folder.name}_flair.nii.gz"
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[40:50] = np.array([4, 40, 40, 3, 2], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(data)))


def copy_under_two_names(folder: Path) -> None:
    name = folder.name
    shutil.copy(folder / f"{name}_flair.nii.gz", folder / f"{name}_t1ce.nii.gz")


def keep_two_of_one(folder: Path) -> None:
    name = folder.name
    shutil.copy(folder / f"{name}_t1ce.nii.gz", folder / f"{name}_t1gd.nii.gz")


def put_junk(folder: Path) -> None:
    (folder / f"{folder.name}_flair.nii.gz").write_bytes(b"not a scan")


BROKEN = {
    truncate: "truncated",
    truncate_unpacked: "truncated",
    remove_flair: "Missing: flair",
    remove_label: "Missing: seg",
    shift_origin: "origin",
    change_spacing: "spacing",
    flip_direction: "direction",
    change_size: "size",
    make_blank: "all zero",
    make_constant: "one single value",
    put_nan: "not finite",
    put_strange_label: "outside the protocol",
    put_fourth_dimension: "4-D",
    copy_under_two_names: "one and the same image",
    keep_two_of_one: "Two files",
    put_junk: "damaged",
}


@pytest.mark.parametrize("breaking", BROKEN, ids=lambda f: f.__name__)
def test_a_case_that_fails_is_refused_with_its_reason_and_the_others_are_made(
    scans: Path, tmp_path: Path, breaking: Any
) -> None:
    breaking(scans / "case1")
    rows = refused(scans)
    assert rows["case1"].status is CaseStatus.REFUSED
    assert BROKEN[breaking] in (rows["case1"].reason or "")
    assert rows["case0"].status is rows["case2"].status is CaseStatus.MADE
    assert len(dataset.read_index(tmp_path / "data")) == 2
    assert len(list((tmp_path / "data" / "cases").iterdir())) == 2


def test_the_error_names_the_refused_and_exits_with_5(scans: Path) -> None:
    truncate(scans / "case1")
    with pytest.raises(ScanError) as caught:
        run(scans)
    assert caught.value.exit_code == 5
    assert "case1" in (caught.value.found or "")
    assert "--skip-incomplete" in (caught.value.hint or "")


def test_incomplete_cases_are_skipped_on_demand_and_that_is_written_down(
    scans: Path, tmp_path: Path
) -> None:
    truncate(scans / "case1")
    result = run(scans, skip_incomplete=True)
    assert statuses(result) == {"case0": "made", "case1": "skipped", "case2": "made"}
    (skipped,) = dataset.read_whole_index(tmp_path / "data").skipped
    assert skipped.id == result.rows[1].case_id
    assert "truncated" in skipped.reason
    assert "case1" not in dataset.index_path(tmp_path / "data").read_text()


def test_a_mended_case_leaves_the_list_of_skipped(scans: Path, tmp_path: Path) -> None:
    good = files_of(scans / "case1")
    truncate(scans / "case1")
    run(scans, skip_incomplete=True)
    for path, (content, _) in good.items():
        path.write_bytes(content)
    assert run(scans).n_cases == 3
    assert not dataset.read_whole_index(tmp_path / "data").skipped


def test_one_image_in_two_cases_is_refused_in_both(scans: Path, tmp_path: Path) -> None:
    packed = (scans / "case0" / "case0_flair.nii.gz").read_bytes()
    (scans / "case2" / "case2_flair.nii.gz").unlink()
    # Unpacked, so that the files differ and only the images are the same.
    (scans / "case2" / "case2_flair.nii").write_bytes(gzip.decompress(packed))
    rows = refused(scans)
    assert rows["case0"].status is rows["case2"].status is CaseStatus.REFUSED
    assert "another case" in (rows["case2"].reason or "")
    assert len(list((tmp_path / "data" / "cases").iterdir())) == 1


def test_an_image_of_an_earlier_command_is_refused_under_a_new_name(
    scans: Path, tmp_path: Path
) -> None:
    run(scans)
    more = tmp_path / "more" / "copy"
    more.mkdir(parents=True)
    for kind in ("flair", "seg"):
        source = scans / "case0" / f"case0_{kind}.nii.gz"
        shutil.copy(source, more / f"copy_{kind}.nii.gz")
    assert refused(tmp_path / "more")["copy"].status is CaseStatus.REFUSED
    assert len(dataset.read_index(tmp_path / "data")) == 3


def test_visits_of_a_patient_share_the_patients_id(tmp_path: Path) -> None:
    for seed, visit in enumerate(("BraTS-GLI-00005-100", "BraTS-GLI-00005-101")):
        a_folder(tmp_path, visit, seed)
    first, second = run(tmp_path / "scans").rows
    assert first.patient == "BraTS-GLI-00005"
    assert first.entry is not None
    assert second.entry is not None
    assert first.entry.patient == second.entry.patient
    assert first.case_id != second.case_id


def test_a_plan_of_first_visits_skips_the_others(tmp_path: Path) -> None:
    for seed, visit in enumerate(("BraTS-GLI-00005-101", "BraTS-GLI-00005-100")):
        a_folder(tmp_path, visit, seed)
    plan = a_plan(cohort={"first_visit_only": True})
    result = run(tmp_path / "scans", plan)
    assert statuses(result) == {"BraTS-GLI-00005-100": "made", "BraTS-GLI-00005-101": "skipped"}
    assert result.n_cases == 1


@pytest.mark.parametrize("name", ["a b", "größe 'x'", "$(reboot)", "[bold]x", "x\ny\x1b[2J", "-rf"])
def test_special_characters_in_names_do_no_harm(tmp_path: Path, name: str) -> None:
    a_folder(tmp_path, "plain", 1)
    (tmp_path / "scans" / "plain").rename(tmp_path / "scans" / name)
    for path in list((tmp_path / "scans" / name).iterdir()):
        path.rename(path.with_name(path.name.replace("plain", name)))
    (row,) = run(tmp_path / "scans").rows
    assert row.status is CaseStatus.MADE
    assert row.name.isprintable()
    assert identities.read(tmp_path / "data").cases == {row.case_id: name}


def test_a_name_that_is_no_text_is_refused(scans: Path, tmp_path: Path) -> None:
    shutil.rmtree(scans / "case1")
    shutil.rmtree(scans / "case2")
    name = os.fsdecode(b"\xff\xfe")
    try:
        (scans / "case0").rename(scans / name)
    except OSError:
        pytest.skip("this file system takes names of valid text only")
    for path in list((scans / name).iterdir()):
        path.rename(path.with_name(path.name.replace("case0", name)))
    (row,) = refused(scans).values()
    assert "not valid text" in (row.reason or "")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    with pytest.raises(ScanError, match="no case"):
        run(tmp_path / "scans")
    assert not (tmp_path / "data").exists()


def test_a_protocol_that_cannot_give_the_regions_is_refused_before_any_case(scans: Path) -> None:
    plan = a_plan(scans={"regions": ("WT", "ET")})
    with pytest.raises(ScanError, match="can't give ET"):
        run(scans, plan, protocol=LabelProtocol.WHOLE_TUMOUR)
    assert not (scans.parent / "data").exists()


def test_cases_of_another_plan_are_not_mixed(scans: Path, tmp_path: Path) -> None:
    run(scans)
    before = files_of(tmp_path / "data")
    with pytest.raises(ScanError, match="another plan") as caught:
        run(scans, a_plan(grid={"size": (16, 16)}))
    assert "data/cases and data/split.json away" in (caught.value.hint or "")
    assert files_of(tmp_path / "data") == before


def test_a_lost_key_is_not_replaced_in_silence(scans: Path, tmp_path: Path) -> None:
    run(scans)
    identities.path_of(tmp_path / "data").unlink()
    with pytest.raises(ScanError, match=r"identities\.json is gone"):
        run(scans)


def test_progress_is_told_of_each_case(scans: Path) -> None:
    heard: list[tuple[str, int, int]] = []

    def listen(what: str, done: int, total: int, note: str = "") -> None:
        heard.append((what, done, total))

    run(scans, progress=listen)
    assert heard == [("cases", 1, 3), ("cases", 2, 3), ("cases", 3, 3)]


def test_an_interrupted_command_keeps_what_it_finished(scans: Path, tmp_path: Path) -> None:
    def interrupt(what: str, done: int, total: int, note: str = "") -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(scans, progress=interrupt)
    with pytest.raises(NotReadyError):
        dataset.read_index(tmp_path / "data")
    assert sorted(statuses(run(scans)).values()) == ["kept", "kept", "made"]


def test_several_processes_make_the_same_cases_and_stop_when_interrupted(
    scans: Path, tmp_path: Path
) -> None:
    truncate(scans / "case2")

    def interrupt(what: str, done: int, total: int, note: str = "") -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(scans, jobs=2, progress=interrupt)
    with pytest.raises(RefusedCasesError) as caught:
        run(scans, jobs=2)
    assert "kept" in statuses(caught.value.result).values()
    in_processes = files_of(tmp_path / "data" / "cases")
    for path in in_processes:
        path.unlink()
    refused(scans)
    alone = files_of(tmp_path / "data" / "cases")
    assert {p: c for p, (c, _) in in_processes.items()} == {p: c for p, (c, _) in alone.items()}


KILLED = """
import os, signal, sys
from pathlib import Path
from brainfed.core.labels import LabelProtocol
from brainfed.core.progress import Progress, silent
from brainfed.steps.preprocess import Wish, preprocess_folder
from tests.steps.test_preprocess import PLAN

def kill(what, done, total, note=""):
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    wish = Wish(jobs=int(sys.argv[3]), protocol=LabelProtocol.BRATS2017)
    preprocess_folder(Path(sys.argv[1]), Path(sys.argv[2]), PLAN, wish, progress=kill)
"""


def descendants_left(mark: Path) -> list[str]:
    """Processes that still carry this mark in their environment."""
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
        except OSError:
            continue  # it has ended meanwhile, or is another user's
        if f"BRAINFED_TEST={mark}".encode() in environment.split(b"\0"):
            left.append(process.name)
    return left


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for orphans in /proc")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_command_can_be_run_again(scans: Path, tmp_path: Path, jobs: int) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    root = Path(__file__).resolve().parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}",
        "BRAINFED_TEST": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, script, tmp_path / "data", scans, str(jobs)],
        env=environment,
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not dataset.index_path(tmp_path / "data").exists()
    for _ in range(100):
        if not descendants_left(tmp_path):
            break
        time.sleep(0.1)
    assert not descendants_left(tmp_path)
    result = run(scans)
    assert result.n_cases == 3
    assert "kept" in statuses(result).values()


real = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs ../shared/data")


@pytest.mark.real
@real
def test_real_scans_become_cases(tmp_path: Path) -> None:
    plan = a_plan(
        scans={"required": ("flair",), "optional": ("t1", "t1ce")}, grid={"size": (128, 128)}
    )
    (tmp_path / "scans").mkdir()
    for case in sorted((SHARED_DATA / "lgg-sites" / "CS").iterdir())[:3]:
        (tmp_path / "scans" / case.name).symlink_to(case)
    result = run(
        tmp_path / "scans", plan, protocol=LabelProtocol.WHOLE_TUMOUR, spacing_nominal=True
    )
    assert result.count(CaseStatus.MADE) == len(result.rows) == 3
    for row in result.rows:
        assert row.entry is not None
        assert row.tumour_ml is None  # the spacing is nominal
        assert row.entry.n_tumour_voxels > 0
        assert row.entry.tumour_lost_fraction == 0
    case = dataset.read_case(dataset.case_path(tmp_path / "data", result.rows[0].case_id))
    assert 0.2 < case.brain_mask.mean() < 0.8
    tumour = case.label > 0
    assert case.image[0][tumour].mean() > case.image[0][case.brain_mask & ~tumour].mean()


@pytest.mark.real
@real
def test_a_real_label_is_outside_a_wrong_protocol(tmp_path: Path) -> None:
    source = SHARED_DATA / "deepmedic-brats2013" / "train"
    case = next(path for path in sorted(source.iterdir()) if path.is_dir())
    folder = tmp_path / "scans" / "x"
    folder.mkdir(parents=True)
    (folder / "x_flair.nii.gz").symlink_to(case / "Flair_subtrMeanDivStd.nii.gz")
    (folder / "x_seg.nii.gz").symlink_to(case / "OTMultiClass.nii.gz")
    plan = a_plan(grid={"in_plane_mm": 2.0, "size": (96, 96)})
    assert "outside the protocol" in (refused(tmp_path / "scans", plan=plan)["x"].reason or "")
    result = run(tmp_path / "scans", plan, protocol=LabelProtocol.BRATS2012)
    (entry,) = dataset.read_index(tmp_path / "data")
    assert result.count(CaseStatus.MADE) == 1
    assert entry.n_slices == 155
    assert entry.tumour_lost_fraction == 0
