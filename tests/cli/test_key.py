import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brainfed.formats import enrolment, federation, signature, workspace
from brainfed.formats.roster import Role
from brainfed.steps.initialise import initialise
from tests.cli.typed import Typed, too_wide
from tests.federation import Small, a_federation, a_workspace


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return a_federation(tmp_path)


def test_a_key_is_shown(typed: Typed, tmp_path: Path) -> None:
    place = a_workspace(tmp_path, Role.COORDINATOR, "uni-lead")
    answer = typed("key", "show", "--workspace", tmp_path)
    recovery = signature.read_public(signature.public_path(place.recovery_path))
    assert answer.code == 0
    for text in (
        f"  {place.public_key().fingerprint}\n",
        place.public_key().line,
        "without a passphrase",
        f"  {recovery.fingerprint}\n",
        "move it to another place",
    ):
        assert text in answer.out
    assert "PRIVATE KEY" not in answer.out


def test_a_shown_key_can_be_json(typed: Typed, tmp_path: Path) -> None:
    place = a_workspace(tmp_path, Role.SITE, "hospital-a")
    answer = typed("key", "show", "--workspace", tmp_path, "--json")
    assert answer.json["fingerprint"] == place.public_key().fingerprint
    assert answer.json["is_encrypted"] is False
    assert answer.json["recovery_fingerprint"] is None


def test_a_site_is_told_where_to_bring_its_new_key(typed: Typed, small: Small) -> None:
    site = small.sites["hospital-a"]
    answer = typed("key", "rotate", "--workspace", site.root)
    assert answer.code == 0
    new = workspace.find(site.root).public_key()
    assert new != site.public_key()
    assert new.fingerprint in answer.out
    assert "outbox/hospital-a.enrolment.json" in answer.out
    assert "brainfed admit" in answer.out
    assert not too_wide(answer.out.replace(str(site.root), ""))


def test_the_coordinator_is_told_to_carry_the_roster(typed: Typed, small: Small) -> None:
    lead = small.coordinator
    answer = typed("key", "rotate", "--workspace", lead.root, "--json")
    assert answer.json["roster_version"] == 2
    assert answer.json["enrolment"] is None
    answer = typed("key", "rotate", "--workspace", lead.root, "--recovery", lead.recovery_path)
    assert answer.code == 0
    assert "version 3" in answer.out
    assert "brainfed export" in answer.out
    found = federation.newest_roster(lead)
    assert found is not None
    assert found.coordinator.public_key.fingerprint in answer.out


def test_a_key_in_an_agent_is_for_no_coordinator(typed: Typed, small: Small) -> None:
    words = ("--key", signature.public_path(small.coordinator.key_path))
    answer = typed("key", "rotate", *words, "--workspace", small.coordinator.root)
    assert answer.code == 2
    assert "--passphrase" in answer.err


def type_at_a_terminal(lines: list[str], *words: object) -> tuple[int, str]:
    """Type a command line and the answers to its questions; gives what stood on the terminal."""
    if sys.platform == "win32":
        pytest.skip("Windows has no pseudo-terminals")
    master, slave = os.openpty()
    program = "import sys; from brainfed.cli.app import run; sys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", program, *(str(word) for word in words)]
    seen = b""
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    ) as child:
        os.close(slave)
        for line in lines:
            while not seen.rstrip(b"\r\n").endswith(b": "):
                seen += os.read(master, 1024)
            time.sleep(0.05)  # the echo goes off before the question; what is typed comes after
            seen += b"|"
            os.write(master, line.encode() + b"\n")
        while child.poll() is None or seen[-1:] == b"":
            try:
                seen += os.read(master, 1024)
            except OSError:  # the terminal closes with the program
                break
    os.close(master)
    return child.returncode, seen.decode()


def test_a_passphrase_is_never_on_the_screen(tmp_path: Path) -> None:
    words = ("init", "site", "--name", "hospital-a", "--passphrase", "--workspace", tmp_path)
    code, screen = type_at_a_terminal(["open sesame", "open sesame"], *words)
    assert code == 0, screen
    assert "New passphrase: " in screen
    assert "sesame" not in screen
    (tmp_path / "outbox" / "hospital-a.enrolment.json").unlink()
    code, screen = type_at_a_terminal(["open sesame"], "key", "rotate", "--workspace", tmp_path)
    assert code == 0, screen
    assert "sesame" not in screen
    assert screen.count("Passphrase of ") == 1
    place = workspace.find(tmp_path)
    found = enrolment.read_verified(place.outbox / "hospital-a.enrolment.json")
    assert found.key == place.public_key().line


def test_a_passphrase_is_asked_for_nowhere_else_than_at_a_terminal(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    initialise(tmp_path, Role.SITE, "hospital-a", passphrase=b"open sesame")
    (tmp_path / "outbox" / "hospital-a.enrolment.json").unlink()
    monkeypatch.setenv("BRAINFED_PASSPHRASE", "open sesame")
    answer = typed("key", "rotate", "--workspace", tmp_path)
    assert answer.code == 2
    assert "no terminal" in answer.err
    assert typed("key", "show", "--workspace", tmp_path).code == 0
