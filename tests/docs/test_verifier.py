"""The verifier of the page on audits runs as it stands, and notices what was changed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.audited import C, an_archive, close_round_as, name_of, sign, write

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "audit.md"
FILES = an_archive()
needs_ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed"
)


def verifier() -> str:
    found = re.search(r"<!-- verifier -->\n```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert found
    return found[1]


def verify(folder: Path) -> subprocess.CompletedProcess[str]:
    script = folder.parent / "verify.py"
    script.write_text(verifier())
    return subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False
    )


def test_it_shares_nothing_with_brainfed_and_is_short() -> None:
    assert "import brainfed" not in verifier()
    assert "from brainfed" not in verifier()
    assert len([line for line in verifier().splitlines() if line.strip()]) <= 48


@needs_ssh_keygen
def test_it_re_derives_every_round_of_an_archive(tmp_path: Path) -> None:
    done = verify(write(FILES, tmp_path / "archive"))
    assert done.returncode == 0, done.stderr
    words = [line.split()[:2] for line in done.stdout.splitlines()]
    expected = [["r0000", "given"], *(["r000" + n, "re-derived"] for n in "123")]
    assert words[:4] == expected


@needs_ssh_keygen
@pytest.mark.parametrize("kind", ["hospital-a.update", "record", "global"])
@pytest.mark.parametrize("is_signed_again", [False, True])
def test_it_notices_one_bit(kind: str, is_signed_again: bool, tmp_path: Path) -> None:
    files = an_archive()
    name = name_of(files, "r0002.", kind)
    changed = bytearray(files[name])
    at = changed.index(b'"weight":12') + 10 if kind == "record" else len(changed) - 2
    changed[at] ^= 1
    files[name] = bytes(changed)
    if is_signed_again:  # by the right key: now only the arithmetic can tell
        sign(files, name, "hospital-a" if "update" in kind else "uni-lead")
    done = verify(write(files, tmp_path / "archive"))
    assert done.returncode != 0
    assert "r0001 re-derived" in done.stdout
    assert "r0002" not in done.stdout
    assert ("CalledProcessError" in done.stderr) == (not is_signed_again)


@needs_ssh_keygen
def test_it_misses_an_update_that_was_taken_away(tmp_path: Path) -> None:
    name = name_of(FILES, "r0001.", "hospital-b")
    done = verify(write({n: d for n, d in FILES.items() if name not in n}, tmp_path / "archive"))
    assert "KeyError" in done.stderr


@needs_ssh_keygen
def test_it_notices_a_round_that_a_site_closed(tmp_path: Path) -> None:
    files = an_archive()
    close_round_as(files, 3, C)
    done = verify(write(files, tmp_path / "archive"))
    assert done.returncode != 0
    assert "r0002 re-derived" in done.stdout
    assert "AssertionError" in done.stderr
