"""A command that is killed or interrupted in the middle of training is simply run again."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from brainfed.formats import rounds, signature, workspace
from brainfed.formats.workspace import Workspace
from tests.steps.joined import a_joined_site, a_quick_plan

SECONDS = 120
STEPS = 1000
"""Small ones, so many that training is still going on when it is stopped."""


def train_round(place: Workspace) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "brainfed", "train-round", "--threads", "1", "--device", "cpu"],
        cwd=place.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_until_it_trains(command: subprocess.Popen[bytes]) -> None:
    """Until torch and the cases are loaded and it has been at work for a moment."""
    for _ in range(SECONDS * 10):
        assert command.poll() is None, command.communicate()
        used = Path(f"/proc/{command.pid}/maps").read_text()
        if "libtorch_cpu" in used and "h5py" in used:
            time.sleep(1.5)
            return
        time.sleep(0.1)
    raise AssertionError("it never began")


def the_update(place: Workspace) -> str:
    (path,) = place.round_folder(1).glob("*.update.safetensors")
    return signature.digest_of(path).hex()


def test_training_that_is_killed_and_run_again_gives_the_uninterrupted_digest(
    tmp_path: Path,
) -> None:
    plan = a_quick_plan(training={"steps_per_round": STEPS})
    stopped = a_joined_site(tmp_path, plan)
    whole = Workspace(tmp_path / "whole", stopped.role, stopped.name)
    shutil.copytree(stopped.root, whole.root)
    reference = train_round(whole)
    _, words = reference.communicate(timeout=SECONDS)
    assert reference.returncode == 0, words.decode()

    # Interrupted while it runs code from a string, as imports do, CPython dies of the signal at the
    # very end, after our words; a shell sees 130 either way.
    for signal_number, codes in (
        (signal.SIGKILL, {-signal.SIGKILL}),
        (signal.SIGINT, {130, -signal.SIGINT}),
    ):
        command = train_round(stopped)
        wait_until_it_trains(command)
        command.send_signal(signal_number)
        _, words = command.communicate(timeout=SECONDS)
        if command.returncode == 0:
            break  # a fast machine had finished; what follows still must hold
        assert command.returncode in codes, words.decode()
        assert b"Traceback" not in words
        assert rounds.newest_round(stopped) == 0
        assert not list(stopped.rounds.glob("*/*.update.safetensors"))

    again = train_round(stopped)
    _, words = again.communicate(timeout=SECONDS)
    assert again.returncode == 0, words.decode()
    assert the_update(stopped) == the_update(whole)
    assert not list(stopped.root.rglob(".tmp-*"))
    assert workspace.find(stopped.root) == stopped
