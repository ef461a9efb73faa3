"""The recipes of the page on own trainers, its scripts run as they stand there, by the commands."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from safetensors.numpy import load_file

from brainfed import plan as plans
from brainfed.cli.app import run
from brainfed.formats import signature
from brainfed.formats.workspace import Workspace
from brainfed.steps.admit import admit
from tests.builders import a_head, write_dataset
from tests.federation import Small, an_unstarted_federation, enrolment_of, say_yes

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "own-trainer.md"
NNUNET = Path(os.environ.get("PEERS", ROOT / "work" / "peers")) / "nnunet" / "bin"
PLAN = """format = 2
name = "own"
rounds = 2
[scans]
required = ["flair"]
[grid]
size = [32, 32]
[participation]
floor = 1
"""
N_ROUNDS = 2

Brainfed = Callable[..., str]


def scripts() -> dict[str, str]:
    """The page's scripts by name."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.S | re.M)
    return {block.split()[1]: block for block in blocks}


def a_script(folder: Path, name: str, **smaller: str) -> Path:
    """A script of the page; `smaller` puts other values in place of those of a real training."""
    text = scripts()[name]
    for names, values in smaller.items():
        pattern = rf"^{names.replace('_', ', ')} = [^#\n]*"
        text, n_found = re.subn(
            pattern, f"{names.replace('_', ', ')} = {values}\n", text, flags=re.M
        )
        assert n_found == 1, names
    path = folder / name
    path.write_text(text)
    return path


@pytest.fixture
def brainfed(capsys: pytest.CaptureFixture[str]) -> Brainfed:
    """Types a command line that must succeed; gives what it printed."""

    def typed(*words: object) -> str:
        capsys.readouterr()
        code = run([str(word) for word in words])
        found = capsys.readouterr()
        assert code == 0, found.err
        return found.out

    return typed


