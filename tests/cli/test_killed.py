"""A command that is stopped in the middle of training goes on when it is run again."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from brainfed.formats import checkpoint, rounds, signature, workspace
from brainfed.formats.workspace import Workspace
from tests.steps.joined import a_joined_site, a_quick_plan

SECONDS = 120
STEPS = 220
"""Small ones, so many that training is still going on when it is stopped."""

COMMAND = """
import sys

from brainfed.steps import keep_round

keep_round.EVERY_SECONDS = 0.1  # minutes, in life
from brainfed.__main__ import main

main()
"""
IN_2D: dict[str, Any] = {
    "network": {"dropout": 0.2, "dropout_levels": (1,)},
    "training": {"steps_per_round": STEPS, "augmentation": {"flip": 0.5, "noise": 0.1}},
}
IN_3D: dict[str, Any] = {
    "network": {
        "architecture": "unet-3d",
        "patch": (8, 16, 16),
        "channels": (4, 6, 8),
        "norm": "instance",
        "deep_supervision": True,
    },
    "training": {"steps_per_round": STEPS // 3, "batch": 2, "optimiser": "sgd"},
}


def train_round(place: Workspace) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "train-round", "--threads", "1", "--device", "cpu"],
        cwd=place.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def kept_at(place: Workspace) -> float:
    """When the checkpoint was written; 0 where there is none."""
    path = place.round_folder(1) / checkpoint.NAME
    return path.stat().st_mtime if path.exists() else 0.0


def wait_for_a_checkpoint(place: Workspace, command: subprocess.Popen[bytes]) -> None:
    """Until the command has written one."""
    before = kept_at(place)
    for _ in range(SECONDS * 50):
        if kept_at(place) > before or command.poll() is not None:
            return
        time.sleep(0.02)
    raise AssertionError("it never wrote one")


def n_steps_kept(place: Workspace) -> int:
    found = checkpoint.read(place.round_folder(1) / checkpoint.NAME)
    return 0 if found is None else len(found.log)


def the_update(place: Workspace) -> str:
    (path,) = place.round_folder(1).glob("*.update.safetensors")
    return signature.digest_of(path).hex()


def finish(command: subprocess.Popen[bytes]) -> str:
    words, errors = command.communicate(timeout=SECONDS)
    assert command.returncode == 0, errors.decode()
    return words.decode()


KILLED = (signal.SIGKILL, {-signal.SIGKILL})
# Interrupted while it runs code from a string, as imports do, CPython dies of the signal at the
# very end, after our words; a shell sees 130 either way.
INTERRUPTED = (signal.SIGINT, {130, -signal.SIGINT})
TERMINATED = (signal.SIGTERM, {130})


@pytest.mark.parametrize(
    ("content", "stops"),
    [
        pytest.param(IN_2D, (KILLED, INTERRUPTED), id="2-D"),
        pytest.param(IN_3D, (KILLED, TERMINATED), id="3-D", marks=pytest.mark.slow),
    ],
)
def test_training_that_is_killed_anywhere_ends_in_the_uninterrupted_digest(
    tmp_path: Path, content: dict[str, Any], stops: tuple[tuple[signal.Signals, set[int]], ...]
) -> None:
    stopped = a_joined_site(tmp_path, a_quick_plan(**content), n_slices=10)
    whole = Workspace(tmp_path / "whole", stopped.role, stopped.name)
    shutil.copytree(stopped.root, whole.root)
    finish(train_round(whole))

    moments = random.Random(7)
    for signal_number, codes in stops:
        before = n_steps_kept(stopped)
        command = train_round(stopped)
        wait_for_a_checkpoint(stopped, command)
        time.sleep(moments.uniform(0, 0.3))
        command.send_signal(signal_number)
        _, words = command.communicate(timeout=SECONDS)
        if command.returncode == 0:
            break  # a fast machine had finished; what follows still must hold
        assert command.returncode in codes, words.decode()
        assert b"Traceback" not in words
        assert n_steps_kept(stopped) > before
        assert rounds.newest_round(stopped) == 0
        assert not list(stopped.rounds.glob("*/*.update.safetensors"))

    finish(train_round(stopped))
    assert the_update(stopped) == the_update(whole)
    assert not (stopped.round_folder(1) / checkpoint.NAME).exists()
    assert not list(stopped.root.rglob(".tmp-*"))
    assert workspace.find(stopped.root) == stopped
