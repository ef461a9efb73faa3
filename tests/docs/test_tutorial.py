"""The tutorial's commands are typed by this test, at a terminal, and its questions answered."""

import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
SECONDS = 300


def commands() -> str:
    """All shell blocks of the tutorial, in order."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", TUTORIAL.read_text(), re.M | re.S))


def at_a_terminal(script: Path, folder: Path) -> tuple[int, str]:
    """Run a script as a person would, and answer each question with yes."""
    controller, terminal = pty.openpty()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        ["bash", "-e", str(script)],
        cwd=folder,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "PATH": path, "TERM": "xterm", "COLUMNS": "80"},
        start_new_session=True,
    ) as shell:
        os.close(terminal)
        shown, asked = "", 0
        while True:
            try:
                piece = os.read(controller, 4096)
            except OSError:  # the shell has gone and taken the terminal with it
                break
            if not piece:
                break
            shown += piece.decode("utf-8", "replace")
            if shown.count("[y/N]") > asked:
                asked += 1
                os.write(controller, b"y\n")
        os.close(controller)
        return shell.wait(timeout=SECONDS), shown


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_the_tutorial_works_as_it_is_typed(tmp_path: Path) -> None:
    script = tmp_path / "tutorial.sh"
    script.write_text(commands())
    (tmp_path / "empty").mkdir()

    code, shown = at_a_terminal(script, tmp_path / "empty")

    assert code == 0, shown[-3000:]
    # Two fingerprints at admit, fingerprint and plan at two first imports, the test patients.
    assert shown.count("[y/N]") == 7, shown
    assert 'Good "brainfed" signature for uni-lead' in shown
    assert "Traceback" not in shown
    site = tmp_path / "empty" / "hospital-a"
    assert len(list(site.glob("rounds/r0002/*.global.safetensors"))) == 1
    assert '"opened-test"' in (site / "ledger.jsonl").read_text()