def python(executable: str | Path, *words: object, folder: Path, **variables: str) -> None:
    done = subprocess.run(
        [str(executable), *map(str, words)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def a_plan_for(brainfed: Brainfed, start: Path, *local: str) -> Path:
    """A plan as the page says: the tables on data, then what `from-weights` prints."""
    words = [word for pattern in local for word in ("--local", pattern)]
    path = start.with_name("plan.toml")
    path.write_text(PLAN + brainfed("plan", "from-weights", start, *words))
    brainfed("plan", "check", path)
    return path


def begin(brainfed: Brainfed, small: Small, plan: Path, start: Path) -> None:
    places = small.sites.values()
    admit(small.coordinator, [enrolment_of(site) for site in places], confirm=say_yes)
    brainfed("start", plan, "--weights", start, "--workspace", small.coordinator.root)
    fingerprint = small.coordinator.public_key().fingerprint
    brainfed("export", "--to", small.medium(), "--workspace", small.coordinator.root)
    for site in places:
        joining = ("--yes", "--fingerprint", fingerprint, "--workspace", site.root)
        brainfed("import", small.medium(), *joining)


def close(brainfed: Brainfed, small: Small) -> None:
    """From the updates on the medium to global weights at every site."""
    brainfed("import", small.medium(), "--workspace", small.coordinator.root)
    brainfed("aggregate", "--workspace", small.coordinator.root)
    brainfed("export", "--to", small.medium(), "--workspace", small.coordinator.root)
    for site in small.sites.values():
        brainfed("import", small.medium(), "--workspace", site.root)


def newest(place: Workspace) -> Path:
    """The newest global weights, found by their name, as a person does."""
    return sorted(place.rounds.glob("r*/*.global.safetensors"))[-1]


def check_ended(brainfed: Brainfed, small: Small) -> None:
    """The last weights differ from the first, are the same everywhere, and follow to the bit."""
    places = [small.coordinator, *small.sites.values()]
    assert len({signature.digest_of(newest(place)) for place in places}) == 1
    first = load_file(next(small.coordinator.rounds.glob("r0000/*.global.safetensors")))
    last = load_file(newest(small.coordinator))
    assert f"r{N_ROUNDS:04d}" in newest(small.coordinator).name
    assert first.keys() == last.keys()
    assert any((first[name] != last[name]).any() for name in first)
    assert all(np.isfinite(tensor).all() for tensor in last.values())
    told = json.loads(brainfed("audit", small.coordinator.root, "--json"))
    assert told["verdict"] == "re-derived"


def test_the_page_has_the_three_scripts() -> None:
    assert set(scripts()) == {"monai_round.py", "nnunet_round.py", "nnunet_weights.py"}


@pytest.mark.slow
def test_two_sites_train_a_network_of_monai_over_two_rounds(
    tmp_path: Path, brainfed: Brainfed
) -> None:
    small = an_unstarted_federation(tmp_path)
    script = a_script(tmp_path, "monai_round.py", STEPS_BATCH_FEATURES="3, 4, (4, 4, 8, 8, 8, 4)")
    start = tmp_path / "start.safetensors"
    python(sys.executable, script, start, folder=tmp_path)
    path = a_plan_for(brainfed, start, "*.running_*")
    plan = plans.load(path)
    assert {name.rsplit(".", 1)[1] for name in plan.network.local} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    for n_train, site in enumerate(small.sites.values(), start=2):
        write_dataset(site.data, plan, n_train=n_train)
    begin(brainfed, small, path, start)
    for _ in range(N_ROUNDS):
        for site in small.sites.values():
            python(sys.executable, script, "mine.safetensors", newest(site), folder=site.root)
            mine = site.root / "mine.safetensors"
            brainfed("export", "--weights", mine, "--to", small.medium(), "--workspace", site.root)
        close(brainfed, small)
    check_ended(brainfed, small)
    counters = [
        tensor for name, tensor in load_file(mine).items() if name.endswith("num_batches_tracked")
    ]
    assert {int(counter) for counter in counters} == {3 * N_ROUNDS}, "they go on at the site"
    assert not set(plan.network.local) & set(load_file(newest(small.coordinator)))


@pytest.mark.slow
@pytest.mark.skipif(not NNUNET.exists(), reason=f"no nnU-Net in {NNUNET}; `make own-trainer`")
def test_two_sites_train_the_network_of_nnu_net_over_two_rounds(
    tmp_path: Path, brainfed: Brainfed
) -> None:
    small = an_unstarted_federation(tmp_path)
    a_script(
        tmp_path,
        "nnunet_round.py",
        ROUNDS_EPOCHS_STEPS="2, 1, 3",
        DATASET_CONFIGURATION_FOLD='"1", "2d", "all"',
        DEVICE='torch.device("cpu")',
    )
    a_script(tmp_path, "nnunet_weights.py")
    first, other = small.sites.values()
    for seed, site in enumerate((first, other)):
        write_raw_dataset(site.root / "raw" / "Dataset001_Tumour", seed)
    nnunet(first, "nnUNetv2_plan_and_preprocess", "-d", 1, "-c", "2d", "-np", 1, "-npfp", 1)
    nnunet(other, "nnUNetv2_extract_fingerprint", "-d", 1, "-np", 1)
    for name in ("nnUNetPlans.json", "dataset.json"):
        source = preprocessed(first) if name == "nnUNetPlans.json" else raw(other)
        (preprocessed(other) / name).write_bytes((source / name).read_bytes())
    nnunet(other, "nnUNetv2_preprocess", "-d", 1, "-c", "2d", "-np", 1)

    nnunet(first, "python", tmp_path / "nnunet_round.py", 0)
    start = take_out(first, tmp_path / "start.safetensors")
    begin(brainfed, small, a_plan_for(brainfed, start), start)
    for number in range(1, N_ROUNDS + 1):
        for site in small.sites.values():
            nnunet(site, "python", tmp_path / "nnunet_round.py", number, newest(site))
            mine = take_out(site, site.root / "mine.safetensors")
            counts = ("--patients", 4, "--cases", 4, "--slices", 32)
            where = ("--to", small.medium(), "--workspace", site.root)
            brainfed("export", "--weights", mine, *counts, *where)
        close(brainfed, small)
    check_ended(brainfed, small)

    nnunet(
        first, "python", tmp_path / "nnunet_weights.py", "into", checkpoint(first), newest(first)
    )
    back = load_file(take_out(first, tmp_path / "back.safetensors"))
    last = load_file(newest(first))
    assert all(np.array_equal(back[name], last[name]) for name in last)
    out = first.root / "outlines"
    images = raw(first) / "imagesTr"
    words = ("-d", 1, "-c", "2d", "-f", "all", "-npp", 1, "-nps", 1, "-device", "cpu")
    nnunet(first, "nnUNetv2_predict", "-i", images, "-o", out, *words)
    assert len(list(out.glob("*.nii.gz"))) == 4


def nnunet(site: Workspace, program: str, *words: object) -> None:
    """A program of nnU-Net's environment at a site, with the variables that the page names."""
    folders = {
        f"nnUNet_{name}": str(site.root / name) for name in ("raw", "preprocessed", "results")
    }
    n_processes = "0" if program == "python" else "1"
    python(
        NNUNET / program,
        *words,
        folder=site.root,
        nnUNet_compile="f",
        nnUNet_n_proc_DA=n_processes,
        **folders,
    )


def raw(site: Workspace) -> Path:
    return site.root / "raw" / "Dataset001_Tumour"


def preprocessed(site: Workspace) -> Path:
    return site.root / "preprocessed" / "Dataset001_Tumour"


def checkpoint(site: Workspace) -> Path:
    (path,) = site.root.glob("results/*/*/fold_all/checkpoint_final.pth")
    return path


def take_out(site: Workspace, target: Path) -> Path:
    script = site.root.parent / "nnunet_weights.py"
    nnunet(site, "python", script, "out", checkpoint(site), target)
    return target


def write_raw_dataset(folder: Path, seed: int) -> None:
    """Four heads in nnU-Net's layout."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(4):
        images, label = a_head((8, 32, 32), tumour_radius_mm=10 + number, seed=10 * seed + number)
        write_volume(folder / "imagesTr" / f"case{number}_0000.nii.gz", images["flair"])
        write_volume(folder / "labelsTr" / f"case{number}.nii.gz", (label > 0).astype(np.uint8))
    content = {
        "channel_names": {"0": "FLAIR"},
        "labels": {"background": 0, "tumour": 1},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def write_volume(path: Path, array: NDArray[np.generic]) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((2.0, 2.0, 3.0))
    sitk.WriteImage(image, str(path))
