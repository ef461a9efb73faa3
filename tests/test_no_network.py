"""The whole story with the internet forbidden: no socket, no telemetry, nothing in HOME."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from brainfed import plan as plans
from tests.builders import write_case_folder
from tests.steps.joined import a_quick_plan

SECONDS = 300
FORBIDDEN = 99
"""Exit code of a process that wanted to reach the internet."""

GUARD = f"""
import os, socket, sys

def guard(event, arguments):
    internet = (socket.AF_INET, socket.AF_INET6)
    if event == "socket.__new__" and arguments[1] not in internet:
        return
    if event.startswith(("socket.", "urllib.", "http.")):
        os.write(2, f"{{event}} {{arguments}}\\n".encode())
        os._exit({FORBIDDEN})  # an exception could be caught

sys.addaudithook(guard)
"""

STORY = """
import json, shutil
from pathlib import Path

from brainfed.cli.app import run
from brainfed.formats import workspace

here = Path(sys.argv[1])
lead, site, stick = here / "lead", here / "site", here / "stick"
environment = dict(os.environ)

def brainfed(*words):
    print(">", *words, flush=True)
    code = run([str(word) for word in words])
    assert code == 0, (words, code)

def at(place, *words):
    brainfed(*words, "--workspace", place)

def fingerprint(place):
    return workspace.find(place).public_key().fingerprint

def carry(source, target, *words):
    stick.mkdir()
    at(source, "export", "--to", stick)
    at(target, "import", stick, *words)
    shutil.rmtree(stick)

def admit():
    stick.mkdir()
    at(site, "export", "--to", stick)
    (enrolment,) = stick.glob("*enrolment.json")
    at(lead, "admit", enrolment, "--fingerprint", fingerprint(site))
    shutil.rmtree(stick)

at(lead, "init", "coordinator", "--name", "uni-lead")
at(site, "init", "site", "--name", "hospital-a", "--patients", "6")
at(site, "key", "show")
brainfed("plan", "check", here / "plan.toml")
brainfed("plan", "show", here / "plan.toml")
admit()
at(lead, "start", here / "plan.toml")
carry(lead, site, "--yes", "--fingerprint", fingerprint(lead))
at(site, "check", here / "scans", "--labels", "brats2017")
at(site, "preprocess", here / "scans", "--labels", "brats2017", "--dry-run")
at(site, "preprocess", here / "scans", "--labels", "brats2017")
at(site, "review")
at(site, "split")
at(site, "train-round", "--threads", "1", "--device", "cpu")
(update,) = site.glob("rounds/r0001/*.update.safetensors")
brainfed("inspect", update)
carry(site, lead)
at(lead, "aggregate")
carry(lead, site)
at(site, "evaluate", "--device", "cpu", "--threads", "1")
carry(site, lead)
at(lead, "status", "--rounds")
at(lead, "finish", "--round", "1")
carry(lead, site)
at(site, "evaluate", "--subset", "test", "--yes", "--device", "cpu", "--threads", "1")
(newest,) = lead.glob("rounds/r0001/*.global.safetensors")
brainfed("predict", newest, here / "scans", here / "outlines", "--labels", "whole-tumour",
         "--start", lead / "federation" / "start.json", "--device", "cpu", "--threads", "1")
at(site, "status")
at(lead, "status", "--json")
at(site, "report")
at(lead, "report", "--model-card")
at(lead, "amend", here / "next.toml", "--from-round", "2")
carry(lead, site, "--yes")
at(site, "key", "rotate")
admit()
at(lead, "key", "rotate")
at(lead, "revoke", "hospital-a", "--yes")
at(lead, "archive", here / "archive")
brainfed("audit", here / "archive")
at(site, "exclude", next((here / "scans").iterdir()).name, "--reason", "bad-scan", "--yes")
at(site, "purge", "--reason", "left", "--yes")
brainfed("demo", "--scans-only", "--out", here / "demo")

changed = {name for name in environment.keys() | os.environ.keys()
           if environment.get(name) != os.environ.get(name)}
print("environment:", json.dumps(sorted(changed)))
"""


@dataclass(frozen=True)
class Told:
    """How the story went."""

    code: int
    words: str
    home: Path
    temporary: Path
    trace: str | None
    """System calls of the network's kind, of all its processes; None without strace."""


def tell(folder: Path, script: str) -> Told:
    """Run a script in a process of its own, with an empty HOME, under strace if there is one."""
    home, temporary, log = folder / "home", folder / "tmp", folder / "trace"
    home.mkdir()
    temporary.mkdir()
    words = [sys.executable, "-B", "-c", GUARD + script, str(folder)]
    if can_trace():
        calls = "trace=socket,connect,bind,sendto"
        words = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(log), "-e", calls, *words]
    done = subprocess.run(
        words,
        cwd=folder,
        env={
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "PATH": os.environ["PATH"],
            "OMP_NUM_THREADS": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    trace = log.read_text() if can_trace() else None
    return Told(done.returncode, done.stdout, home, temporary, trace)


def can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    words = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=socket", "true"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("story")
    for number in range(6):
        write_case_folder(
            folder / "scans", f"case{number}", seed=number, tumour_radius_mm=10 + number
        )
    for name, rate in (("plan", 0.001), ("next", 0.002)):
        plan = a_quick_plan(training={"rate": rate}, exchange={"encryption": "where-possible"})
        (folder / f"{name}.toml").write_text(plans.render(plan))
    return tell(folder, STORY)


def test_the_whole_story_goes_well_where_the_internet_is_forbidden(story: Told) -> None:
    assert story.code == 0, story.words[-3000:]
    assert "demo" in story.words.rpartition("\n> ")[2]


def test_no_library_of_ours_asks_the_system_for_an_internet_socket(story: Told) -> None:
    if story.trace is None:
        pytest.skip("strace is not installed, or ptrace is forbidden")
    assert "AF_INET" not in story.trace


def test_nothing_is_left_in_the_home_folder_and_no_temporary_file(story: Told) -> None:
    assert list(story.home.rglob("*")) == []
    # torch makes a folder there for its compiler, which is never called, and leaves it empty.
    assert [path for path in story.temporary.rglob("*") if path.is_file()] == []


def test_no_environment_variable_is_set_but_one_by_torch(story: Told) -> None:
    # The name of the empty folder above.
    assert 'environment: ["TORCHINDUCTOR_CACHE_DIR"]' in story.words


@pytest.mark.parametrize(
    "line",
    ["socket.socket()", "socket.getaddrinfo('example.org', 80)", "socket.socket(socket.AF_INET6)"],
)
def test_a_process_that_wants_the_internet_is_ended(tmp_path: Path, line: str) -> None:
    told = tell(tmp_path, line)
    assert told.code == FORBIDDEN
    assert told.words.startswith("socket.")


def test_a_library_that_wants_the_internet_would_be_seen(tmp_path: Path) -> None:
    if not can_trace():
        pytest.skip("strace is not installed, or ptrace is forbidden")
    told = tell(tmp_path, "import ctypes; ctypes.CDLL(None).socket(socket.AF_INET, 1, 0)")
    assert told.code == 0
    assert "AF_INET" in (told.trace or "")
