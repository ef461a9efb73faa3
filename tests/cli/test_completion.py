"""A shell completes commands, options, and the names of a workspace; real shells are asked."""

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brainfed.cli import completion
from brainfed.cli.app import run
from tests.cli.typed import Typed

SITES = ["hospital-a", "hospital-b", "hospital-c"]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """What completion reads of one: a marker, a roster, rounds."""
    roles = {
        "uni-lead": "coordinator",
        **dict.fromkeys(SITES, "site"),
        "hospital-a.release": "approver",
    }
    principals = [{"name": name, "role": role} for name, role in roles.items()]
    (tmp_path / "brainfed.toml").touch()
    (tmp_path / "federation").mkdir()
    roster = tmp_path / "federation" / "roster.json"
    roster.write_text(json.dumps({"principals": principals}))
    for number in (0, 1, 2, 12):
        (tmp_path / "rounds" / f"r{number:04d}").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    """What bash would be offered for a line, the last word being typed."""

    def ask(line: str) -> list[str]:
        monkeypatch.setenv(completion.VARIABLE, "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        capsys.readouterr()
        assert run([]) == 0
        told = capsys.readouterr()
        assert told.err == ""
        return told.out.split()

    return ask


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("brainfed im", ["import"]),
        ("brainfed plan c", ["check", "cost"]),
        ("brainfed split --w", ["--workspace"]),
        ("brainfed init ", ["coordinator", "site", "evaluator", "approver", "auditor"]),
        ("brainfed check scans --labels brats202", ["brats2023", "brats2024-post"]),
        ("brainfed check scans --labels=msd", ["msd"]),
        ("brainfed purge --reason l", ["left"]),
        ("brainfed aggregate --without x --reason not", ["not-reachable"]),
        ("brainfed evaluate --subset ", ["validation", "test"]),
        ("brainfed train-round --device c", ["cpu", "cuda"]),
        ("brainfed --completion ", ["bash", "zsh", "fish"]),
        ("brainfed simulate p", ["partition"]),
        ("brainfed import ", []),
        ("brainfed --version ", ["init"]),
    ],
)
def test_commands_options_and_choices_are_offered(offered, line: str, found: list[str]) -> None:
    if line == "brainfed --version ":
        assert found[0] in offered(line)
    else:
        assert offered(line) == found


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("aggregate --without ", SITES),
        ("aggregate --without hospital-a --reason late --without ", SITES[1:]),
        ("aggregate --again --with hospital-c", ["hospital-c"]),
        ("revoke ", [*SITES, "hospital-a.release"]),
        ("withdraw ", SITES),
        ("evaluate --round ", ["12", "2", "1", "0"]),
        ("finish --round 1", ["12", "1"]),
    ],
)
def test_sites_and_rounds_of_the_workspace_are_offered(
    offered, workspace: Path, monkeypatch: pytest.MonkeyPatch, words: str, found: list[str]
) -> None:
    monkeypatch.chdir(workspace / "rounds")
    assert offered(f"brainfed {words}") == found
    monkeypatch.chdir("/")
    command, _, rest = words.partition(" ")
    assert offered(f"brainfed {command} --workspace {workspace} {rest}") == found


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"principals": [{}]}', b"\xff", b'{"principals": 3}']
)
def test_a_damaged_roster_offers_nothing_and_says_nothing(
    offered, workspace: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(workspace)
    (workspace / "federation" / "roster.json").write_bytes(content)
    assert offered("brainfed revoke ") == []


LOADED = """
import os, sys
os.environ |= {"_BRAINFED_COMPLETE": "complete_bash", "COMP_WORDS": sys.argv[1], "COMP_CWORD": "3"}
from brainfed.cli.app import run
code = run([])
print(code, *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def test_completing_loads_nothing_heavy(workspace: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, "brainfed aggregate --without "],
        capture_output=True,
        text=True,
        check=True,
        cwd=workspace,
    )
    code, *modules = done.stderr.split()
    assert (code, done.stdout.split()) == ("0", SITES)
    # Of the heavy ones typer itself loads pydantic, as it does for help.
    heavy = {"torch", "numpy", "h5py", "SimpleITK", "cryptography", "safetensors", "filelock"}
    assert set(modules) & (heavy | {"rich", "matplotlib", "jinja2"}) == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed_and_nothing_is_written(
    typed: Typed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shell: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    answer = typed("--completion", shell)
    assert (answer.code, answer.err) == (0, "")
    assert "brainfed" in answer.out.splitlines()[0]
    assert list(tmp_path.iterdir()) == []
    assert completion.VARIABLE not in os.environ


def test_an_unknown_shell_is_a_usage_error(typed: Typed) -> None:
    assert typed("--completion", "tcsh").code == 2


PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
START = {
    "bash": ("--norc", "-i"),
    "zsh": ("-f", "-i"),
}
TABS = {"bash": 3, "zsh": 2}
"""Until all names are listed of which several fit."""
SOURCE = {
    "bash": 'eval "$(brainfed --completion bash)"',
    "zsh": 'autoload -Uz compinit && compinit -D -u; eval "$(brainfed --completion zsh)"',
}


def need(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} isn't installed (Debian: apt install {shell})")


class Screen:
    """A shell on a terminal of its own, with the completion of brainfed set up."""

    def __init__(self, shell: str, home: Path, folder: Path) -> None:
        self._ours, theirs = pty.openpty()
        self._shell = subprocess.Popen(
            ["setsid", "--ctty", shell, *START[shell]],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env={"PATH": PATH, "HOME": str(home), "TERM": "dumb", "LC_ALL": "C.UTF-8", "PS1": "> "},
        )
        os.close(theirs)
        self.type(f"{SOURCE[shell]}; echo rea''dy\n")
        self.wait_for("ready")

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def wait_for(self, *words: str, seconds: float = 60) -> str:
        """What has appeared since, once all words stand in it."""
        seen, end = "", time.monotonic() + seconds
        while not all(word in seen for word in words):
            ready, _, _ = select.select([self._ours], [], [], max(0, end - time.monotonic()))
            assert ready, f"{words} never appeared in {seen!r}"
            seen += os.read(self._ours, 4096).decode(errors="replace")
        return seen

    def close(self) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._ours)


@pytest.mark.parametrize("shell", ["bash", pytest.param("zsh", marks=pytest.mark.slow)])
def test_a_shell_on_a_terminal_completes(shell: str, workspace: Path, tmp_path_factory) -> None:
    need(shell)
    screen = Screen(shell, tmp_path_factory.mktemp("home"), workspace)
    try:
        screen.type("brainfed aggreg\t")
        screen.wait_for("aggregate")
        screen.type("--without " + "\t" * TABS[shell])
        screen.wait_for(*SITES)
        screen.type("\x15brainfed check brainf\t")
        screen.wait_for("brainfed.toml")
    finally:
        screen.close()


@pytest.mark.slow
def test_fish_completes(workspace: Path, tmp_path_factory) -> None:
    need("fish")
    program = (
        "brainfed --completion fish | source; complete -C 'brainfed aggreg'; "
        "complete -C 'brainfed aggregate --without '; complete -C 'brainfed check brainf'"
    )
    done = subprocess.run(
        ["fish", "--no-config", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=workspace,
        env={"PATH": PATH, "HOME": str(tmp_path_factory.mktemp("home")), "LC_ALL": "C.UTF-8"},
    )
    words = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert words == ["aggregate", *SITES, "brainfed.toml"], done.stderr
