"""`torchrun -m brainfed train-round`: several processes, one update, and one voice."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from brainfed.core.architecture import tensor_table
from brainfed.formats import dataset, weights, workspace
from brainfed.formats.dataset import Subset
from brainfed.formats.workspace import Workspace
from brainfed.steps.train import train_round
from tests.steps.joined import a_joined_site, a_quick_plan

SECONDS = 300


def torchrun(place: Workspace, *words: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    return subprocess.run(
        [*launcher, "-m", "brainfed", "train-round", "--threads", "1", *words],
        cwd=place.root,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def own_lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What brainfed says of an error; torchrun adds lines of its own."""
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


@pytest.mark.slow
def test_two_processes_make_the_update_that_one_makes_but_for_rounding(tmp_path: Path) -> None:
    plan = a_quick_plan()
    place = a_joined_site(tmp_path / "several", plan)
    done = torchrun(place, "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)  # one object, so one process spoke
    alone = train_round(a_joined_site(tmp_path / "alone", plan), threads=1, device="cpu")
    assert alone is not None
    table = tensor_table(plan)
    found = weights.read_tensors(Path(told["update"]["path"]), table)
    wanted = weights.read_tensors(alone.update.path, table)
    for name in table:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-4)
    assert len(list(place.round_folder(1).glob("*.update.safetensors"))) == 1
    assert told["n_steps"] == 3
    again = torchrun(place, "--device", "cpu", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["already"]


@pytest.mark.slow
def test_several_processes_stop_after_the_epoch_that_the_first_one_says(tmp_path: Path) -> None:
    training = {"epochs_per_round": 6, "steps_per_round": 0, "patience": 2, "rate": 0.005}
    plan = a_quick_plan(method="iil", training=training | {"schedule": "constant"})
    place = a_joined_site(tmp_path / "several", plan)
    done = torchrun(place, "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    alone = train_round(a_joined_site(tmp_path / "alone", plan), threads=1, device="cpu")
    assert alone is not None
    assert alone.trained is not None
    assert told["n_steps"] == len(alone.trained.steps)
    assert told["best_epoch"] == alone.trained.best_epoch
    table = tensor_table(plan)
    found = weights.read_tensors(Path(told["update"]["path"]), table)
    wanted = weights.read_tensors(alone.update.path, table)
    for name in table:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-3)


@pytest.mark.slow
def test_what_all_processes_find_wrong_is_said_once(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    done = torchrun(place, "--device", "cpu", "--precision", "fp16")
    assert done.returncode != 0
    assert len(own_lines(done)) == 1
    assert "precision" in own_lines(done)[0]
    assert "bug" not in done.stderr


@pytest.mark.slow
def test_a_held_workspace_is_said_once_and_by_the_first_process(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    with workspace.locked(place):
        done = torchrun(place, "--device", "cpu")
    assert done.returncode != 0
    assert [line for line in own_lines(done) if "Another brainfed command" in line] == own_lines(
        done
    )
    assert len(own_lines(done)) == 1


@pytest.mark.slow
def test_a_damaged_case_is_said_once_and_nothing_is_written(tmp_path: Path) -> None:
    place = a_joined_site(tmp_path)
    first = dataset.cases_of(place.data, Subset.TRAIN)[0]
    path = dataset.case_path(place.data, first.id)
    path.write_bytes(path.read_bytes() + b"x")
    done = torchrun(place, "--device", "cpu")
    assert done.returncode != 0
    assert len(own_lines(done)) == 1, done.stderr
    assert not place.round_folder(1).exists()


@pytest.mark.slow
def test_a_single_gpu_is_not_for_several_processes(tmp_path: Path) -> None:
    done = torchrun(a_joined_site(tmp_path), "--device", "cuda:7")
    assert done.returncode != 0
    assert "each process has a GPU of its own" in done.stderr
    assert len(own_lines(done)) == 1
